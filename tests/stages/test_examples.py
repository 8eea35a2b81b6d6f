"""A stage and a family are one file and one entry: the examples of CONTRIBUTING.md, run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from examples import example
from phaselab.checkpoints.families import read_families
from phaselab.results import Store
from phaselab.stages import STAGES, Stage, Workbench
from phaselab.study import Study
from tiny import with_


@pytest.fixture
def weights() -> Iterator[Stage]:
    """The stage of the example, registered for a test."""
    exec(compile(example("stages/weights.py"), "weights.py", "exec"), {"__name__": "weights"})
    yield STAGES["weights"]
    del STAGES["weights"]


def test_a_stage_is_one_file(weights: Stage, tmp_path: Path) -> None:
    study = Study.model_validate(with_(("tasks", []), ("models.0.checkpoints", "every:2")))
    bench = Workbench(study, Store(tmp_path))
    model = study.models[0]
    for checkpoint in bench.checkpoints(model):
        assert weights in bench.asked(model, checkpoint)
        assert bench.make(model, checkpoint, [weights]) == 1
        assert bench.make(model, checkpoint, [weights]) == 0
    rows = pd.read_parquet(bench.result("weights", model, checkpoint) / weights.table)
    assert rows[["perspective", "measure", "model"]].iloc[0].to_list() == ["internal", "weight_rms", "one"]
    assert 0 < rows["value"][0] < 1


def test_a_family_is_one_entry() -> None:
    family = read_families(example("checkpoints/families.yaml"))["my-run"]
    reading = family.read("step1000-tokens2B")
    assert reading is not None
    assert (reading.step, reading.tokens) == (1000, 2 * 10**9)
    assert family.read("main") is None
