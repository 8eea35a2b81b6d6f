"""What features explain beyond nuisance: variance of planted parts."""

from __future__ import annotations

import numpy as np
import pytest
from himalaya.backend import get_backend
from threadpoolctl import threadpool_limits

from phaselab.encoding.himalaya import unique_contribution
from phaselab.study import EncodingSpec

RUNS = {"b": slice(0, 200), "a": slice(200, 400), "c": slice(400, 600)}
SPEC = EncodingSpec(log10_alphas=(-1, 4, 6))


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):
        yield


def split(values: np.ndarray) -> dict[str, np.ndarray]:
    return {run: values[of] for run, of in RUNS.items()}


@pytest.fixture(scope="module")
def planted():
    """Two spaces with four columns in common; variance .3 and .1 from their own, .2 from those, noise .4."""
    rng = np.random.default_rng(2)
    own, other, both = rng.standard_normal((3, 600, 4))
    weights = rng.standard_normal((3, 4, 60))
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    parts = np.sqrt([0.3, 0.1, 0.2])[:, None, None] * np.stack([own, other, both]) @ weights
    Y = parts.sum(0) + np.sqrt(0.4) * rng.standard_normal((600, 60))
    X = {0: split(rng.standard_normal((600, 5))), 1: split(np.hstack([own, both]))}
    Y_of = {"s": split(Y[:, :40]), "t": split(Y[:, 40:])}
    rois = {"s": np.repeat(["front", "back"], 20), "t": np.repeat("back", 20)}
    return X, split(np.hstack([other, both])), Y_of, rois


def test_planted_variance_is_a_row_per_measure_layer_subject_and_region(planted) -> None:
    X, nuisance, Y, rois = planted
    before = get_backend().name
    rows = unique_contribution(X, nuisance, Y, SPEC, rois=rois)
    assert get_backend().name == before
    assert len(rows) == 3 * 2 * (3 + 2)
    value = rows.set_index(["measure", "layer", "subject", "roi"])["value"]
    assert value["r2_unique", 1, "s", "all"] == pytest.approx(0.3, abs=0.04)
    assert value["r2_joint", 1, "t", "back"] == pytest.approx(0.6, abs=0.04)
    assert value["r2_unique", 0, "s", "all"] == pytest.approx(0, abs=0.02)
    assert value["r2_joint", 0, "s", "front"] == pytest.approx(0.3, abs=0.06)
    assert value["r2_nuisance", 0, "s", "all"] == value["r2_nuisance", 1, "s", "all"] == pytest.approx(0.3, abs=0.04)
    halves = value["r2_joint", 1, "s", "front"], value["r2_joint", 1, "s", "back"]
    assert np.mean(halves) == pytest.approx(value["r2_joint", 1, "s", "all"])


def test_batches_and_other_subjects_do_not_matter(planted) -> None:
    X, nuisance, Y, rois = planted
    some = {"t": {run: values[:, :9] for run, values in Y["t"].items()}}
    some["u"] = {run: some["t"][run] for run in ("a", "c")}
    mine = {"t": rois["t"][:9], "u": rois["t"][:9]}
    small = SPEC.model_copy(update={"memory": 3e-4})
    one, two = (unique_contribution({1: X[1]}, nuisance, some, spec, rois=mine) for spec in (SPEC, small))
    np.testing.assert_allclose(one["value"], two["value"], atol=1e-9)
    alone = unique_contribution({1: X[1]}, nuisance, {"t": some["t"]}, SPEC, rois=mine)
    np.testing.assert_allclose(alone["value"], one[one["subject"] == "t"]["value"], atol=1e-9)


def test_a_constant_voxel_has_no_variance_to_explain(planted) -> None:
    X, nuisance, Y, _ = planted
    still = {run: values[:, :2].copy() for run, values in Y["s"].items()}
    for values in still.values():
        values[:, 1] = 3
    rows = unique_contribution({1: X[1]}, nuisance, {"s": still}, SPEC, rois={"s": np.array(["a", "b"])})
    value = rows.set_index(["measure", "roi"])["value"]
    assert value["r2_joint", "b"] == value["r2_unique", "b"] == 0
    assert value["r2_joint", "a"] > 0.4


def test_regressors_that_say_nothing_do_not_spoil_the_first(planted) -> None:
    """Little data, a response to word rate alone, and seven regressors of noise: the baseline stays about that high."""
    rng = np.random.default_rng(7)
    rate, noise, X = rng.standard_normal((150, 1)), rng.standard_normal((150, 7)), rng.standard_normal((150, 4))
    Y = 0.3 * rate + rng.standard_normal((150, 30))
    spec = EncodingSpec(log10_alphas=(-1, 5, 7), folds="contiguous", n_folds=3, gap=2)

    def of(*columns: np.ndarray) -> dict[str, float]:
        given = {0: {"r": X}}, {"r": np.hstack(columns)}, {"s": {"r": Y}}
        rows = unique_contribution(*given, spec, rois={"s": np.repeat("a", 30)})
        return rows[rows["roi"] == "all"].set_index("measure")["value"].to_dict()

    best, both, last = of(rate), of(rate, noise), of(noise, rate)
    assert best["r2_nuisance"] - 0.02 < both["r2_nuisance"]
    assert last["r2_nuisance"] < both["r2_nuisance"] - 0.02, "only the first is a space of its own"
    assert abs(both["r2_unique"]) < 0.02


def test_what_does_not_fit_is_named(planted) -> None:
    X, nuisance, Y, rois = planted
    with pytest.raises(ValueError, match=r"nuisance: runs: found \['b'\], expected \['a', 'c'\] as well"):
        unique_contribution(X, {"b": nuisance["b"]}, Y, SPEC, rois=rois)
    with pytest.raises(ValueError, match=r"run a: nuisance: found shape \(9, 8\), expected \(200 rows"):
        unique_contribution(X, nuisance | {"a": nuisance["a"][:9]}, Y, SPEC, rois=rois)
    bad = {run: np.where(values == values[3, 3], np.nan, values) for run, values in Y["t"].items()}
    with pytest.raises(ValueError, match="run b: subject t: found NaN or infinite values"):
        unique_contribution({1: X[1]}, nuisance, Y | {"t": Y["t"] | {"b": bad["b"]}}, SPEC, rois=rois)
