"""A study as jobs of Snakemake, here or on a cluster: what is to be made, and its run by ``workflow/Snakefile``."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import Timeout

from phaselab.errors import PhaselabError, expect
from phaselab.files import home
from phaselab.results import claim, write_json
from phaselab.stages import STAGES, Workbench
from phaselab.sweep.plan import MEMORY, Row
from phaselab.sweep.pool import View
from phaselab.sweep.workers import with_parent

WORKFLOW = Path(__file__).parents[1] / "workflow"
#: How Snakemake tells of a job that has failed: what befell it, and its log.
FAILED = re.compile(r"^Error in rule \w+:\n +message: (.*)\n(?:.*\n)*? +log: (\S+)", re.MULTILINE)


def survey(bench: Workbench, rows: pd.DataFrame, device: str) -> dict[str, Row]:
    """Model -> its revisions to ``make``, what else is to be made, and what a job of one may take.

    Minutes of a stage are the study's, else four times what `rows` of a plan expect of it or of a longer one, and ten
    at least; an hour where nothing is known. MiB: ``encoding.memory``, the network, and three GiB for the rest.
    """
    study, found, hours = bench.study, dict[str, Row](), f"{'cpu' if device == 'cpu' else 'cuda'} hours"
    for model in study.models:
        there, asked = bench.there(model), [stage for stage in STAGES.values() if stage.asked(study, model)]
        units = reversed(bench.expected(model))  # the last one has the most stages
        row: Row = {"train": not there, "make": [at.revision for at in units if not there or bench.stale(model, at)]}
        row["compare"] = any(s.scope == "model" and not (there and bench.state(s, model, None)) for s in asked)
        own = rows[rows["of"] == model.name].set_index("what")
        each = 4 * 60 * own[hours] / (own["asked"] - own["here"])  # NaN: not known
        usual = max(10, np.nan_to_num(each.reindex([stage.name for stage in asked]).max(), nan=60))
        row["minutes"] = ceil(sum(study.minutes.get(stage.name, usual) for stage in asked))
        row["training"] = 60 + ceil(np.nan_to_num(each.get("train", 0.0), nan=24 * 60))
        memory = 3 + study.encoding.memory + np.nan_to_num(own[MEMORY].max(), nan=2**30) / 2**30
        found[model.name] = row | {"mem_mb": 1024 * ceil(memory)}
    return found


def run(config: Row, folder: Path, profile: str, more: Sequence[str], view: View) -> dict[str, str]:
    """Run Snakemake in `folder` with options `more`; job -> why it failed. Its words are in ``snakemake.log``.

    It is of this environment, or else of the PATH, for it may have an environment of its own. Interrupted, or with the
    end of this process (on Linux), it cancels its jobs. A PhaselabError without it, without SLURM for the profile
    ``slurm``, or where another sweep of the study is under way.
    """
    own, packaged = Path(sys.executable).with_name("snakemake"), WORKFLOW / "profiles" / profile
    program = str(own) if own.is_file() else shutil.which("snakemake")
    right = "it: pip install 'phaselab[cluster]', or snakemake and its plugin for SLURM in another environment"
    expect(program, "phaselab sweep", f"no snakemake beside {sys.executable}, and none in PATH", right)
    right = "a machine that submits jobs to SLURM"
    expect(profile != "slurm" or shutil.which("sbatch"), "--profile slurm", "no sbatch in PATH", right)
    options: Row = {"snakefile": WORKFLOW / "Snakefile", "configfile": folder / "config.json", "directory": folder}
    options |= {"profile": packaged if packaged.is_dir() else home(profile).absolute(), "jobs": config["jobs"]}
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
                view.say("Snakemake cancels its jobs")
                os.killpg(process.pid, signal.SIGINT)
                process.communicate()
                raise
    text, failed = told.read_text(encoding="utf-8"), dict[str, str]()
    for message, name in FAILED.findall(text.partition("Exiting because")[2]):  # those without another attempt
        lines = path.read_text(errors="replace").split("\n") if (path := folder / name).is_file() else []
        end = [line for line in lines if line.startswith(("failed", "phaselab:"))] or lines[-3:]
        failed[path.with_suffix("").relative_to(folder / "logs").as_posix()] = " ".join([message, *end, f"({path})"])
    return failed or ({"Snakemake": f"{' '.join(text.split()[-40:])} ({told})"} if process.returncode else {})
