"""Encoding: folds, the solver against a plain loop, permutation tests, and scores of known signals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from threadpoolctl import threadpool_limits

from phaselab import results
from phaselab.encoding import encode, normalise, shuffled_stimulus, significance, summarise
from phaselab.encoding import folds as cv
from phaselab.encoding.ridge import Plan, Splits, Targets, solve
from phaselab.lazy import View
from phaselab.study import EncodingSpec

ALPHAS = np.logspace(-1, 5, 9)


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):
        yield


def smooth(rng, n, k, width=4):
    """(n, k) noise with the autocorrelation of a moving average, like features after an HRF."""
    kernel = np.ones(width) / width**0.5
    white = rng.standard_normal((n + width - 1, k))
    return np.stack([np.convolve(column, kernel, "valid") for column in white.T], 1)


def split(values, lengths):
    """Run name -> its rows."""
    parts = np.split(values, np.cumsum(lengths)[:-1])
    return {f"run-{number}": part.astype(np.float32) for number, part in enumerate(parts)}


def test_leave_one_run_out_keeps_runs_whole_and_in_order():
    runs = np.array(["b"] * 3 + ["a"] * 2 + ["c"] * 4)
    folds = cv.leave_one_run_out(runs)
    assert [set(runs[test]) for _, test in folds] == [{"b"}, {"a"}, {"c"}]
    for train, test in folds:
        assert not set(runs[train]) & set(runs[test])
        assert sorted([*train, *test]) == list(range(9))


@pytest.mark.parametrize(("n", "n_folds", "gap"), [(100, 4, 0), (101, 5, 7), (362, 4, 10)])
def test_contiguous_folds_cover_all_and_leave_the_gap(n, n_folds, gap):
    folds = cv.contiguous(n, n_folds, gap)
    assert np.array_equal(np.concatenate([test for _, test in folds]), np.arange(n))
    for train, test in folds:
        assert np.array_equal(test, np.arange(test[0], test[-1] + 1))
        assert np.abs(train[:, None] - test).min() == gap + 1
        # exactly the gap is lost: once at an end of the series, twice elsewhere
        sides = int(test[0] > 0) + int(test[-1] < n - 1)
        assert len(train) == n - len(test) - sides * gap


def test_inner_contiguous_gap_is_one_in_time_across_the_hole_of_the_outer_fold():
    runs, spec = np.zeros(200, int), EncodingSpec(folds="contiguous", n_folds=4, gap=6)
    for train, test in cv.outer_folds(runs, spec):
        inner = cv.inner_folds(train, runs, spec)
        assert len(inner) == 3
        for a, b in inner:
            assert np.abs(train[a][:, None] - train[b]).min() > 6
            assert not {*train[a], *train[b]} & {*test}


def test_inner_folds_by_run():
    runs = np.repeat([0, 1, 2], 30)
    inner = cv.inner_folds(np.flatnonzero(runs != 1), runs, SPEC)
    assert [len(b) for _, b in inner] == [30, 30]
    halves = cv.inner_folds(np.arange(30), runs, EncodingSpec(gap=3))
    assert [len(b) for _, b in halves] == [15, 15]
    assert [len(a) for a, _ in halves] == [12, 12]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cv.leave_one_run_out(np.zeros(5)), "runs: found 1"),
        (lambda: cv.contiguous(10, 1), "n_folds: found 1"),
        (lambda: cv.contiguous(3, 4), "n: found 3"),
        (lambda: cv.contiguous(20, 2, 10), "gap: found 10"),
    ],
)
def test_folds_that_cannot_be_name_the_argument(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ------------------------------------------------------------------------------------ significance


def permutation_p(a, b, block, number, seed=0):
    """p of one test set."""
    drawn = significance.Permutations([np.zeros(len(a))], block, number, seed, "block")
    return drawn.p([drawn.count([a], [b])], np.zeros(a.shape[1], int))


def test_permutation_p_agrees_with_a_plain_loop():
    rng = np.random.default_rng(6)
    predicted, measured = smooth(rng, 67, 5), smooth(rng, 67, 5)
    measured[:, 0] += predicted[:, 0]
    got = permutation_p(predicted, measured, 10, 99, 8)
    order = np.random.default_rng(8).permuted(np.tile(np.arange(6), (99, 1)), axis=1)
    blocks = measured[:60].reshape(6, 10, 5)
    for voxel in range(5):
        observed = np.corrcoef(predicted[:60, voxel], measured[:60, voxel])[0, 1]
        null = [np.corrcoef(predicted[:60, voxel], blocks[o][..., voxel].ravel())[0, 1] for o in order]
        assert got[voxel] == (1 + sum(np.array(null) >= observed - 1e-9)) / 100


def test_blocks_stay_inside_runs_and_folds():
    blocks = significance._blocks(np.repeat([0, 1], [25, 12]), 10)
    assert blocks[:, 0].tolist() == [0, 10, 25]
    with pytest.raises(ValueError, match="block: found 20 rows"):
        significance._blocks(np.zeros(35), 20)


def test_p_is_uniform_for_white_noise_and_few_pass_the_false_discovery_rate():
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal((2, 200, 3000))
    p = permutation_p(a, b, 10, 400, 1)
    assert p.min() >= 1 / 401
    # p has steps of 1/401: within one of them it is spread evenly before it is compared.
    spread = p - rng.uniform(0, 1 / 401, p.size)
    assert stats.kstest(spread, "uniform").pvalue > 0.01
    assert not (stats.false_discovery_control(p) <= 0.05).any()


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("kind", ["runs", "contiguous"])
def test_p_holds_its_level_for_folds_that_are_trained_and_tested_in_turn(kind, width):
    """Such folds are not independent; with permutations as if they were, about 0.11 of p are <= .05."""
    rng = np.random.default_rng(14)
    p = []
    for repeat in range(4):
        X = {0: split(smooth(rng, 480, 24, width), [120] * 4)}
        Y = {"s": split(smooth(rng, 480, 300, width), [120] * 4)}
        p.append(encode(X, Y, EncodingSpec(folds=kind, gap=5, permutations=200), seed=repeat)["s"].p)
    p = np.array(p)
    assert 0.015 < (p <= 0.05).mean() < 0.06
    assert (p <= 0.01).mean() < 0.018
    assert 0.4 < (p <= 0.5).mean() < 0.6


def test_p_is_not_too_small_under_autocorrelation_shorter_than_a_block():
    rng = np.random.default_rng(9)
    a, b = smooth(rng, 300, 1500, 4), smooth(rng, 300, 1500, 4)
    p = permutation_p(a, b, 20, 200)
    assert 0.03 < (p <= 0.05).mean() < 0.08


def test_no_permutation_gives_p_of_1():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((40, 3))
    assert permutation_p(a, a, 10, 0).tolist() == [1, 1, 1]


# ------------------------------------------------------------------------------------------ encode


LENGTHS = (110, 90, 100, 120)
SPEC = EncodingSpec(permutations=100)


@pytest.fixture(scope="module")
def world():
    """Two subjects whose first 20 of 30 voxels follow the features of layer 1, and not those of layer 0."""
    rng = np.random.default_rng(11)
    n = sum(LENGTHS)
    X = {0: smooth(rng, n, 16), 1: smooth(rng, n, 16)}
    signal, noise = {}, {}
    Y = {}
    for subject in ("one", "two"):
        signal[subject] = X[1] @ rng.standard_normal((16, 30)) / 4
        signal[subject][:, 20:] = 0
        noise[subject] = smooth(rng, n, 30)
        Y[subject] = split(signal[subject] + noise[subject], LENGTHS)
    ceiling = {s: np.where(np.arange(30) < 20, signal[s].std(0) / (signal[s] + noise[s]).std(0), 0.02) for s in Y}
    return {layer: split(values, LENGTHS) for layer, values in X.items()}, Y, ceiling


@pytest.fixture(scope="module")
def scores(world):
    X, Y, _ = world
    return encode(X, Y, SPEC, seed=2)


def test_encode_recovers_a_true_signal_and_nothing_else(world, scores):
    _, _, ceiling = world
    for subject, score in scores.items():
        assert score.layers == (0, 1)
        for array in (score.r, score.p, score.significant, score.alpha):
            assert array.shape == (2, 30)
        share = normalise(score.r[1], ceiling[subject])
        assert 0.85 < np.nanmean(share) < 1.05
        assert np.isnan(share[20:]).all()
        assert score.significant[1, :20].mean() > 0.95
        assert score.significant[1, 20:].mean() < 0.2
        assert score.significant[0].mean() < 0.1
        assert abs(score.r[0].mean()) < 0.1
        assert ((score.alpha >= 0.0999) & (score.alpha <= 1.001e7)).all()


def test_encode_twice_is_identical_and_subjects_do_not_matter_to_each_other(world, scores):
    X, Y, _ = world
    again = encode(X, {"two": Y["two"]}, SPEC, seed=2)["two"]
    # Products of another width may round otherwise, which decides between alphas that tie.
    np.testing.assert_allclose(again.r, scores["two"].r, atol=0.005)
    assert (again.alpha == scores["two"].alpha).mean() > 0.95
    same = encode(X, Y, SPEC, seed=2)["two"]
    for name in ("r", "p", "significant", "alpha"):
        np.testing.assert_array_equal(getattr(same, name), getattr(scores["two"], name))


def test_encode_does_not_see_the_responses_it_is_tested_on(world):
    """Responses of the held-out run are replaced: alpha and prediction of that fold must not change."""
    X, Y, _ = world
    runs = np.repeat(np.arange(4), LENGTHS)
    features = np.concatenate(list(X[1].values()))
    targets = np.concatenate(list(Y["one"].values()))
    spoilt = targets.copy()
    spoilt[runs == 2] = np.random.default_rng(0).standard_normal(spoilt[runs == 2].shape) * 100
    for train, test in cv.outer_folds(runs, SPEC)[2:3]:
        inner = cv.inner_folds(train, runs, SPEC)
        splits = Splits(len(train), tuple(inner))
        plan = Plan(features[train], splits, ALPHAS, features[test])
        one, two = (
            solve(plan, Targets.survey(View(responses, train), splits, View(responses, test)), predictions=True)
            for responses in (targets, spoilt)
        )
        np.testing.assert_array_equal(one.predictions, two.predictions)
        np.testing.assert_array_equal(one.alpha, two.alpha)
    # And through encode: features that equal the held-out run's responses in that run alone are of no use.
    rng = np.random.default_rng(1)
    noise = split(rng.standard_normal((sum(LENGTHS), 30)), LENGTHS)
    leak = {0: {run: values if run == "run-2" else noise[run] for run, values in Y["one"].items()}}
    r = encode(leak, {"one": Y["one"]}, SPEC)["one"].r
    assert abs(r.mean()) < 3 * r.std() / r.size**0.5 + 0.03


def test_shuffled_stimulus_scores_zero_within_its_interval(world):
    X, Y, _ = world
    shuffles = shuffled_stimulus({1: X[1]}, Y, SPEC, n=5, seed=3)
    assert len(shuffles) == 5
    assert all(list(of_shuffle) == ["one", "two"] for of_shuffle in shuffles)
    means = np.array([np.mean([s.r.mean() for s in of_shuffle.values()]) for of_shuffle in shuffles])
    assert len(np.unique(means)) == 5
    low, high = stats.t.interval(0.99, 4, means.mean(), means.std(ddof=1) / 5**0.5)
    assert low < 0 < high
    assert abs(means.mean()) < 0.08
    assert shuffled_stimulus({1: X[1]}, Y, SPEC, n=0) == []
    short = {1: {"r": np.ones((39, 2))}}
    with pytest.raises(ValueError, match="run r: found 39 TRs, expected at least 40"):
        shuffled_stimulus(short, {"s": {"r": np.ones((39, 1))}}, SPEC, 1)


def test_constant_voxels_score_zero_and_are_reported(world):
    X, Y, _ = world
    still = {run: values.copy() for run, values in Y["one"].items()}
    for values in still.values():
        values[:, 3] = 0.1
    still["run-1"][:, 5] = 7.0
    with pytest.warns(UserWarning, match="subject one: 2 of 30 voxels"):
        score = encode(X, {"one": still}, SPEC)["one"]
    assert score.r[1, 3] == 0
    assert score.p[1, 3] == 1
    assert not score.significant[1, 3]
    assert score.r[1, 5] > 0.1
    assert np.isfinite(score.r).all()
    assert np.isfinite(score.p).all()


def test_one_run_in_contiguous_folds_with_few_voxels_a_subject():
    """The shape of the Alice data: 362 TRs, 27 subjects of 6 regions, features of a small model."""
    rng = np.random.default_rng(12)
    X = smooth(rng, 362, 96)
    shared = X[:, :4] @ rng.standard_normal((4, 6))
    Y = {f"S{s:02d}": {"alice": (shared + 2 * smooth(rng, 362, 6)).astype(np.float32)} for s in range(27)}
    spec = EncodingSpec(folds="contiguous", n_folds=4, gap=10, permutations=100)
    scores = encode({0: {"alice": X}}, Y, spec)
    r = np.concatenate([s.r for s in scores.values()])
    assert r.shape == (27, 6)
    assert r.mean() > 0.15
    table = summarise(scores, {s: np.array([f"roi{i}" for i in range(6)]) for s in Y})
    assert len(table) == 27 * 7 * 2
    with pytest.raises(ValueError, match="runs: found 1"):
        encode({0: {"alice": X}}, Y, EncodingSpec(folds="runs"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda X, Y: Y["two"].update(other=Y["two"].pop("run-3")),
            r"subject two: runs: found \['other'.*'run-2'\], expected some of .*'run-3'\]",
        ),
        (lambda X, Y: Y["two"].clear(), r"subject two: runs: found \[\], expected some of"),
        (lambda X, Y: X[1].pop("run-3"), r"layer 1: runs: found .*'run-2'\], expected .*'run-3'\] as well"),
        (
            lambda X, Y: X[1].update({"run-0": X[1]["run-0"][1:]}),
            r"run run-0: layer 1: found .*109.*expected .110",
        ),
        (
            lambda X, Y: Y["one"].update({"run-1": Y["one"]["run-1"] * np.nan}),
            "run run-1: subject one: found NaN",
        ),
        (
            lambda X, Y: Y["one"].update({"run-1": Y["one"]["run-1"][:, 1:]}),
            r"run run-1: subject one: found shape \(90, 29\)",
        ),
    ],
)
def test_encode_names_the_run_that_does_not_fit(world, spoil, message):
    X, Y, _ = world
    X, Y = ({key: dict(of_run) for key, of_run in part.items()} for part in (X, Y))
    spoil(X, Y)
    with pytest.raises(ValueError, match=message):
        encode(X, Y, SPEC)


# --------------------------------------------------------------------------------------- summaries


def test_normalise():
    got = normalise(np.array([[0.2, 0.3, 0.1]]), np.array([0.4, 0.05, np.nan]))
    np.testing.assert_allclose(got, [[0.5, np.nan, np.nan]])


def test_summary_is_ready_for_the_curves_table(world, scores):
    _, _, ceiling = world
    rois = {s: np.repeat(["front", "back", "none"], 10) for s in scores}
    rows = summarise(scores, rois, ceiling)
    table = results.curve_table(
        rows.to_dict("records"), study="s", model="m", checkpoint="c", step=1, tokens=2, perspective="brain"
    )
    assert len(table) == 3 * 2 * 2 * 4
    one = table.query("subject == 'one' and layer == 1").set_index(["measure", "roi"])
    r = scores["one"].r[1].astype(float)
    assert one.loc[("r", "all"), "value"] == pytest.approx(r.mean())
    assert one.loc[("r", "back"), "value"] == pytest.approx(r[10:20].mean())
    assert one.loc[("r", "back"), "stderr"] == pytest.approx(r[10:20].std(ddof=1) / 10**0.5)
    share = r[:20] / ceiling["one"][:20]
    assert one.loc[("r_normalised", "all"), "value"] == pytest.approx(share.mean())
    assert np.isnan(one.loc[("r_normalised", "none"), "value"])
    assert one.loc[("significant", "front"), "value"] == scores["one"].significant[1, :10].mean()
    assert "r_normalised" not in set(summarise(scores, rois).measure)
