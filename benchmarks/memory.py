"""Memory: the peak of `phaselab run` on whole volumes of six people, as large as those of the study `films`.

    python benchmarks/memory.py [--quick] [--json benchmarks/results/memory.json] [--check] [--folder FOLDER]

Responses are noise in the layout of OpenNeuro ds005531: 96 x 96 x 72 voxels, of which 90,000 are of the brain, in three
runs (2,402 volumes, 5.2 GB of float32 for six people); the model is a toy. What a run takes beyond the same run of 40
voxels a person has to fit into `encoding.memory`, here 1 GiB, with some room for what is read at once. Needs 12 GB of
disk; with --quick two people and 9,000 voxels.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import yaml
from _table import Row, arguments, finish
from scipy.io import savemat

SECONDS = {"01": 754, "02": 968, "03": 680}  # of suits, as published
VOLUME, MEMORY = 96 * 96 * 72, 1.0
TRAIN = {
    "text": "world",
    "mix": "en",
    "architecture": "gpt_neox",
    "steps": 2,
    "hidden_size": 32,
    "layers": 2,
    "heads": 2,
}


def write(data: Path, people: list[str], n_voxels: int) -> None:
    """Noise in the published layout, and a line of text for each second."""
    rng = np.random.default_rng(0)
    mask = np.sort(rng.choice(VOLUME, n_voxels, replace=False))
    place = data / "ds005531" / "derivatives"
    (place / "annotation").mkdir(parents=True)
    for run, n in SECONDS.items():
        lines = "".join(f"[00:00:00]メイン#Mike:the dog {k}\n" for k in range(n))
        (place / f"annotation/suits_run-{run}_speechTranscription_EN_each1sec.txt").write_text(lines, encoding="utf-8")
    for subject in people:
        folder = place / f"preprocessed_data/sub-{subject}"
        folder.mkdir(parents=True)
        savemat(folder / "vset_100.mat", {"tvoxels": mask[:, None] + 1.0})
        for run, n in SECONDS.items():
            path = folder / f"sub-{subject}_task-suits_run-{run}.mat"
            with h5py.File(path, "w", userblock_size=512) as file:
                # Nothing outside of the brain, which takes little room when it is packed.
                to = file.create_dataset("dataDT", (n, VOLUME), "i2", chunks=(16, VOLUME // 16), compression="lzf")
                for start in range(0, n, 128):
                    block = np.zeros((min(128, n - start), VOLUME), dtype="i2")
                    block[:, mask] = 100 * rng.standard_normal((len(block), n_voxels), dtype=np.float32)
                    to[start : start + len(block)] = block


def peak(study: dict[str, object], folder: Path) -> float:
    """Largest resident set of `phaselab run` and its workers in GiB."""
    path = folder / f"{study['name']}.yaml"
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    command = [Path(sys.executable).with_name("phaselab"), "run", path, "-j", "1", "--data", folder / "data"]
    code = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done.returncode)"
    )
    command = [sys.executable, "-c", code, *map(str, command), "--results", str(folder / "results")]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return int(done.stdout.split()[-1]) / 2**20


def main() -> None:
    options = arguments(__doc__ or "", folder={"type": Path, "help": "where to write, with 12 GB free"})
    people = [f"S0{k}" for k in range(1, 3 if options.quick else 7)]
    n_voxels = 9_000 if options.quick else 90_000
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        write(folder / "data", people, n_voxels)
        study: dict[str, object] = {
            "title": "Noise",
            "brain": {"name": "films", "subjects": people, "titles": ["suits"]},
            "models": [{"name": "toy", "label": "toy", "train": TRAIN}],
            "features": {
                "context": "text",
                "pooling": "mean",
                "hemodynamics": "average",
                "delays": [3, 4, 5],
                "trim": 20,
            },
            "encoding": {"folds": "runs", "permutations": 0, "shuffles": 0, "memory": MEMORY},
        }
        few = peak(study | {"name": "few", "brain": {**study["brain"], "voxels": 40}}, folder)  # type: ignore[dict-item]
        most = peak(study | {"name": "all"}, folder)
    held = len(people) * n_voxels * sum(SECONDS.values()) * 4 / 2**30
    title = f"{len(people)} people, {n_voxels:,} voxels, 2,402 TRs ({held:.2g} GiB of responses)"
    rows = [
        Row("peak with 40 voxels a person", few, "GiB"),
        Row(f"peak: {title}", most, "GiB"),
        Row("what all voxels take beyond that", most - few, "GiB", f"<= {MEMORY:g}", most - few <= MEMORY),
    ]
    finish("memory", rows, options)


if __name__ == "__main__":
    main()
