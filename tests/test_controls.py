"""Controls: what autocorrelation gives away, and variance of known parts."""

from __future__ import annotations

import numpy as np
import pytest
from himalaya.backend import get_backend, set_backend
from scipy.signal import lfilter
from threadpoolctl import threadpool_limits

from phaselab.encoding import Scores
from phaselab.encoding import folds as cv
from phaselab.encoding.controls import (
    above_control,
    autocorrelation_only,
    beyond_nuisance,
    variance_partitioning,
)
from phaselab.study import EncodingSpec


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):
        yield


def slow(n: int, k: int, seed: int = 0) -> np.ndarray:
    return lfilter([1], [1, -0.8], np.random.default_rng(seed).standard_normal((n, k)), axis=0)


# -------------------------------------------------------------------------------- autocorrelation


def test_autocorrelation_alone_wins_on_shuffled_folds_only() -> None:
    Y, runs = slow(400, 30), np.repeat(range(4), 100)
    score = {
        name: autocorrelation_only(Y, folds, of).mean()
        for name, folds, of in (
            ("shuffled", cv.shuffled(400, 4), None),
            ("contiguous", cv.contiguous(400, 4), None),
            ("gap", cv.contiguous(400, 4, gap=6), None),
            ("runs", cv.leave_one_run_out(runs), runs),
        )
    }
    assert score["shuffled"] > 0.75
    assert 0 < score["contiguous"] < 0.2
    assert score["gap"] == score["runs"] == 0


def test_white_responses_give_nothing_away() -> None:
    Y = np.random.default_rng(1).standard_normal((400, 200))
    assert abs(autocorrelation_only(Y, cv.shuffled(400, 4)).mean()) < 0.03


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"Y": np.ones(5)}, r"Y: found shape \(5,\)"),
        ({"Y": np.full((8, 1), np.nan)}, "Y: found 8 NaN"),
        ({"folds": []}, "folds: found none"),
        ({"folds": cv.contiguous(500, 2)}, "folds: found row 499, expected 0 to"),
        ({"runs": np.zeros(7)}, r"runs: found shape \(7,\), expected \(8,\)"),
    ],
)
def test_autocorrelation_names_what_does_not_fit(given, message) -> None:
    with pytest.raises(ValueError, match=message):
        autocorrelation_only(**({"Y": np.eye(8), "folds": cv.contiguous(8, 2), "runs": None} | given))


# -------------------------------------------------------------------------- variance partitioning


@pytest.fixture(scope="module")
def planted():
    """Two spaces with four columns in common; variance .3 and .1 from their own, .2 from those, noise .4."""
    rng = np.random.default_rng(2)
    own, other, both = rng.standard_normal((3, 600, 4))
    weights = rng.standard_normal((3, 4, 60))
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    parts = np.sqrt([0.3, 0.1, 0.2])[:, None, None] * np.stack([own, other, both]) @ weights
    Y = parts.sum(0) + np.sqrt(0.4) * rng.standard_normal((600, 60))
    return {"one": np.hstack([own, both]), "two": np.hstack([other, both])}, Y


def test_planted_variance_is_parted_as_planted(planted) -> None:
    spaces, Y = planted
    found = variance_partitioning(spaces, Y, cv.contiguous(600, 3), np.logspace(-1, 4, 6), iterations=10)
    assert found.joint.mean() == pytest.approx(0.6, abs=0.03)
    assert found.alone["one"].mean() == pytest.approx(0.5, abs=0.03)
    assert found.unique["one"].mean() == pytest.approx(0.3, abs=0.03)
    assert found.unique["two"].mean() == pytest.approx(0.1, abs=0.03)
    assert found.shared.mean() == pytest.approx(0.2, abs=0.03)
    np.testing.assert_allclose(sum(found.product.values()), found.joint)
    np.testing.assert_allclose(found.shared, found.alone["one"] + found.alone["two"] - found.joint, atol=1e-12)
    # Each space's part has what is its own, and some of what is shared.
    assert 0.3 < found.product["one"].mean() < 0.5
    assert 0.1 < found.product["two"].mean() < 0.3


def test_a_third_space_of_noise_adds_nothing_and_the_search_is_seeded(planted) -> None:
    spaces, Y = planted
    spaces = spaces | {"noise": np.random.default_rng(3).standard_normal((600, 6))}
    folds, alphas = cv.contiguous(600, 2), np.logspace(0, 4, 3)
    set_backend("torch")
    try:
        one, two = (variance_partitioning(spaces, Y[:, :10], folds, alphas, 2, iterations=5, seed=5) for _ in range(2))
        assert get_backend().name == "torch"
    finally:
        set_backend("numpy")
    assert abs(one.unique["noise"].mean()) < 0.02
    assert abs(one.alone["noise"].mean()) < 0.02
    assert one.unique["one"].mean() > 0.2
    np.testing.assert_array_equal(one.joint, two.joint)


def test_a_constant_voxel_has_no_variance_to_explain(planted) -> None:
    spaces, Y = planted
    Y = Y[:, :2].copy()
    Y[:, 1] = 3
    found = variance_partitioning(spaces, Y, cv.contiguous(600, 2), np.ones(1), 2, iterations=2)
    assert found.joint[1] == found.shared[1] == 0
    assert found.joint[0] > 0.4


@pytest.mark.parametrize(
    ("spaces", "message"),
    [
        ({"one": np.eye(12)}, "spaces: found 1"),
        ({"one": np.eye(12), "two": np.ones((9, 2))}, "spaces: two: found 9 samples, expected 12"),
        ({"one": np.eye(12), "two": np.full((12, 1), np.inf)}, "spaces: two: found 12 NaN"),
    ],
)
def test_variance_partitioning_names_the_space(spaces, message) -> None:
    with pytest.raises(ValueError, match=message):
        variance_partitioning(spaces, np.eye(12), cv.contiguous(12, 2))


def test_beyond_nuisance_is_a_row_a_measure_layer_subject_and_region(planted) -> None:
    spaces, Y = planted
    runs = {"b": slice(0, 200), "a": slice(200, 400), "c": slice(400, 600)}

    def split(values: np.ndarray) -> dict[str, np.ndarray]:
        return {run: values[of] for run, of in runs.items()}

    Y_of = {"s": split(Y[:, :40]), "t": split(Y[:, 40:])}
    rois = {"s": np.repeat(["front", "back"], 20), "t": np.repeat("back", 20)}
    X = {0: split(np.random.default_rng(6).standard_normal((600, 5))), 1: split(spaces["one"])}
    spec = EncodingSpec(log10_alphas=(-1, 4, 6))
    rows = beyond_nuisance(X, split(spaces["two"]), Y_of, rois, spec)
    assert len(rows) == 2 * 4 * (3 + 2)
    value = rows.set_index(["measure", "layer", "subject", "roi"])["value"]
    assert value["r2_features", 1, "s", "all"] == pytest.approx(0.3, abs=0.04)
    assert value["r2_shared", 1, "t", "back"] == pytest.approx(0.2, abs=0.04)
    assert value["r2_features", 0, "s", "all"] == pytest.approx(0, abs=0.02)
    assert value["r2_nuisance", 0, "s", "front"] == pytest.approx(0.3, abs=0.06)
    halves = value["r2_joint", 1, "s", "front"], value["r2_joint", 1, "s", "back"]
    assert np.mean(halves) == pytest.approx(value["r2_joint", 1, "s", "all"])
    with pytest.raises(ValueError, match=r"nuisance: runs: found \['b'\], expected \['a', 'b', 'c'\]"):
        beyond_nuisance(X, {"b": np.ones((200, 1))}, Y_of, rois, spec)
    with pytest.raises(ValueError, match="rois: found 40 voxels, expected 60"):
        beyond_nuisance(X, split(spaces["two"]), Y_of, rois | {"t": rois["s"][:0]}, spec)


# ------------------------------------------------------------------------------- beyond a control


def score(r: np.ndarray, layers: tuple[int, ...] = (0, 1)) -> Scores:
    return Scores(r=r, p=np.ones_like(r), significant=r > 1, alpha=np.ones_like(r), layers=layers)


def test_above_control_is_the_mean_difference_by_region() -> None:
    trained, untrained = np.array([[0.1, 0.2, 0.6], [0.3, 0.4, 0.5]]), np.full((2, 3), 0.1)
    rows = above_control({"s": score(trained)}, {"s": score(untrained)}, {"s": np.array(["a", "a", "b"])}).set_index(
        ["layer", "roi"]
    )
    assert set(rows["measure"]) == {"r_above_control"}
    assert rows.loc[(0, "a"), "value"] == pytest.approx(0.05)
    assert rows.loc[(1, "all"), "value"] == pytest.approx(0.3)
    with pytest.raises(ValueError, match=r"control: subject s: found layers \(0, 2\)"):
        above_control({"s": score(trained)}, {"s": score(untrained, (0, 2))}, {})
    with pytest.raises(ValueError, match=r"control: found subjects \['t'\], expected \['s'\]"):
        above_control({"s": score(trained)}, {"t": score(untrained)}, {})
