"""A study as jobs of Snakemake, on this machine or on a cluster: what is to be made of it, and Snakemake's run.

``workflow/Snakefile`` has the rules, each a command of phaselab; which results are current is decided here.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Collection, Sequence
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
from phaselab.sweep.workers import with_parent

#: Where the rules lie, and up to which of them a sweep may go.
WORKFLOW, UNTIL = Path(__file__).parents[1] / "workflow", ("units", "curves", "phases", "notebooks", "book")
#: How Snakemake tells, at its end, which jobs have failed for good.
FAILED = re.compile(r"^Error in rule \w+:\n +message: (.*)\n(?:.*\n)*? +log: (?:logs/)?(\S+)", re.MULTILINE)


def survey(bench: Workbench, rows: pd.DataFrame, device: str, without: Collection[str] = ()) -> Row:
    """Model, `without` some -> what is to be made of it, and what a job for one of its checkpoints may take.

    train, compare (whether), checkpoints, current, damaged (how many), todo (revisions), minutes, training (minutes),
    mem_mb. Minutes of a stage are the study's, else four times what `rows` of a plan expect of it, or of the longest of
    the others, and ten at least.
    """
    study, found = bench.study, Row()
    for model in (model for model in study.models if model.name not in without):
        there, asked = bench.there(model), [stage for stage in STAGES.values() if stage.asked(study, model)]
        kinds = {
            at.revision: {bench.state(s, model, at).kind for s in bench.asked(model, at)} if there else {"missing"}
            for at in reversed(bench.expected(model))  # the last one has the most stages
        }
        todo = [revision for revision, of in kinds.items() if of - {"current"}]
        own = rows[rows["of"] == model.name].set_index("what")
        each = 4 * 60 * own[f"{device} hours"] / (own["asked"] - own["here"])  # NaN: not known
        usual = max(10, np.nan_to_num(each.reindex([stage.name for stage in asked]).max(), nan=60))
        found[model.name] = {
            "train": not there,
            "compare": any(s.scope == "model" and not (there and bench.state(s, model, None)) for s in asked),
            "checkpoints": len(kinds),
            "todo": todo,
            "current": len(kinds) - len(todo),
            "damaged": sum("damaged" in of for of in kinds.values()),
            "minutes": ceil(sum(study.minutes.get(stage.name, usual) for stage in asked)),
            "training": 60 + ceil(np.nan_to_num(each.get("train", 0.0), nan=24 * 60)),
            "mem_mb": 1024 * ceil(3 + study.encoding.memory + np.nan_to_num(own[MEMORY].max(), nan=2**30) / 2**30),
        }
    return found


def command(folder: Path, profile: str, jobs: int, more: Sequence[str]) -> list[str]:
    """Snakemake's command line for the configuration in `folder`, where it keeps files of its own.

    Of this environment, else of the PATH, for it may have one of its own; a PhaselabError where there is none.
    """
    own, packaged = Path(sys.executable).with_name("snakemake"), WORKFLOW / "profiles" / profile
    program = str(own) if own.is_file() else shutil.which("snakemake")
    right = "it: pip install 'phaselab[cluster]', or snakemake and its plugin for SLURM in another environment"
    expect(program, "phaselab sweep", f"no snakemake beside {sys.executable}, and none in PATH", right)
    right = "a machine that submits jobs to SLURM"
    expect(profile != "slurm" or shutil.which("sbatch"), "--profile slurm", "no sbatch in PATH", right)
    options: Row = {"snakefile": WORKFLOW / "Snakefile", "configfile": folder / "config.json", "directory": folder}
    options |= {"profile": packaged if packaged.is_dir() else home(profile).absolute(), "jobs": jobs}
    line = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    # What is current has been decided, and of two sweeps the second is refused.
    return [str(program), *line, "--forceall", "--nolock", "--drop-metadata", *more]


def run(config: Row, folder: Path, line: Sequence[str], say: Callable[[str], None], bar: Callable[..., None]) -> Row:
    """Run Snakemake by its command `line` in `folder`; job -> why it failed. Its words are in ``snakemake.log``.

    Interrupted, or with the end of this process (on Linux), it cancels its jobs. A PhaselabError where another sweep of
    the study is under way.
    """
    try:
        lease = claim(folder).acquire(timeout=0)
    except Timeout as error:
        raise PhaselabError(f"{folder}: found another sweep of this study under way, expected its end") from error
    told, total, done = folder / "snakemake.log", dict[str, int](), Counter[str]()
    with lease:
        shutil.rmtree(folder / "done", ignore_errors=True)
        write_json(config, folder / "config.json")
        # In a session of its own: Ctrl-C of a terminal is handed on once, to it and to the jobs that it runs here.
        how: Any = {"text": True, "errors": "replace", "start_new_session": True}
        how |= {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "preexec_fn": with_parent(signal.SIGINT)}
        with told.open("w", encoding="utf-8") as log, subprocess.Popen(line, **how) as process:
            try:
                for said in process.stdout or ():
                    log.write(said)
                    log.flush()
                    if of := re.match(r"([a-z]+) +(\d+)$", said):  # of its table of jobs
                        total |= {of[1]: int(of[2])}
                        say(f"jobs of {of[1]}: {of[2]}")
                    elif (of := re.match(r"Finished jobid: \d+ \(Rule: (\w+)\)", said)) and of[1] in total:
                        done[of[1]] += 1
                        bar(of[1], done[of[1]], total[of[1]])
            except KeyboardInterrupt:
                os.killpg(process.pid, signal.SIGINT)
                process.communicate()
                raise
    if not process.returncode:
        return {}
    text = told.read_text(encoding="utf-8")
    failed = Row()
    for message, name in FAILED.findall(text.partition("Exiting because")[2]):
        path = folder / "logs" / name
        end = path.read_text(errors="replace").split("\n")[-3:] if path.is_file() else []
        failed[name.removesuffix(".log")] = " ".join([message.removeprefix("None"), *end, f"({path})"]).strip()
    return failed or {"snakemake": f"{' '.join(text.split(chr(10))[-5:]).strip()} ({told})"}
