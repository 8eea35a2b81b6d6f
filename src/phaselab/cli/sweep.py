"""``phaselab sweep``: a study as jobs of Snakemake, here or on a cluster."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from rich.markup import escape

from phaselab.cli import common
from phaselab.cli.common import DataOption, DeviceOption, KeepOption, ResultsOption, RootOption, StudyArgument, say
from phaselab.errors import expect
from phaselab.results import Store
from phaselab.study import load_study

_MORE = "Options of Snakemake, after --: -- --default-resources slurm_partition=gpu"
_PROFILE = "local, slurm, or a folder with a profile of Snakemake's of your own."
_JOBS = "Jobs at once; by default one a core of this machine."
_GROUP = "Checkpoints a job; by default as many as take an hour or two, and leave four jobs for each at once."
JobsOption = Annotated[int | None, typer.Option("--jobs", "-j", min=1, help=_JOBS)]


@common.app.command()
def sweep(
    study: StudyArgument,
    more: Annotated[list[str] | None, typer.Argument(metavar="[-- OPTIONS]", help=_MORE)] = None,
    profile: Annotated[str, typer.Option(help=_PROFILE)] = "local",
    jobs: JobsOption = None,
    until: Annotated[str, typer.Option(help="The last of: units, curves, phases, notebooks, book.")] = "book",
    group: Annotated[int, typer.Option(min=0, help=_GROUP, show_default=False)] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what there is to do, and which jobs.")] = False,
    keep_downloads: KeepOption = "yes",
    results: ResultsOption = Path("results"),
    data: DataOption = None,
    device: DeviceOption = "cpu",
    root: RootOption = Path("."),
) -> None:
    """Make what is missing of a study as jobs of Snakemake, on this machine or on a cluster, up to the book.

    What there is to do is said first. Results are those of ``run`` and ``book``; interrupted, it cancels its jobs.
    """
    from phaselab.book import runner
    from phaselab.stages import Workbench, check
    from phaselab.sweep import cluster, pool
    from phaselab.sweep.plan import SUMS, plan

    expect(until in cluster.UNTIL, "--until", repr(until), f"one of {', '.join(cluster.UNTIL)}")
    bench, at_once = Workbench(load_study(study), Store(results), data, say), jobs or pool.cores()
    failed, planned = check(bench, bench.study.models), plan(bench, study)
    models = cluster.survey(bench, planned["rows"], "cpu" if device == "cpu" else "cuda", failed)
    config: dict[str, Any] = {
        "models": models,
        "gpu": int(device != "cpu"),
        "jobs": at_once,
        "group": group,
        "pages": [],
    }
    config["until"], stale = "units" if failed else until, any(of["train"] or of["todo"] for of in models.values())
    if config["until"] in ("notebooks", "book"):
        of = (bench.study, common.checkout(root) / "notebooks")
        given = common.of_pages(study, results, data, device)
        config["pages"] = [*runner.pages(*of, given=given)] if stale else runner.stale_pages(*of, bench.store, given)
    shown = pd.DataFrame(models).T.drop(columns=["minutes", "training", "mem_mb"])
    typer.echo(shown.assign(todo=shown["todo"].map(len)).rename(columns={"todo": "to do"}))
    typer.echo("\n".join(f"{name}: {common.planned(name, planned['sums'][name])}" for name in SUMS))
    # As it was typed, where it was typed: an executed page has it in it.
    words = {"of": [study, "--results", str(results), *(["--data", str(data)] if data else [])]}
    words |= {"phaselab": [sys.executable, "-m", "phaselab"], "keep": ["--keep-downloads", keep_downloads]}
    words |= {"device": ["--device", device], "root": ["--root", str(root)], "folder": [str(Path.cwd())]}
    config |= {name: shlex.join(parts) for name, parts in words.items()}
    folder = bench.store.study(bench.study.name).absolute() / ".sweep"
    line = cluster.command(folder, profile, at_once, [*(more or ()), *["--dry-run"] * dry_run])
    say(shlex.join(line))
    with pool.View(common.console) as view:
        failed |= cluster.run(config, folder, line, view.say, view.bar)
    for name, why in failed.items():
        common.console.print(f"[red]failed[/] {name}: {escape(why)}", highlight=False, soft_wrap=True)
    if failed:
        raise typer.Exit(1)
