"""``benchmarks/gpu.py`` where no GPU is: every part in tiny sizes on a device that is none, its boxes, what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TESTS = BENCHMARKS.with_name("tests")
#: All parts in one process, one that has no time, and what encoding may be asked for beside, on the CPU and elsewhere.
PARTS = """
import dataclasses, json, sys
sys.path.insert(0, sys.argv[1])
import stand_in
stand_in.begin()
import gpu
found = {name: list(part("cuda", True)) for name, part in gpu.PARTS.items()}
rows = {name: [dataclasses.asdict(row) for row in of if isinstance(row, gpu.Row)] for name, of in found.items()}
rates = dict(row for of in found.values() for row in of if not isinstance(row, gpu.Row))
late, none = gpu.in_its_box("ridge", "cpu", True, 0.01)

import numpy as np
from phaselab.encoding import encode
from phaselab.study import EncodingSpec
rng = np.random.default_rng(0)
X = {0: {run: rng.normal(size=(40, 5)) for run in "abc"}}
Y = {"s": {run: X[0][run] @ rng.normal(size=(5, 6)) + 3 * rng.normal(size=(40, 6)) for run in "abc"}}
apart = []
for how in ({"null": "circular"}, {"null": "pooled"}, {"solver": "himalaya"}, {"memory": 1e-4}):
    spec = EncodingSpec(permutations=20, log10_alphas=(0, 4, 5), **how)
    one, other = (encode(X, Y, spec, device=device)["s"] for device in ("cpu", "cuda"))
    apart.append([float(np.abs(a - b).max()) for a, b in zip(one[1:4], other[1:4])])
mixed = ""
try:
    torch = gpu.torch
    torch.ones(2, device="cuda") + torch.ones(2)
except RuntimeError as error:
    mixed = str(error)
said = {"late": [dataclasses.asdict(row) for row in late], "none": none, "apart": apart, "mixed": mixed}
print(json.dumps({"rows": rows, "rates": rates, **said}))
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    # Its modules have names that folders of tests have too: a process of its own.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=BENCHMARKS, env=environment, capture_output=True, text=True, timeout=900)


def test_every_part_runs_on_a_device_that_takes_no_tensors_of_another_and_meets_its_goals() -> None:
    done = python("-c", PARTS, str(TESTS))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert list(found["rows"]) == ["ridge", "layer", "states", "permutations", "study"]
    assert all(found["rows"].values())
    goals = [row for of in found["rows"].values() for row in of if row["goal"]]
    assert len(goals) == 5  # answers; speed has none in tiny sizes
    assert all(row["met"] for row in goals), goals
    assert set(found["rates"]) == {"states", "ridge"}
    assert min(found["rates"].values()) > 0
    assert [(row["met"], "not done after 0.01 s" in row["name"]) for row in found["late"]] == [(False, True)]
    assert found["none"] == {}
    assert np.max(found["apart"]) < 1e-4
    assert "same device, found cuda (2,), cpu (2,)" in found["mixed"]  # or nothing was shown


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_it_says_so_measures_nothing_and_ends_with_0(tmp_path: Path) -> None:
    done = python("gpu.py", "--json", str(tmp_path / "gpu.json"), "--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("gpu: no CUDA device is here, so nothing was measured")
    assert not (tmp_path / "gpu.json").exists()


def test_its_time_is_8_minutes_at_most() -> None:
    boxes = python("-c", "import gpu; print(sum(gpu.BOXES.values()), set(gpu.BOXES) == set(gpu.PARTS))").stdout.split()
    assert int(boxes[0]) <= 480
    assert boxes[1] == "True"
