"""How long do `phaselab run` and `phaselab sweep` take when nothing has to be done, and what does a second worker gain?

Really computed: one checkpoint of a tiny model. Its results then stand for those of as many checkpoints as are asked
for, each with a folder and weights of its own, so that the command looks through as many files as after a real sweep.
What is timed is the whole command, interpreter and imports included, with one run of each size after another. Of
`sweep` that is up to where Snakemake begins, in whose place a program stands that does nothing. Then a study of twelve
checkpoints is made anew by one worker and by two, in turn.

    python benchmarks/sweep.py [--quick] [--json FILE] [--check]
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from io import StringIO
from pathlib import Path

import numpy as np
import yaml
from _table import Row, arguments, finish
from rich.console import Console

from phaselab import results
from phaselab.results import Store, write_folder
from phaselab.stages import Workbench
from phaselab.study import load_study
from phaselab.sweep import pool

SIZES, LARGE = (40, 160, 320), 2000
#: `sweep` with another Snakemake.
SWEEP = "import sys; sys.executable = sys.argv.pop(1); from phaselab.cli import app; app()"
TRAIN = {
    "text": "world",
    "architecture": "gpt_neox",
    "hidden_size": 16,
    "layers": 1,
    "heads": 2,
    "intermediate_size": 32,
    "steps": 1,
    "batch": 2,
    "warmup": 1,
    "checkpoints": 2,
}
STUDY = {
    "title": "Nothing to do",
    "brain": {"name": "simulated", "subjects": 2, "runs": 3, "minutes": 6, "vertices": 24},
    "features": {"trim": 2},
    "encoding": {"permutations": 20, "shuffles": 1, "log10_alphas": [0, 4, 5]},
    "internals": {"probes": ["who"], "samples": 200},
    "tasks": [{"name": "reading", "items": 8}],
}


def write_study(root: Path, name: str, model: dict[str, object]) -> Path:
    """A study of the trained model, whose text has the tasks, and of `model`."""
    path = root / f"{name}.yaml"
    text = {"name": "text", "train": TRAIN, "checkpoints": "step0-tokens0"}
    path.write_text(yaml.safe_dump({**STUDY, "name": name, "models": [text, model]}))
    return path


def prepare(root: Path, size: int) -> Path:
    """A study of `size` checkpoints whose results are all there."""
    made = root / f"model-{size}"
    study = load_study(write_study(root, f"study-{size}", {"name": "many", "folder": str(made)}))
    bench = Workbench(study, Store(root / "results"))
    first = bench.folder(study.models[0]) / "step0-tokens0"
    for number in range(size):
        shutil.copytree(first, made / f"step{number}-tokens{number * 1000}")
    text, many = study.models
    bench.make(text, bench.checkpoints(text)[0])
    checkpoints = bench.checkpoints(many)
    bench.make(many, checkpoints[-1])
    for checkpoint in checkpoints[:-1]:
        for stage in bench.asked(many, checkpoint):
            source = bench.place(stage, many, checkpoints[-1])
            with write_folder(bench.place(stage, many, checkpoint), bench.inputs(stage, many, checkpoint)) as aside:
                for file in source.iterdir():
                    if file.name != "manifest.json":
                        (shutil.copytree if file.is_dir() else shutil.copy)(file, aside / file.name)
    return root / f"study-{size}.yaml"


def command(study: Path, root: Path) -> float:
    """Seconds of one run of the command; raises when it computes anything."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "phaselab", "run", str(study), "--results", str(root / "results")],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - began
    rows = dict(line.strip("│ ").split("│") for line in done.stderr.splitlines() if line.count("│") == 3)
    assert {name.strip(): value.strip() for name, value in rows.items()}["stages computed"] == "0", done.stderr
    return seconds


def planned(study: Path, root: Path) -> float:
    """Seconds of `sweep` up to Snakemake; raises when it finds something to do."""
    program = root / "bin" / "snakemake"
    program.parent.mkdir(exist_ok=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    began = time.perf_counter()
    options = ["--until", "phases", "--results", str(root / "results")]
    line = [sys.executable, "-c", SWEEP, str(program.with_name("python")), "sweep", str(study), *options]
    subprocess.run(line, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - began
    models = json.loads((root / "results" / study.stem / ".sweep" / "config.json").read_text())["models"]
    assert not any(row["make"] or row["train"] for row in models.values()), models
    return seconds


def made(root: Path, workers: int) -> float:
    """Seconds in which a study of twelve checkpoints is made by so many workers; the models are there."""
    content = {
        **STUDY,
        "name": "workers",
        "encoding": {"permutations": 1000, "shuffles": 0, "log10_alphas": [0, 4, 20]},
    }
    content["brain"] = {**STUDY["brain"], "vertices": 2000, "minutes": 12}
    content["models"] = [{"name": f"s{seed}", "train": {**TRAIN, "seed": seed}} for seed in range(6)]
    (root / "workers.yaml").write_text(yaml.safe_dump(content))
    study = load_study(root / "workers.yaml")
    for model in study.models:
        Workbench(study, Store(root / "results")).folder(model)
    shutil.rmtree(root / "results" / "workers", ignore_errors=True)
    began = time.perf_counter()
    outcome = pool.run(study, Store(root / "results"), jobs=workers, console=Console(file=StringIO()))
    assert outcome.computed, outcome
    assert not outcome.failures, outcome
    return time.perf_counter() - began


def main() -> None:
    options = arguments(__doc__ or "")
    repeats, sizes = (2, SIZES) if options.quick else (5, (*SIZES, LARGE))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        results._flush = lambda folder: None  # thousands of copies need not survive a power cut
        studies = {size: prepare(root, size) for size in sizes}
        seconds = {of: {size: [] for size in sizes} for of in ("run", "sweep")}
        for study in studies.values():
            command(study, root)  # stamps, and caches of the system
        for number in range(repeats):
            for size, study in studies.items():
                if size <= SIZES[-1] or number < 3:
                    seconds["run"][size].append(command(study, root))
                    seconds["sweep"][size].append(planned(study, root))
        workers = {} if options.quick else {n: [] for n in (1, 2)}
        for _ in range(3):
            for n, times in workers.items():
                times.append(made(root, n))
    median = {of: {size: float(np.median(values)) for size, values in own.items()} for of, own in seconds.items()}
    run, sweep = median["run"], median["sweep"]

    def each(of: dict[int, float], low: int, high: int) -> float:
        """Milliseconds of each checkpoint more."""
        return (of[high] - of[low]) / (high - low) * 1000

    rows = [Row(f"nothing to do, {size} checkpoints", run[size], "s") for size in sizes if size != 160]
    rows.insert(1, Row("nothing to do, 160 checkpoints", run[160], "s", "<= 3", run[160] <= 3))
    low, high = each(run, 40, 160), each(run, 160, 320)
    rows.append(Row("each checkpoint more, 40 to 160", low, "ms"))
    rows.append(Row("each checkpoint more, 160 to 320", high, "ms"))
    rows.append(Row("growth: the second over the first", high / low, "times", "<= 1.5", high / low <= 1.5))
    rows += [Row(f"sweep up to Snakemake, {size} checkpoints", sweep[size], "s") for size in sizes]
    last = sizes[-1]
    part = each(sweep, 40, last) / each(run, 40, last)
    rows.append(Row(f"sweep: each checkpoint more, 40 to {last}", each(sweep, 40, last), "ms"))
    rows.append(Row("the same, over that of run", part, "times", "<= 1", part <= 1))
    if not options.quick:
        for name, of in median.items():
            growth = each(of, 320, LARGE) / each(of, 40, 320)
            rows.append(
                Row(f"growth of {name}, 320 to {LARGE} over 40 to 320", growth, "times", "<= 1.5", growth <= 1.5)
            )
        gain = float(np.median(np.divide(workers[1], workers[2])))
        rows.append(Row("twelve checkpoints: one worker over two", gain, "times", ">= 1.5", gain >= 1.5))
    finish("sweep", rows, options, seconds=seconds["run"], sweep=seconds["sweep"], workers=workers)


if __name__ == "__main__":
    main()
