"""Publish the demo with a sample of its first model, with which the book's clean notebooks need no results.

python book/_ext/sample.py published

The sample is the last checkpoint in half precision, and of each checkpoint the correlation of each voxel and the
answers to the items. Text and brain of the demo are generated, so that nothing in it is anybody else's.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pandas as pd

from phaselab.book.lab import Lab
from phaselab.book.published import publish
from phaselab.results import MANIFEST, Store, read_manifest, write_folder, write_table
from phaselab.study import load_study

#: What is published of an answer to an item; bytes of all that is published of the demo, at most.
ANSWERS = [
    "checkpoint",
    "task",
    "item",
    "scored",
    "answer",
    "chosen",
    "greedy",
    "follows",
    "correct",
    "log_probability",
]
LARGEST = 2_000_000


def add_sample(lab: Lab, folder: Path) -> None:
    """Put the sample into the folder of a published study."""
    outcomes, voxels = [], []
    for at in lab.checkpoints():
        outcomes.append(lab.outcomes(at).assign(checkpoint=at.revision)[ANSWERS])
        for subject, own in lab.voxels(at).items():
            table = pd.DataFrame(own["r"].T.round(3), columns=list(map(str, own["layers"])))
            voxels.append(table.assign(subject=subject, checkpoint=at.revision))
    answers = pd.concat(outcomes)
    answers["log_probability"] = answers["log_probability"].map(lambda value: float(f"{value:.4g}"))
    network, tokenizer = lab.load()
    about = read_manifest(folder)
    del about["outputs"]
    with write_folder(folder, about.pop("inputs"), **about) as aside:
        shutil.copytree(folder, aside, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
        write_table(answers, aside / "outcomes.parquet")
        write_table(pd.concat(voxels), aside / "voxels.parquet")
        network.half().save_pretrained(aside / "checkpoint")
        tokenizer.save_pretrained(aside / "checkpoint")
        size = sum(path.stat().st_size for path in aside.rglob("*") if path.is_file())
        assert size <= LARGEST, f"{folder}: {size} bytes, expected at most {LARGEST}"


def main() -> None:
    """Publish it from ``results``."""
    lab = Lab(load_study("demo"), Store(Path("results")))
    add_sample(lab, publish(lab, Path(sys.argv[1])))


if __name__ == "__main__":
    main()
