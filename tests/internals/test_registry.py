"""A measure is one file: found by being in the folder, computed for each layer, and versioned."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from examples import example
from phaselab import internals
from phaselab.errors import PhaselabError
from phaselab.internals import measures, registry
from phaselab.study import InternalSpec

#: A whole measure, as it would stand in src/phaselab/internals/measures/kurtosis.py.
EXAMPLE = example("internals/measures/kurtosis.py")

BUILT_IN = ("norm", "anisotropy", "participation_ratio", "effective_rank", "intrinsic_dimension")
BUILT_IN += ("intrinsic_dimension_mle", "massive_ratio", "massive_share")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that stands for ``measures/`` too; what is registered meanwhile is forgotten afterwards."""
    registry.versions()
    monkeypatch.setattr(measures, "__path__", [*measures.__path__, str(tmp_path)])
    monkeypatch.setattr(registry, "MEASURES", dict(registry.MEASURES))
    before = set(sys.modules)
    yield tmp_path
    for name in {name for name in set(sys.modules) - before if name.startswith(measures.__name__)}:
        del sys.modules[name]


def test_a_file_in_the_folder_is_all_that_a_measure_takes(folder: Path) -> None:
    assert len(EXAMPLE.splitlines()) <= 25
    assert tuple(internals.versions()) == BUILT_IN
    (folder / "kurtosis.py").write_text(EXAMPLE, encoding="utf-8")
    rng = np.random.default_rng(0)
    layers = {0: rng.normal(size=(400, 50)), 3: rng.laplace(size=(400, 50))}
    words = pd.DataFrame({"word": ["w"] * 400})
    rows = internals.measure({k: v.astype(np.float32) for k, v in layers.items()}, words, InternalSpec(samples=400))
    assert rows["measure"].to_list() == [*BUILT_IN, "kurtosis"] * 2
    value = rows[rows["measure"] == "kurtosis"].set_index("layer")
    assert value["value"][0] == pytest.approx(0, abs=0.2)
    assert value["value"][3] > 1.5
    assert (value["stderr"] > 0).all()
    assert internals.versions() == {**dict.fromkeys(BUILT_IN, 1), "kurtosis": 1}


def test_measures_share_parts_which_are_computed_once(folder: Path) -> None:
    calls = []

    @registry.measure(version=0)
    def doubled(centred: np.ndarray) -> np.ndarray:
        calls.append(len(centred))
        return 2 * centred

    @registry.measure(version=1)
    def highest(doubled: np.ndarray, states: np.ndarray) -> float:
        return doubled.max() + states.mean()

    @registry.measure(version=1)
    def nothing(doubled: np.ndarray) -> None:
        return None

    states = np.random.default_rng(1).normal(size=(30, 4))
    found = internals.geometry(states)
    assert found["highest"][0] == pytest.approx(2 * (states - states.mean(0)).max() + states.mean())
    assert np.isnan(found["highest"][1])
    assert "nothing" not in found
    assert calls == [30]


def test_names_are_distinct_and_parts_known(folder: Path) -> None:
    (folder / "other.py").write_text(EXAMPLE.replace("kurtosis", "norm"), encoding="utf-8")
    with pytest.raises(PhaselabError, match=r"measures.other: measure: found a second 'norm', expected distinct names"):
        internals.versions()
    (folder / "other.py").write_text(EXAMPLE.replace("states: np", "state: np"), encoding="utf-8")
    with pytest.raises(PhaselabError, match="measure kurtosis: found 'state', expected states or one of centred"):
        internals.geometry(np.ones((30, 4)))


def test_versions_are_known_without_what_measuring_needs() -> None:
    code = (
        "import sys; from phaselab.internals.registry import versions; versions();"
        "print(*sorted({'torch', 'scipy', 'sklearn', 'transformers'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == ""
