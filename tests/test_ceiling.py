"""Noise ceilings: against the signal-to-noise ratio that the responses were made with."""

from __future__ import annotations

import numpy as np
import pytest

from phaselab.encoding import normalise
from phaselab.encoding.ceiling import explainable_variance, leave_one_subject_out, split_half

#: Variance of the signal, that of the noise being 1.
POWERS = np.array([1.0, 0.25, 0.0])


def made(n_repeats: int, seed: int = 0, n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal((n, 3)) * POWERS**0.5
    return signal, signal + rng.standard_normal((n_repeats, n, 3))


@pytest.mark.parametrize("n_repeats", [2, 5, 6])
@pytest.mark.parametrize("averaged", [1, 3])
def test_split_half_is_the_known_ceiling(n_repeats: int, averaged: int) -> None:
    _, repeats = made(n_repeats)
    found = split_half(repeats, averaged)
    np.testing.assert_allclose(found.value[:2], np.sqrt(POWERS / (POWERS + 1 / averaged))[:2], atol=0.03)
    assert found.value[2] < 0.25
    assert ((found.lower <= found.value) & (found.value <= found.upper)).all()


def test_the_best_prediction_reaches_the_ceiling_of_what_it_predicts() -> None:
    signal, repeats = made(6)
    for predicted, averaged in ((repeats[0], 1), (repeats.mean(0), None)):
        r = [np.corrcoef(s, y)[0, 1] for s, y in zip(signal.T[:2], predicted.T[:2], strict=True)]
        np.testing.assert_allclose(split_half(repeats, averaged).value[:2], r, atol=0.02)
        np.testing.assert_allclose(explainable_variance(repeats, averaged)[:2], np.square(r), atol=0.02)
        share = normalise(np.append(r, 0.1), split_half(repeats, averaged).value, floor=0.3)
        np.testing.assert_allclose(share[:2], 1, atol=0.04)
        assert np.isnan(share[2])


def test_all_distinct_halves_are_used_where_they_are_few() -> None:
    _, repeats = made(5, n=300)
    one, two = (split_half(repeats, seed=seed) for seed in (1, 2))
    np.testing.assert_array_equal(one.value, two.value)
    _, many = made(12, n=300)
    one, two, again = (split_half(many, splits=20, seed=seed) for seed in (1, 2, 1))
    assert (one.value != two.value).any()
    np.testing.assert_array_equal(one.value, again.value)


def test_explainable_variance_is_unbiased_and_says_where_a_voxel_is_constant() -> None:
    rng = np.random.default_rng(4)
    noise = np.array([explainable_variance(rng.standard_normal((4, 100, 50)), 1) for _ in range(20)])
    assert abs(noise.mean()) < 0.005
    assert (noise < 0).mean() > 0.3
    repeats = rng.standard_normal((4, 100, 2))
    repeats[..., 1] = 3
    assert np.isnan(explainable_variance(repeats)).tolist() == [False, True]
    assert split_half(repeats).value[1] == 0


def test_leave_one_subject_out_is_bounded_by_nilis_bounds() -> None:
    _, repeats = made(5, n=20_000)
    found = leave_one_subject_out({f"s{i}": own for i, own in enumerate(repeats)})
    true = np.sqrt(POWERS / (POWERS + 1))[:2]
    np.testing.assert_allclose(found.value[:2], true, atol=0.01)
    assert (found.lower[:2] < true - 0.02).all()
    assert (found.upper[:2] > true + 0.02).all()
    # of each subject with the mean of all, itself included: noise of one part in five is its own
    assert found.upper[2] == pytest.approx(0.2**0.5, abs=0.02)
    assert found.lower[2] < 0.03


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: split_half(np.zeros((3, 4))), r"repeats: found shape \(3, 4\)"),
        (lambda: split_half(np.zeros((1, 4, 2))), "at least 2 repeats"),
        (lambda: explainable_variance(np.full((2, 4, 2), np.nan)), "repeats: found 16 NaN"),
        (lambda: split_half(np.ones((2, 4, 2)), averaged=0), "averaged: found 0"),
        (lambda: leave_one_subject_out({"a": np.ones((5, 2))}), "responses: found 1 subjects"),
        (
            lambda: leave_one_subject_out({"a": np.eye(5), "b": np.eye(4)}),
            r"subject b: found shape \(4, 4\), expected \(5, 5\)",
        ),
        (lambda: leave_one_subject_out({"a": np.eye(5), "b": np.ones((5, 5))}), "subject b: found voxels"),
    ],
)
def test_what_does_not_fit_is_named(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()
