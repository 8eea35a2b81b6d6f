"""A study as jobs of Snakemake, here or on a cluster: what is to be made, and its run by ``workflow/Snakefile``."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import Timeout

from phaselab.errors import PhaselabError, expect
from phaselab.files import home, read_text
from phaselab.results import claim, write_json
from phaselab.stages import STAGES, Workbench
from phaselab.sweep.plan import MEMORY, Row
from phaselab.sweep.pool import View
from phaselab.sweep.workers import with_parent

WORKFLOW = Path(__file__).parents[1] / "workflow"


def survey(bench: Workbench, rows: pd.DataFrame, device: str) -> dict[str, Row]:
    """Model -> its revisions to ``make``, what else is to be made, and minutes and MiB of a job of one.

    Minutes of a stage: the study's, else four times those of the longest in `rows` of a plan, ten at least; or 60.
    What they are of stages that nobody has measured is said.
    """
    study, found, hours = bench.study, dict[str, Row](), f"{'cpu' if device == 'cpu' else 'cuda'} hours"
    for model in study.models:
        there, asked = bench.there(model), [stage for stage in STAGES.values() if stage.asked(study, model)]
        units = reversed(bench.expected(model))  # the last one has the most stages
        row: Row = {"train": not there, "make": [at.revision for at in units if not there or bench.stale(model, at)]}
        row["compare"] = any(s.scope == "model" and not (there and bench.state(s, model, None)) for s in asked)
        own = rows[rows["of"] == model.name].set_index("what").reindex([stage.name for stage in asked])
        each = 4 * 60 * own[hours] / (own["asked"] - own["here"])  # NaN: not known
        usual = max(10, np.nan_to_num(each.max(), nan=60))
        row["minutes"] = int(np.ceil(sum(study.minutes.get(stage.name, usual) for stage in asked)))
        guessed = own.index[each.isna() & (own["asked"] > own["here"])].difference([*study.minutes])
        if len(guessed):
            said = f"{model.name}: nobody has measured how long a checkpoint takes in {', '.join(guessed)}: jobs have "
            bench.say(f"{said}{usual:g} minutes for each of these; 'minutes' in the study would say how many")
        network = np.nan_to_num(own[MEMORY].max(), nan=2**30) / 2**30
        found[model.name] = row | {"mem_mb": 1024 * int(np.ceil(3 + study.encoding.memory + network))}
    return found


def run(bench: Workbench, config: Row, profile: str, more: Sequence[str], view: View) -> None:
    """Run Snakemake with options `more`; a PhaselabError tells what failed. Its own words are in ``snakemake.log``.

    It is of this environment, or else of the PATH. Interrupted, or (on Linux) with the end of this process, it cancels
    its jobs. Of a study there is one sweep at a time.
    """
    folder = bench.store.study(bench.study.name).absolute() / ".sweep"
    own, ours = Path(sys.executable).with_name("snakemake"), profile in ("local", "slurm")
    program = str(own) if own.is_file() else shutil.which("snakemake")
    right = "it: pip install 'phaselab[cluster]', or Snakemake with its plugin for SLURM in another environment"
    expect(program, "phaselab sweep", f"no snakemake beside {sys.executable}, and none in PATH", right)
    options: Row = {"snakefile": WORKFLOW / "Snakefile", "configfile": folder / "config.json", "directory": folder}
    options["profile"] = WORKFLOW / "profiles" / profile if ours else home(profile).absolute()
    options["jobs"] = config["jobs"]
    files = [*options["profile"].glob("config*.yaml")]
    expect(files, "--profile", repr(profile), "local, slurm, or a folder with a config.yaml of Snakemake's")
    asked = "\n".join([*map(read_text, files), " ".join(more)])
    slurm = re.search(r"^executor: *['\"]?slurm|(--executor|-e)[= ]slurm", asked, re.MULTILINE)
    right = "it: a machine from which jobs go to SLURM, such as a cluster's login node; --profile local is this one"
    expect(not slurm or "--dry-run" in more or shutil.which("sbatch"), "phaselab sweep", "no sbatch in PATH", right)
    line = [str(program), *(word for name, value in options.items() for word in (f"--{name}", str(value)))]
    # What is current has been decided, and of two sweeps the second is refused.
    line += ["--forceall", "--nolock", "--drop-metadata", *more]
    view.say(shlex.join(line))
    try:
        lease = claim(folder).acquire(timeout=0)
    except Timeout as error:
        raise PhaselabError(f"{folder}: found another sweep of this study under way, expected its end") from error
    with lease:
        told = folder / "snakemake.log"
        shutil.rmtree(folder / "done", ignore_errors=True)
        write_json(config, folder / "config.json")
        # In a session of its own: Ctrl-C of a terminal is handed on once, to it and to the jobs that it runs here.
        how: Any = {"text": True, "errors": "replace", "start_new_session": True}
        how |= {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "preexec_fn": with_parent(signal.SIGINT)}
        with told.open("w", encoding="utf-8", buffering=1) as log, subprocess.Popen(line, **how) as process:
            try:
                for said in process.stdout or ():
                    log.write(said)
                    if re.match(r"[a-z]+ +\d+$", said):  # the table of its jobs
                        view.say(f"jobs: {said.strip()}")
                    elif of := re.match(r"(\d+) of (\d+) steps", said):
                        view.bar("jobs", int(of[1]), int(of[2]))
            except KeyboardInterrupt:
                os.killpg(process.pid, signal.SIGINT)
                process.communicate()
                raise
    text, done = told.read_text(encoding="utf-8"), folder / "done"
    # At its end those that have failed for good: what befell them, and their logs.
    ends = re.findall(r"message:( .*)\n(?:.*\n)*? +log: (\S+)", text.partition("Exiting because")[2])
    # Of a job that ended itself Snakemake's message is None.
    failed = [" ".join([f"{folder / name}:{why.replace(' None', '')}", *_said(folder / name)]) for why, name in ends]
    paged = ["book"] if (done / "book").exists() else [f"pages/{page}" for page in config["pages"]]
    logs = [folder / "logs" / f"{name}.log" for name in paged if (done / name).exists()]
    failed += [" ".join([f"{log}: not all pages:", *said]) for log in logs if (said := _said(log, last=0))]
    if failed or process.returncode:
        raise PhaselabError("\n  ".join(["failed jobs:", *(failed or text.split("\n")[-5:])]) + f"\n  see {told}")


def _said(log: Path, last: int = 3) -> list[str]:
    """What the log of a job says of failures; else its `last` lines."""
    lines = log.read_text(errors="replace").split("\n") if log.is_file() else []
    return [line for line in lines if line.startswith(("failed", "phaselab:"))] or lines[::-1][:last][::-1]
