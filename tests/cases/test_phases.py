"""Curves with a known answer: verdicts on triples of curves, and dates."""

from __future__ import annotations

import numpy as np
import pytest

from phaselab.phases import fit_transitions, judge
from phaselab.phases.fit import autocorrelated

N, SUBJECTS = 24, 6
TOKENS = np.concatenate([[0.0], np.geomspace(1e6, 3.2e9, N - 1)])
#: Where the checkpoints lie on the axis, 0 to 1; it is 3.5 decades long.
U = np.concatenate([[0.0], np.linspace(0.04, 1.0, N - 1)])
DIP = np.interp(U, [0.22, 0.38, 0.45, 0.5, 0.75, 0.85], [0, 1, 1, 0.4, 0.4, 1])
NO, YES, NONE = "not found", "found", "nothing to stagnate"


def sigmoid(centre: float) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-(U - centre) / 0.03)))


FORM, LATE = 0.05 + 0.85 * sigmoid(0.3), 0.33 + 0.4 * sigmoid(0.85)
BUMP = 0.1 + 0.04 * np.interp(U, [0.02, 0.08, 0.14], [0, 1, 0]) + 0.8 * sigmoid(0.3)
V = 0.5 - 0.1 * np.interp(U, [0.3, 0.45, 0.6], [0, 1, 0])
STEP = np.interp(U, [0, 0.4, 0.78, 1], [0.33, 0.40, 0.40, 0.8])
EARLY = np.interp(U, [0.1, 0.2, 0.3, 0.6, 0.75, 0.85], [0, 1, 1, 0.3, 0.3, 1])
#: Brain, instruction following, accuracy, verdicts (None: whatever).
CASES = {
    "all three": (0.1 + 0.3 * DIP, FORM, LATE, (YES, YES, YES)),
    "straight line": (0.1 + 0.3 * U, FORM, LATE, (NO, NO, NO)),
    "late surge": (0.1 + 0.3 * sigmoid(0.75), 0.05 + 0.8 * sigmoid(0.3) + 0.05 * U, LATE, (NO, NO, NO)),
    "an early bump of form": (0.1 + 0.3 * DIP, BUMP, LATE, (YES, YES, YES)),
    "chance for ever": (0.1 + 0.3 * DIP, FORM, np.full(N, 0.33), (YES, NONE, NO)),
    "ceiling for ever": (0.1 + 0.3 * DIP, FORM, np.full(N, 0.97), (YES, NONE, NO)),
    "V of .10": (0.1 + 0.3 * EARLY, FORM, V, (None, NO, None)),
    "steady rise": (0.1 + 0.3 * DIP, FORM, 0.33 + 0.6 * U, (YES, NO, NO)),
    "plateau": (0.1 + 0.3 * DIP, FORM, STEP, (YES, YES, None)),
    "flat": (np.full(N, 0.2), FORM, LATE, (NO, NO, NO)),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", CASES)
def test_verdicts(name: str, seed: int) -> None:
    brain, form, accuracy, expected = CASES[name]
    rng = np.random.default_rng(seed)
    fits = [
        fit_transitions(TOKENS, curve, max_changes=6, n_bootstrap=100)
        for curve in (
            brain + 0.02 * autocorrelated(rng, (SUBJECTS, N), 0.3),
            form + 0.01 * rng.standard_normal(N),
            accuracy + 0.004 * rng.standard_normal(N),
        )
    ]
    table = judge(*fits).table
    for verdict, right, why in zip(table["verdict"], expected, table["why"], strict=True):
        assert right in (None, verdict), why
    assert (table["p"].isna() | (table["p"] > 0)).all()


def test_too_few_checkpoints_for_the_bends_of_a_curve_decide_nothing() -> None:
    few, rng = slice(None, None, 2), np.random.default_rng(0)
    fits = [
        fit_transitions(TOKENS[few], curve[..., few], max_changes=6, n_bootstrap=100)
        for curve in (0.1 + 0.3 * DIP + 0.005 * rng.standard_normal((SUBJECTS, N)), FORM, LATE)
    ]
    table = judge(*fits).table
    assert "not found" not in set(table["verdict"])
    said = "12 checkpoints allow at most 3 change points, and the brain curve takes all of them"
    assert said in " ".join(table["why"])


def test_a_step_between_two_of_seven_checkpoints() -> None:
    fit = fit_transitions([0, 1, 10, 100, 1000, 1e4, 1e5], [0.1, 0.1, 0.1, 0.1, 0.9, 0.9, 0.9])
    (rise,) = fit.moves
    assert (rise.onset, rise.end) == pytest.approx((100, 1000))
    assert rise.height == pytest.approx(0.8)
    assert "steadily" not in fit.statement


def test_one_outlier_is_no_rise_and_fall() -> None:
    values = np.where(np.arange(N) == 12, 5.0, 0.5) + 0.01 * np.random.default_rng(0).standard_normal(N)
    fit = fit_transitions(TOKENS, values)
    assert not fit.moves
    assert fit.notes == ("4.98 at 56.6 M left out: the checkpoints around it are elsewhere",)


def test_no_interval_is_narrower_than_the_checkpoints_around_a_jump() -> None:
    t = np.geomspace(1, 1e5, 24)
    (rise,) = fit_transitions(t, (np.arange(24) >= 13) * 1.0).moves
    assert rise.midpoint_low <= t[12]
    assert rise.midpoint_high >= t[13]


def test_a_wiggle_is_no_lift_off() -> None:
    t = np.geomspace(1, 1e5, 24)
    curve = np.interp(np.log10(t), [2.7, 3.3, 4.6, 4.68, 5], [0, 0.3, 0.345, 0.399, 0.40])
    fit = fit_transitions(t, curve)
    (rise,) = fit.moves
    assert rise.liftoff == pytest.approx(500, rel=0.05)
    assert rise.landing == pytest.approx(2000, rel=0.05)
    assert "most of it from 501 to 2 k" in fit.statement


def test_a_rounded_peak_is_dated() -> None:
    t = np.geomspace(1, 1e5, 24)
    (fall,) = fit_transitions(t, 0.89 - 0.25 * (np.log10(t) - 2.7) ** 2).falls
    assert fall.turn == pytest.approx(10**2.7, rel=0.05)
    assert fall.turn_low < 10**2.7 < fall.turn_high


def test_what_lies_at_the_edge_is_said_to_be_open() -> None:
    t = np.geomspace(1e6, 1e10, 16)
    fit = fit_transitions(t, np.where(np.arange(16) >= 15, 1.0, 0.0) + 0.001 * np.random.default_rng(0).normal(size=16))
    (rise,) = fit.rises
    assert "onset" in rise.censored
    assert rise.onset_high == t[-1]
    assert "its onset lies within three checkpoints of an edge" in fit.statement
