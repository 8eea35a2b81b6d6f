"""Geometry against closed forms and manifolds of known dimension; probes against planted labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge as RidgeOfSklearn
from sklearn.linear_model import RidgeClassifier

from phaselab import internals
from phaselab.errors import PhaselabError
from phaselab.internals import geometry, measure, probes
from phaselab.study import InternalSpec

N_NARRATIVES, LENGTH, TYPES, P = 20, 50, 60, 32
CLASSES = ("farm", "river", "school", "mill")


def _story(seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Labels of 1000 words and hidden states that hold the word, and, since the planting, the place."""
    rng = np.random.default_rng(seed)
    n = N_NARRATIVES * LENGTH
    word = rng.integers(0, TYPES, n)
    # A place lasts ten words, and all are equally common: chance is 1/4 exactly.
    place, unrelated = (rng.permutation(np.arange(n // 10) % len(CLASSES)).repeat(10) for _ in range(2))
    labels = pd.DataFrame(
        {
            "word": [f"w{i}" for i in word],
            "narrative": np.repeat(np.arange(N_NARRATIVES), LENGTH),
            "place": np.array(CLASSES)[place],
            "unrelated": np.array(CLASSES)[unrelated],
            "progress": np.tile(np.linspace(0, 1, LENGTH), N_NARRATIVES),
        }
    )
    states = rng.normal(size=(TYPES, P))[word] + 3 * rng.normal(size=(len(CLASSES), P))[place]
    states += 16 * labels["progress"].to_numpy()[:, None] * rng.normal(size=P) / np.sqrt(P)
    return labels, (states + 0.5 * rng.normal(size=(n, P))).astype(np.float32)


def _value(frame: pd.DataFrame, name: str, task: str = "", column: str = "value", layer: int = 0) -> float:
    row = frame[(frame["measure"] == name) & (frame["task"] == task) & (frame["layer"] == layer)]
    assert len(row) == 1, (name, task)
    return float(row[column].iloc[0])


# --- geometry -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dimension", "within"), [(2, 0.12), (5, 0.12), (10, 0.15)])
def test_dimension_of_a_flat_gaussian_is_recovered(dimension: int, within: float) -> None:
    rng = np.random.default_rng(dimension)
    basis, _ = np.linalg.qr(rng.normal(size=(50, dimension)))
    value, stderr = geometry(rng.normal(size=(1500, dimension)) @ basis.T)["intrinsic_dimension"]
    assert value == pytest.approx(dimension, rel=within)
    assert stderr == pytest.approx(value / np.sqrt(1350), rel=0.01)


def test_dimension_of_a_curved_sheet_is_two() -> None:
    rng = np.random.default_rng(0)
    angle, height = rng.uniform(1, 12, 1500), rng.uniform(0, 30, 1500)
    roll = np.stack([angle * np.cos(angle), height, angle * np.sin(angle)], axis=1)
    assert geometry(roll @ rng.normal(size=(3, 20)))["intrinsic_dimension"][0] == pytest.approx(2, rel=0.12)


def test_repeated_vectors_do_not_change_the_dimension() -> None:
    rng = np.random.default_rng(1)
    once = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 16))
    often = np.concatenate([once, once[:300], once[:50] * (1 + 1e-9)])
    found, name = geometry(often), "intrinsic_dimension"
    assert found[name][0] == pytest.approx(geometry(once)[name][0], rel=1e-6)
    few = geometry(np.repeat(once[:10], 30, axis=0))
    assert not {name, "intrinsic_dimension_mle"} & set(few)
    assert {"norm", "effective_rank"} <= set(few)


def test_spectrum_measures_have_their_closed_forms() -> None:
    rng = np.random.default_rng(2)
    columns, _ = np.linalg.qr(np.concatenate([np.ones((200, 1)), rng.normal(size=(200, 4))], axis=1))
    singular = np.array([4.0, 2.0, 1.0, 1.0])
    states = columns[:, 1:] * singular @ np.linalg.qr(rng.normal(size=(12, 4)))[0].T + 5  # mean is not 0
    found = geometry(states)
    squares, share = singular**2, singular / singular.sum()
    assert found["participation_ratio"][0] == pytest.approx(squares.sum() ** 2 / (squares**2).sum())
    assert found["effective_rank"][0] == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-5)
    wide = geometry(states[:8])  # more features than words
    eigenvalues = np.linalg.eigvalsh(np.cov(states[:8].T)).clip(0)
    assert wide["participation_ratio"][0] == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())


def test_anisotropy_is_the_mean_cosine_of_pairs_and_norm_the_mean_length() -> None:
    states = np.random.default_rng(3).normal(size=(40, 6)) + 0.7
    units = states / np.linalg.norm(states, axis=1, keepdims=True)
    pairs = [units[i] @ units[j] for i in range(40) for j in range(40) if i != j]
    found = geometry(states)
    assert found["anisotropy"][0] == pytest.approx(np.mean(pairs))
    assert found["norm"][0] == pytest.approx(np.linalg.norm(states, axis=1).mean())
    assert found["norm"][1] == pytest.approx(np.linalg.norm(states, axis=1).std(ddof=1) / np.sqrt(40))


def test_both_estimates_of_the_dimension_agree_and_are_those_of_scikit_dimension() -> None:
    # TwoNN(discard_fraction=0.1, method="mle") and MLE(comb="mle", ten neighbours) of scikit-dimension 0.5.0.
    library = {2: (1.957720757746904, 2.0233164297265485), 6: (5.853267235304224, 5.834104954981983)}
    rng = np.random.default_rng(7)
    for dimension, known in library.items():
        states = rng.normal(size=(1200, dimension)) @ rng.normal(size=(dimension, 40))
        found = geometry(states)
        two, pooled = found["intrinsic_dimension"][0], found["intrinsic_dimension_mle"][0]
        assert (two, pooled) == pytest.approx(known, rel=1e-9)
        assert pooled == pytest.approx(dimension, rel=0.12)
        assert pooled == pytest.approx(two, rel=0.2)


def test_censored_dimension_is_the_closed_form_word_by_word() -> None:
    states = np.random.default_rng(12).normal(size=(57, 3))
    ratios = []
    for i, state in enumerate(states):
        first, second = sorted(float(np.linalg.norm(state - other)) for j, other in enumerate(states) if j != i)[:2]
        ratios.append(np.log(second / first))
    seen = sorted(ratios)[:51]  # nine tenths of 57
    known = 50 / (sum(seen) + 6 * seen[-1])
    assert geometry(states)["intrinsic_dimension"] == pytest.approx((known, known / np.sqrt(51.3)))


def test_a_massive_feature_is_seen() -> None:
    states = np.random.default_rng(8).normal(size=(300, 50))
    plain = geometry(states)
    assert 4 < plain["massive_ratio"][0] < 10
    assert plain["massive_share"][0] == pytest.approx(1 / 50, rel=0.4)
    states[:, 7] = 100
    median = np.median(np.abs(states))
    assert geometry(states)["massive_ratio"][0] == pytest.approx(100 / median)
    assert geometry(states)["massive_share"][0] == pytest.approx(1e4 / (1e4 + 49), rel=0.02)


def test_cka_is_1_up_to_rotation_and_scale_and_low_for_unrelated_states() -> None:
    rng = np.random.default_rng(9)
    states = rng.normal(size=(200, 12)) @ rng.normal(size=(12, 12))
    turn, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    assert internals.cka(states, 3 * states @ turn + 5) == pytest.approx(1)
    assert internals.cka(states, rng.normal(size=(200, 12))) < 0.2
    wide = rng.normal(size=(40, 90))
    centre = np.eye(40) - 1 / 40
    a, b = states[:40] @ states[:40].T, wide @ wide.T
    own = np.trace(a @ centre @ b @ centre)
    scale = np.trace(a @ centre @ a @ centre) * np.trace(b @ centre @ b @ centre)
    assert internals.cka(states[:40], wide) == pytest.approx(own / np.sqrt(scale))
    assert internals.cka(np.ones((40, 3)), wide) == 0


def test_drift_is_0_for_the_same_1_for_unrelated_and_2_for_opposite_states() -> None:
    rng = np.random.default_rng(10)
    a, b = rng.normal(size=(2, 500, 60))
    frame = internals.compare({0: a, 1: a, 2: a}, {0: a * 2 + 1, 1: b, 2: -a}, "final")
    assert _value(frame, "drift_final") == pytest.approx(0, abs=1e-12)
    assert _value(frame, "drift_final", layer=1) == pytest.approx(1, abs=0.03)
    assert _value(frame, "drift_final", layer=2) == pytest.approx(2)
    assert _value(frame, "cka_final", layer=2) == pytest.approx(1)


# --- probes -------------------------------------------------------------------------------------------


def test_a_planted_label_is_found_and_one_that_is_not_there_is_at_chance() -> None:
    labels, states = _story()
    frame = measure({0: states}, labels, InternalSpec(probes=("place", "unrelated", "progress"), samples=1000))
    assert _value(frame, "probe_accuracy", "place") > 0.97
    assert _value(frame, "probe_correlation", "progress") > 0.9
    assert _value(frame, "probe_r2", "progress") > 0.8
    for task in ("place", "unrelated"):
        # Four standard errors of 1000 draws at 1/4.
        assert abs(_value(frame, "probe_shuffled", task) - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 1000)
        assert _value(frame, "probe_chance", task) == pytest.approx(0.25)
    # The same of 100 draws, since a label lasts ten words.
    assert abs(_value(frame, "probe_accuracy", "unrelated") - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 100)
    assert abs(_value(frame, "probe_shuffled", "progress")) < 0.15


def test_control_labels_belong_to_word_types_so_that_only_the_word_gives_them() -> None:
    labels, states = _story()
    rng = np.random.default_rng(5)
    word = labels["word"].str[1:].astype(int).to_numpy()
    only_word = rng.normal(size=(TYPES, TYPES))[word].astype(np.float32)
    frame = measure({0: only_word, 1: states}, labels, InternalSpec(probes=("place",)))
    assert _value(frame, "probe_control", "place") > 0.95  # as many features as types: by heart
    assert _value(frame, "probe_accuracy", "place") < 0.45
    for layer in (0, 1):
        parts = [_value(frame, f"probe_{x}", "place", layer=layer) for x in ("selectivity", "accuracy", "control")]
        assert parts[0] == pytest.approx(parts[1] - parts[2])


@pytest.mark.parametrize("p", [20, 90])
def test_ridge_equals_scikit_learn_with_fewer_and_with_more_features_than_words(p: int) -> None:
    rng = np.random.default_rng(6)
    x, codes, fold = rng.normal(size=(100, p)) * 3 + 1, rng.integers(0, 3, 100), np.repeat(range(4), 25)
    x[:, 3], x[fold > 1, 4] = 7.0, -2.0  # constant everywhere, and in the words of the fit
    ridge = probes.Ridge(x, np.eye(3)[codes], fold)
    for without, fitted in (((0,), fold != 0), ((0, 1), fold > 1)):
        guess = ridge.predict(without, 0, np.array([0.01, 1.0]))
        n, z = fitted.sum(), x[fold == 0]
        mean, spread = x[fitted].mean(0), x[fitted].std(0)
        kept = spread > 1e-6
        own, z = ((values[:, kept] - mean[kept]) / spread[kept] for values in (x[fitted], z))
        for i, penalty in enumerate((0.01, 1.0)):
            alpha = penalty * n * kept.sum() / (n if p > n else kept.sum())
            plain = RidgeOfSklearn(alpha=alpha).fit(own, np.eye(3)[codes[fitted]]).predict(z)
            np.testing.assert_allclose(guess[i], plain, atol=1e-10)
            classifier = RidgeClassifier(alpha=alpha).fit(own, codes[fitted])
            np.testing.assert_array_equal(guess[i].argmax(1), classifier.predict(z))


def test_a_layer_in_which_nothing_varies_gives_the_most_frequent_class() -> None:
    fold = np.repeat(range(5), 20)
    ridge = probes.Ridge(np.full((100, 6), 3.0), np.eye(2)[(np.arange(100) % 3 == 0) * 1], fold)
    assert set(ridge.predict((0,), 0, probes.PENALTIES).argmax(2).ravel()) == {0}


def test_folds_are_contiguous_and_keep_narratives_whole() -> None:
    narrative = np.repeat([3, 1, 2, 9, 4, 5, 3, 8], [30, 10, 25, 40, 20, 35, 15, 25])
    fold = probes._folds(pd.DataFrame({"narrative": narrative}), np.arange(200))
    assert (np.diff(fold) >= 0).all()
    assert len(np.unique(fold)) == 5
    runs = np.cumsum(np.r_[0, narrative[1:] != narrative[:-1]])
    assert all(len(np.unique(fold[runs == r])) == 1 for r in np.unique(runs))
    without = probes._folds(pd.DataFrame({"word": ["a"] * 200}), np.arange(200))
    np.testing.assert_array_equal(np.bincount(without), [40] * 5)


def test_words_without_a_label_and_labels_with_too_little_are_left_out_by_name() -> None:
    labels, states = _story()
    labels["holder"] = labels["place"].where(np.arange(1000) % 3 > 0, "")
    labels["constant"] = "same"
    labels["rare"] = np.where(np.arange(1000) < 20, "x", "")
    labels["flat"] = 1.0
    probes = ("holder", "constant", "rare", "flat")
    frame = measure({0: states}, labels, InternalSpec(probes=probes))
    assert set(frame["task"]) == {"", "holder"}
    assert set(frame.attrs["left_out"]) == {"constant", "rare", "flat"}
    assert _value(frame, "probe_accuracy", "holder") > 0.95
    assert frame["value"].notna().all()


def test_measures_are_deterministic_and_a_label_does_not_change_another() -> None:
    labels, states = _story()
    one = measure({0: states}, labels, InternalSpec(probes=("place",)))
    both = measure({0: states}, labels, InternalSpec(probes=("unrelated", "place")))
    pd.testing.assert_frame_equal(one, measure({0: states}, labels, InternalSpec(probes=("place",))))
    same = both[both["task"] != "unrelated"].reset_index(drop=True)
    pd.testing.assert_frame_equal(one, same)


def test_words_are_sampled_evenly_over_the_stimulus() -> None:
    labels, states = _story()
    few = measure({0: states}, labels, InternalSpec(samples=100))
    at = np.linspace(0, 999, 100).round().astype(int)
    assert _value(few, "norm") == pytest.approx(np.linalg.norm(states[at].astype(float), axis=1).mean())


def test_unusable_input_is_named() -> None:
    labels, states = _story()
    broken = states.copy()
    broken[5, 5] = np.nan
    with pytest.raises(PhaselabError, match="layer 1: found numbers that are not finite"):
        measure({0: states, 1: broken}, labels, InternalSpec())
    with pytest.raises(PhaselabError, match="'mood'"):
        measure({0: states}, labels, InternalSpec(probes=("mood",)))
    with pytest.raises(PhaselabError, match="'word'"):
        measure({0: states}, labels.drop(columns="word"), InternalSpec(probes=("place",)))


def test_sparse_probes_need_no_more_neurons_than_hold_the_label() -> None:
    labels, _ = _story()
    rng = np.random.default_rng(11)
    states = rng.normal(size=(1000, 40)).astype(np.float32)
    place = labels["place"].map({c: i for i, c in enumerate(CLASSES)}).to_numpy()
    states[np.arange(1000), place] += 6  # one neuron a class
    frame = measure({0: states}, labels, InternalSpec(probes=("place", "unrelated"), sparse=(1, 4)))
    assert _value(frame, "probe_sparse_1", "place") > 0.97
    assert _value(frame, "probe_sparse_1", "unrelated") < 0.4
    spread = np.linalg.qr(rng.normal(size=(40, 40)))[0].astype(np.float32)
    turned = measure({0: states @ spread}, labels, InternalSpec(probes=("place",), sparse=(1, 40)))
    assert _value(turned, "probe_sparse_1", "place") < 0.95 < _value(turned, "probe_sparse_40", "place")
    without = measure({0: states}, labels, InternalSpec(probes=("place",)))
    assert not without["measure"].str.startswith("probe_sparse").any()


def test_logistic_probes_agree_with_linear_ones_and_are_at_chance_on_shuffled_labels() -> None:
    labels, states = _story()
    frame = measure({0: states}, labels, InternalSpec(probes=("place", "unrelated"), logistic=True))
    assert _value(frame, "probe_logistic", "place") == pytest.approx(_value(frame, "probe_accuracy", "place"), abs=0.05)
    for name in ("place", "unrelated"):
        gain = _value(frame, "probe_logistic_shuffled", name) - _value(frame, "probe_chance", name)
        assert abs(gain) < 0.08
    assert _value(frame, "probe_logistic", "place") > 0.15 + _value(frame, "probe_logistic", "unrelated")
    plain = measure({0: states}, labels, InternalSpec(probes=("place",)))
    assert not plain["measure"].str.startswith("probe_logistic").any()
