"""The three phases as tests on fits: a rise or fall counts if noise makes none like it of a curve without any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import nan
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from phaselab.curves import Curve, NothingToDraw, amount, behaviour_by_task, brain_by_subject
from phaselab.errors import expect
from phaselab.phases.fit import COST, DEGREES, Array, log_tokens
from phaselab.phases.monotone import Monotone
from phaselab.phases.transitions import Interval, Move, Transitions, fit_transitions
from phaselab.results import CURVE_COLUMNS

#: Change of accuracy from which on it is not flat.
MARGIN = 0.05
PHASES = ("alignment", "detachment", "realignment")
PHASE_COLUMNS = (
    *("model", "phase", "name", "found", "tokens", "low", "high", "start", "stop"),
    *("effect", "effect_low", "effect_high", "effect_spread"),
    *("lag", "lag_low", "lag_high", "lag_p", "p", "p_holm", "why"),
)


@dataclass(frozen=True)
class TriplePhase:
    """The verdict on the three phases of one model: a table of one row a phase, `PHASE_COLUMNS`, and what it is from.

    found : p_holm at most alpha, and the fits have the moves that the phase is made of; why : the reason in words.
    tokens, low, high : midpoint of the brain's move and its 95 % interval; start, stop : from where to where it moves.
    effect, effect_low, effect_high : signed height of the move in units of the brain measure (for ``r_normalised`` a
    share of the ceiling); effect_spread : over its standard deviation over subjects.
    lag, lag_low, lag_high : log10 of tokens by which the brain's midpoint comes after the behaviour's (phases 1 and 3);
    lag_p : how often a behaviour that rises at a random time comes at least as close.
    p : that of the weakest link, every part of a phase must hold; 1 where the fits show no such move; p_holm : after
    Holm's correction over phases.
    """

    model: str
    layer: int  # of the brain curve; -1: mean over layers, or none
    table: pd.DataFrame
    brain: Transitions
    form: Transitions
    accuracy: Transitions
    replicates: Array | None  # (n_subjects, n) brain curves
    statement: str  # one sentence


def holm(p: npt.ArrayLike) -> Array:
    """Holm's step-down adjusted p-values, (m,)."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(values.size, 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


@dataclass(frozen=True)
class Side:
    """One of the three curves: its fit, and the tests of its moves."""

    name: str
    fit: Transitions
    layer: int = -1
    replicates: Array | None = None
    null: Monotone | None = None  # None where the fit is not decided

    @classmethod
    def of(cls, name: str, ask: Callable[[], Curve], max_changes: int, seed: int, **options: Any) -> Side:
        """Fit the curve that `ask` gives; without one the fit says what there is."""
        options |= {"max_changes": max_changes, "seed": seed}
        try:
            curve = ask()
        except NothingToDraw as error:
            return cls(name, replace(fit_transitions([], [], **options), statement=f"Not decided: {error}"))
        replicates = curve.values if curve.of == "subject" and len(curve.values) > 1 else None
        stderr = None if curve.of == "subject" else curve.error
        fit = fit_transitions(curve.tokens, curve.mean, stderr, replicates, **options)
        fit = replace(fit, notes=(*curve.notes, *fit.notes))
        null = Monotone.of(fit, replicates, stderr, max_changes, seed) if fit.decided else None
        return cls(name, fit, curve.layer, replicates, null)

    @property
    def falls_after_rise(self) -> list[Move]:
        """Falls after the first rise: before it there is nothing to fall from."""
        return [f for f in self.fit.falls if any(r.onset < f.onset for r in self.fit.rises)]

    def p(self, move: Move) -> float:
        """Test that the curve never moves so where it does."""
        return 1.0 if self.null is None else self.null.p(move.direction, *self.fit.around(move))

    def fall_p(self, fall: Move) -> float:
        """Test a fall, and the rise before it."""
        return max(self.p(fall), self.p([r for r in self.fit.rises if r.onset < fall.onset][-1]))


class _Link(NamedTuple):
    """One phase before the correction for many tests: why, p, the brain's move, and the move that goes with it."""

    why: str
    p: float = 1.0
    move: Move | None = None
    partner: Move | None = None


def _ranges(moves: Sequence[Move]) -> str:
    return ", ".join(f"{amount(m.onset)} to {amount(m.end)}" for m in moves)


def _joint_rise(brain: Side, rises: Sequence[Move], other: Side, again: str = "") -> _Link:
    """The first of `rises` of the brain that overlaps in time with a rise of the other curve."""
    if not other.fit.rises:
        return _Link(f"{other.name.capitalize()} has no rise.")
    for rise in rises:
        for partner in other.fit.rises:
            if max(rise.onset, partner.onset) < min(rise.end, partner.end):
                return _Link("", max(brain.p(rise), other.p(partner)), rise, partner)
    return _Link(f"Not together: the brain rises {again}{_ranges(rises)}, {other.name} {_ranges(other.fit.rises)}.")


def _first(brain: Side, form: Side) -> _Link:
    if not brain.fit.rises:
        return _Link("The brain curve has no rise.")
    link = _joint_rise(brain, brain.fit.rises, form)
    return link._replace(why=link.why or f"The brain and {form.name} rise together.")


def _second(brain: Side, accuracy: Side, margin: float, alpha: float) -> _Link:
    if not brain.fit.falls:
        return _Link("The brain curve has no fall.")
    if not brain.falls_after_rise:
        return _Link("The brain curve falls before it ever rises, never after.")
    tried = []
    for fall in brain.falls_after_rise:
        change, flat = _flatness(accuracy.fit, fall.onset, fall.end, margin)
        tried.append((max(flat, brain.fall_p(fall)), flat, change, fall))
    p, flat, change, fall = min(tried, key=lambda t: t[0])
    moved = f"{accuracy.name} changes by {change:+.3f}"
    if flat > alpha:
        return _Link(f"The brain falls {_ranges([fall])}, but {moved} there: not shown to be flat.", p, fall)
    return _Link(f"The brain falls while {moved}.", p, fall)


def _third(brain: Side, accuracy: Side) -> _Link:
    falls = brain.falls_after_rise
    if not falls:
        return _Link("The brain curve never falls after a rise, so it cannot return.")
    again = [r for r in brain.fit.rises if r.onset > falls[0].onset]
    if not again:
        return _Link("The brain curve does not rise again after its fall.")
    link = _joint_rise(brain, again, accuracy, "again ")
    if link.move is None:
        return link
    before = [f for f in falls if f.onset < link.move.onset][-1]
    why = f"The brain rises again together with {accuracy.name}."
    return link._replace(p=max(brain.fall_p(before), link.p), why=why)


def _flatness(fit: Transitions, start: float, stop: float, margin: float) -> tuple[float, float]:
    """Change of a curve between two token counts, and p (two one-sided t-tests) that it is at least `margin`.

    The change is that of a straight line through the checkpoints inside, its error the scatter of the whole curve.
    """
    tokens, values, where = np.asarray(fit.tokens), np.asarray(fit.values), log_tokens([*fit.tokens])
    inside = (tokens >= start) & (tokens <= stop)
    if inside.sum() < 2:
        return float(fit.at([stop])[0] - fit.at([start])[0]), 1.0
    x = where[inside] - where[inside].mean()
    length, spread = float(np.ptp(x)), float(x @ x)
    change = float(x @ values[inside]) / spread * length
    error = max(fit.noise, 1e-12) * length / np.sqrt(spread)
    degrees = max(tokens.size - 2 - DEGREES * len(fit.knots), 1.0)
    return change, float(stats.t.sf((margin - abs(change)) / error, degrees))


def triple_phase_test(
    curves: pd.DataFrame,
    model: str,
    *,
    measure: str | None = None,
    roi: str = "all",
    layer: int | float | str = "best",
    form: str = "instruction_following",
    accuracy: str = "accuracy",
    tasks: Sequence[str] | None = None,
    margin: float = MARGIN,
    alpha: float = 0.05,
    max_changes: int = 6,
    n_bootstrap: int = 400,
    seed: int = 0,
    penalty: float = COST,
) -> TriplePhase:
    """Whether the three phases are in the curves of one model, each tested.

    1. alignment: the brain rises, and instruction following rises in an overlapping stretch.
    2. detachment: after a rise the brain falls, while accuracy changes by less than `margin`.
    3. realignment: after such a fall the brain rises again, and accuracy rises in an overlapping stretch.

    Parameters
    ----------
    curves : the curves table, `phaselab.results.CURVE_COLUMNS`; rows of other models than `model` are ignored.
    measure, roi, layer : the brain curve, see `phaselab.curves.brain_by_subject`; its subjects are the replicates.
    form, accuracy : measures that stand for instruction following and for accuracy, averaged over `tasks` (None: all).
    margin : change of accuracy, in its own units, from which on it is not flat.
    alpha : level of the tests, after Holm's correction over the three phases.
    max_changes, n_bootstrap, seed, penalty : see `fit_transitions`.

    Notes
    -----
    Every part of a phase must hold, so its p-value is the largest of its parts'. A fall is tested against all curves
    that never fall, by the deepest difference between an earlier and a later window of checkpoints, studentised, with
    its null simulated for noise as autocorrelated as the residuals; a rise likewise. With 3 subjects or more the move
    must also hold in subjects left out when it was chosen, which allows for any noise of their own. Slow drifts that
    all subjects share are movements of this model; whether they are more than that is for several seeds to say.
    Missing or poor curves make a phase not found, with the reason in ``why``.
    """
    absent = [c for c in CURVE_COLUMNS if c not in curves]
    expect(not absent, "curves", f"missing columns {', '.join(absent)}", ", ".join(CURVE_COLUMNS))
    expect(model in set(curves["model"]), "model", repr(model), f"one of {sorted(curves['model'].unique())}")
    own = curves[curves["model"] == model]
    options: dict[str, Any] = {"max_changes": max_changes, "n_bootstrap": n_bootstrap, "seed": seed, "penalty": penalty}
    brain = Side.of("brain", partial(brain_by_subject, own, roi, layer, measure), **options)
    follow = Side.of(form.replace("_", " "), partial(behaviour_by_task, own, form, tasks), **options)
    right = Side.of(accuracy.replace("_", " "), partial(behaviour_by_task, own, accuracy, tasks), **options)
    second = partial(_second, margin=margin, alpha=alpha)
    tests: list[tuple[Side, Callable[[Side, Side], _Link]]] = [(follow, _first), (right, second), (right, _third)]
    rows = []
    for number, (name, (other, test)) in enumerate(zip(PHASES, tests, strict=True), start=1):
        why = " ".join(f"{side.name}: {side.fit.statement}" for side in (brain, other) if not side.fit.decided)
        link = _Link(why) if why else test(brain, other)
        told = {"model": model, "phase": number, "name": name, "p": link.p, "why": link.why}
        rows.append(told | _measured(link, brain))
    table = _judged(pd.DataFrame(rows).reindex(columns=list(PHASE_COLUMNS)), alpha)
    fits = brain.fit, follow.fit, right.fit
    return TriplePhase(model, brain.layer, table, *fits, brain.replicates, _verdict(model, table))


def _measured(link: _Link, brain: Side) -> dict[str, float]:
    """Dates and size of a move of the brain, its size over the spread of subjects' own sizes, and the lag."""
    move, spread = link.move, nan
    if move is None:
        return {}
    if brain.replicates is not None:
        at, where = log_tokens([move.onset, move.end]), log_tokens([*brain.fit.tokens])
        ends = np.array([np.interp(at, where, subject) for subject in brain.replicates])
        own = float((ends[:, 1] - ends[:, 0]).std(ddof=1))
        spread = move.height / own if own > 0 else nan
    dates = {"tokens": float(move.midpoint), "low": move.midpoint.low, "high": move.midpoint.high}
    sizes = move.height.columns("effect") | {"effect_spread": spread}
    lag = {} if link.partner is None else _lag(move.midpoint, link.partner.midpoint, brain.fit)
    return dates | {"start": float(move.onset), "stop": float(move.end)} | sizes | lag


def _lag(midpoint: Interval, partner: Interval, fit: Transitions) -> dict[str, float]:
    """How long after `partner` the brain moves, in decades; interval by Zou and Donner's (2008) rule."""
    first, last = map(float, log_tokens([*fit.tokens])[[0, -1]])

    def places(date: Interval) -> list[float]:  # 0 is put as `log_tokens` puts it for these checkpoints
        return [float(np.log10(tokens)) if tokens > 0 else first for tokens in (date, date.low, date.high)]

    (own, low, high), (other, other_low, other_high) = places(midpoint), places(partner)
    lag = own - other
    near = min(own + abs(lag), last) - max(own - abs(lag), first)
    ends = lag - float(np.hypot(own - low, other_high - other)), lag + float(np.hypot(high - own, other - other_low))
    return Interval(lag, *ends).columns("lag") | {"lag_p": min(near / (last - first), 1.0)}


def _judged(table: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """The table with Holm's p over all of its rows, and found and why accordingly."""
    dated = table["tokens"].notna()
    table = table.assign(p_holm=holm(table["p"]))
    table["found"] = (table["p_holm"] <= alpha) & dated
    plain = table["why"].str.split(" Not beyond chance").str[0]
    doubt = table["p_holm"].map(" Not beyond chance: p = {:.2g} after correction.".format)
    return table.assign(why=plain.where(table["found"] | ~dated, plain + doubt))


def _verdict(model: str, table: pd.DataFrame) -> str:
    rows = table.to_dict("records")
    said = [f"{r['name']} at {amount(r['tokens'])} tokens" if r["found"] else f"no {r['name']}" for r in rows]
    return f"{model}: {', '.join(said)}."
