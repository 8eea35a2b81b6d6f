"""How long does `phaselab run` take when nothing has to be done?

Really computed: one checkpoint of a tiny model. Its results then stand for those of as many checkpoints as are asked
for, each with a folder and weights of its own, so that the command looks through as many files as after a real sweep.
What is timed is the whole command, interpreter and imports included, with one run of each size after another.

    python benchmarks/sweep.py [--quick] [--json FILE] [--check]
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from _table import Row, arguments, finish

from phaselab import results
from phaselab.results import Store, write_folder
from phaselab.stages import Workbench
from phaselab.study import load_study

SIZES = (40, 160, 320)
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


def main() -> None:
    options = arguments(__doc__ or "")
    repeats = 2 if options.quick else 7
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        results._flush = lambda folder: None  # thousands of copies need not survive a power cut
        studies = {size: prepare(root, size) for size in SIZES}
        for study in studies.values():
            command(study, root)  # stamps, and caches of the system
        seconds = {size: [] for size in SIZES}
        for _ in range(repeats):
            for size, study in studies.items():
                seconds[size].append(command(study, root))
    median = {size: float(np.median(values)) for size, values in seconds.items()}
    rows = [Row(f"nothing to do, {size} checkpoints", median[size], "s") for size in SIZES if size != 160]
    rows.insert(1, Row("nothing to do, 160 checkpoints", median[160], "s", "<= 3", median[160] <= 3))
    low, high = ((median[b] - median[a]) / (b - a) * 1000 for a, b in ((40, 160), (160, 320)))
    rows.append(Row("each checkpoint more, 40 to 160", low, "ms"))
    rows.append(Row("each checkpoint more, 160 to 320", high, "ms"))
    rows.append(Row("growth: the second over the first", high / low, "times", "<= 1.5", high / low <= 1.5))
    finish("sweep", rows, options, seconds=seconds)


if __name__ == "__main__":
    main()
