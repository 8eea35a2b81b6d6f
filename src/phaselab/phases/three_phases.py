"""The three phases as tests on fits: a rise or fall counts if noise makes none like it of a curve without any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from phaselab.curves import PHASE_NAMES, Curve, NothingToDraw, amount, behaviour_by_task, brain_by_subject, each_row
from phaselab.errors import expect
from phaselab.phases.fit import COST, DEGREES, Array, log_tokens
from phaselab.phases.transitions import MOVE_COLUMNS, Transitions, fit_transitions
from phaselab.results import CURVE_COLUMNS

#: Change of accuracy from which on it is not flat; level of the tests, after Holm's correction.
MARGIN, ALPHA = 0.05, 0.05
PHASES = ("alignment", "detachment", "realignment")
PHASE_COLUMNS = (
    *("model", "phase", "name", "found", "verdict", "tokens", "low", "high", "start", "stop"),
    *("effect", "effect_low", "effect_high", "effect_spread"),
    *("lag", "lag_low", "lag_high", "lag_p", "p", "p_holm", "why"),
)


class TriplePhase(NamedTuple):
    """The verdict on the three phases of one model: a table of one row per phase, `PHASE_COLUMNS`, and what it is from.

    found : p_holm at most .05, and the fits have the moves that the phase is made of; why : the reason in words.
    tokens, low, high : midpoint of the brain's move and its 95 % interval; start, stop : from where to where it moves.
    effect, effect_low, effect_high : signed height of the move in units of the brain measure (for ``r_normalised`` a
    share of the ceiling); effect_spread : over its standard deviation over subjects.
    lag, lag_low, lag_high : log10 of tokens by which the brain's midpoint comes after the behaviour's (phases 1 and 3);
    lag_p : how often a behaviour that rises at a random time comes at least as close.
    p : the largest of the phase's parts; 1 where the fits show no such move; p_holm : after Holm's correction.
    """

    model: str
    table: pd.DataFrame
    brain: Transitions
    form: Transitions
    accuracy: Transitions
    statement: str  # one sentence


def holm(p: npt.ArrayLike) -> Array:
    """Holm's step-down adjusted p-values, (m,)."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(values.size, 0, -1))
    return np.minimum(stepped, 1.0)[np.argsort(order)]


def _fitted(ask: Callable[[], Curve], **options: Any) -> Transitions:
    """Fit of the curve that `ask` gives; without one the fit says what there is."""
    try:
        curve = ask()
    except NothingToDraw as error:
        return replace(fit_transitions([], [], **options), statement=f"Not decided: {error}")
    several = curve.values if curve.of == "subject" and len(curve.names) > 1 else curve.mean
    fit = fit_transitions(curve.tokens, several, None if curve.of == "subject" else curve.error, **options)
    return replace(fit, notes=(*curve.notes, *fit.notes))


def falls_after_rise(fit: Transitions) -> list[Any]:
    """Falls after the first rise: before it there is nothing to fall from."""
    return [f for f in fit.falls if any(r.onset < f.onset for r in fit.rises)]


def fall_p(fit: Transitions, fall: Any) -> float:
    """P of a fall, and of the rise before it."""
    return max(fit.p(fall), fit.p([r for r in fit.rises if r.onset < fall.onset][-1]))


class _Link(NamedTuple):
    """One phase before the correction for many tests."""

    why: str
    p: float = 1.0
    move: Any = None  # of the brain
    partner: Any = None  # the move that goes with it


def _ranges(moves: Sequence[Any]) -> str:
    return ", ".join(f"{amount(m.onset)} to {amount(m.end)}" for m in moves)


def _first(brain: Transitions, other: Transitions, name: str, after: float = -1.0) -> _Link:
    """The first rise of the brain (that begins `after` some tokens) that overlaps with a rise of the other curve."""
    rises, once_more = [rise for rise in brain.rises if rise.onset > after], after >= 0
    if not rises:
        return _Link(f"The brain curve {'does not rise again after its fall' if once_more else 'has no rise'}.")
    if not other.rises:
        return _Link(f"{name.capitalize()} has no rise.")
    why = f"The brain rises again together with {name}." if once_more else f"The brain and {name} rise together."
    for rise in rises:
        for partner in other.rises:
            if max(rise.onset, partner.onset) < min(rise.end, partner.end):
                return _Link(why, max(brain.p(rise), other.p(partner)), rise, partner)
    again = "again " if once_more else ""
    return _Link(f"Not together: the brain rises {again}{_ranges(rises)}, {name} {_ranges(other.rises)}.")


def _second(brain: Transitions, accuracy: Transitions, name: str, margin: float) -> _Link:
    if not brain.falls:
        return _Link("The brain curve has no fall.")
    tried = []
    for fall in falls_after_rise(brain):
        change, flat = _flatness(accuracy, fall.onset, fall.end, margin)
        moved = f"{name} changes by {change:+.3f}"
        doubt = f"{_ranges([fall])}, but {moved} there: not shown to be flat"
        why = f"The brain falls {doubt if flat > ALPHA else f'while {moved}'}."
        tried.append(_Link(why, max(flat, fall_p(brain, fall)), fall))
    if not tried:
        return _Link("The brain curve falls before it ever rises, never after.")
    return min(tried, key=lambda link: link.p)


def _third(brain: Transitions, accuracy: Transitions, name: str) -> _Link:
    if not (falls := falls_after_rise(brain)):
        return _Link("The brain curve never falls after a rise, so it cannot return.")
    link = _first(brain, accuracy, name, after=falls[0].onset)
    before = [f for f in falls if link.move and f.onset < link.move.onset][-1:]
    return link._replace(p=max([link.p, *(fall_p(brain, fall) for fall in before)]))


def _flatness(fit: Transitions, start: float, stop: float, margin: float) -> tuple[float, float]:
    """Change of a curve between two token counts, and p (two one-sided t-tests) that it is at least `margin`.

    The change is that of a straight line through the checkpoints inside, its error the scatter of the whole curve.
    """
    inside = (fit.tokens >= start) & (fit.tokens <= stop)
    if inside.sum() < 2:
        return float(fit.at([stop])[0] - fit.at([start])[0]), 1.0
    x = log_tokens(fit.tokens)[inside]
    x = x - x.mean()
    length, spread = float(np.ptp(x)), float(x @ x)
    change = float(x @ fit.values[inside]) / spread * length
    error = max(fit.noise, 1e-12) * length / np.sqrt(spread)
    degrees = max(fit.tokens.size - 2 - DEGREES * len(fit.knots), 1.0)
    return change, float(stats.t.sf((margin - abs(change)) / error, degrees))


def triple_phase_test(
    curves: pd.DataFrame,
    model: str,
    *,
    measure: str = "",
    roi: str = "all",
    layer: float | str = "best",
    accuracy: str = "accuracy",
    tasks: Sequence[str] | None = None,
    margin: float = MARGIN,
    max_changes: int = 6,
    n_bootstrap: int = 400,
    penalty: float = COST,
) -> TriplePhase:
    """Whether the three phases are in the curves of one model, each tested.

    1. alignment: the brain rises, and instruction following rises in an overlapping stretch.
    2. detachment: after a rise the brain falls, while accuracy changes by less than `margin`.
    3. realignment: after such a fall the brain rises again, and accuracy rises in an overlapping stretch.

    curves : the curves table, `phaselab.results.CURVE_COLUMNS`; rows of other models than `model` are ignored.
    measure, roi, layer : the brain curve, see `phaselab.curves.brain_by_subject`; its subjects are the replicates.
    accuracy : the measure that stands for accuracy; behaviour is averaged over `tasks` (None: all).
    margin : change of accuracy, in its own units, from which on it is not flat.
    max_changes, n_bootstrap, penalty : see `fit_transitions`.

    A rise or fall is tested by `Transitions.p`, a phase by the largest p-value of its parts, which must all hold. Slow
    drifts that all subjects share are movements of this model; whether they are more is for several seeds to say.
    Missing or poor curves leave a phase not decided (``verdict``), with the reason in ``why``.
    """
    absent = [c for c in CURVE_COLUMNS if c not in curves]
    expect(not absent, "curves", f"missing columns {', '.join(absent)}", ", ".join(CURVE_COLUMNS))
    expect(model in set(curves["model"]), "model", repr(model), f"one of {sorted(curves['model'].unique())}")
    own = curves[curves["model"] == model]
    options: dict[str, Any] = {"max_changes": max_changes, "n_bootstrap": n_bootstrap, "penalty": penalty}
    brain = _fitted(partial(brain_by_subject, own, roi, layer, measure), **options)
    measures = "instruction_following", accuracy
    form, right = (_fitted(partial(behaviour_by_task, own, m, tasks), **options) for m in measures)
    tests: list[Callable[..., _Link]] = [_first, partial(_second, margin=margin), _third]
    rows = []
    for phase, (name, test) in enumerate(zip(PHASES, tests, strict=True), start=1):
        other, called = (form if phase == 1 else right), measures[phase > 1].replace("_", " ")
        why = " ".join(f"{n}: {fit.statement}" for n, fit in (("brain", brain), (called, other)) if not fit.decided)
        link = _Link(why) if why else test(brain, other, called)
        row = {"phase": phase, "name": name, "verdict": "not decided" if why else "not found", "p": link.p}
        rows.append(row | {"why": link.why} | _measured(link, brain))
    table = pd.DataFrame(rows).reindex(columns=list(PHASE_COLUMNS)).assign(model=model, p_holm=lambda t: holm(t["p"]))
    dated = table["tokens"].notna()
    table["found"] = (table["p_holm"] <= ALPHA) & dated
    doubt = table["p_holm"].map(" Not beyond chance: p = {:.2g} after correction.".format)
    table["why"] += doubt.where(dated & ~table["found"], "")
    table.loc[table["found"], "verdict"] = "found"
    told = {"found": "{0.name} at {1} tokens", "not found": "no {0.name}", "not decided": "{0.name} not decided"}
    said = [told[r.verdict].format(r, amount(r.tokens)) for r in each_row(table)]
    return TriplePhase(model, table, brain, form, right, f"{model}: {', '.join(said)}.")


def _measured(link: _Link, brain: Transitions) -> dict[str, float]:
    """Dates and size of a move of the brain, its size over the spread of subjects' own sizes, and the lag."""
    move, other = link.move, link.partner
    if move is None:
        return {}
    told = {"tokens": move.midpoint, "low": move.midpoint_low, "high": move.midpoint_high}
    told |= {"start": move.onset, "stop": move.end}
    told |= {"effect": move.height, "effect_low": move.height_low, "effect_high": move.height_high}
    where = log_tokens(brain.tokens)
    if brain.replicates is not None:
        at = log_tokens([move.onset, move.end])
        ends = np.array([np.interp(at, where, subject) for subject in brain.replicates])
        own = float((ends[:, 1] - ends[:, 0]).std(ddof=1))
        told["effect_spread"] = move.height / own if own > 0 else np.nan
    if other is None:
        return told
    # How long after its partner the brain moves, in decades; interval by Zou and Donner's (2008) rule.
    first, last = map(float, where[[0, -1]])

    def places(move: Any) -> list[float]:  # 0 is put as `log_tokens` puts it for these checkpoints
        dates = move.midpoint, move.midpoint_low, move.midpoint_high
        return [float(np.log10(tokens)) if tokens > 0 else first for tokens in dates]

    (own, low, high), (theirs, their_low, their_high) = places(move), places(other)
    lag = own - theirs
    near = min(own + abs(lag), last) - max(own - abs(lag), first)
    told |= {"lag": lag, "lag_p": min(near / (last - first), 1.0)}
    told["lag_low"] = lag - float(np.hypot(own - low, their_high - theirs))
    return told | {"lag_high": lag + float(np.hypot(high - own, theirs - their_low))}


def transitions_of(result: TriplePhase) -> pd.DataFrame:
    """Every rise and fall that the test of the phases fitted, a row each.

    Columns: model, perspective, measure (``brain``, ``instruction_following``, ``accuracy``), kind (``rise``,
    ``fall``), onset, tokens (the midpoint), low, high (its 95 % interval), end and height (in units of the measure).
    """
    fits = {"brain": result.brain, "instruction_following": result.form, "accuracy": result.accuracy}
    rows = [{"measure": measure, **vars(move)} for measure, fit in fits.items() for move in fit.moves]
    table = pd.DataFrame(rows, columns=["measure", *MOVE_COLUMNS]).assign(model=result.model, perspective="behaviour")
    table.loc[table["measure"] == "brain", "perspective"] = "brain"
    table = table.rename(columns={"midpoint": "tokens", "midpoint_low": "low", "midpoint_high": "high"})
    return table[["model", "perspective", "measure", "kind", "onset", "tokens", "low", "high", "end", "height"]]


def phase_text(result: TriplePhase, phase: int, unit: str) -> str:
    """What the test says of a phase (1, 2, 3), in sentences; `unit`: what the brain curve counts."""
    row = result.table[result.table["phase"] == phase].iloc[0]
    parts = [f"Phase {PHASE_NAMES[phase]} ({row['name']}) is **{row['verdict']}** in {result.model}. {row['why']}"]
    if np.isfinite(row["tokens"]):
        verb = "rise" if row["effect"] > 0 else "fall"
        parts.append(
            f"The {verb} of the brain score goes from {amount(row['start'])} to {amount(row['stop'])} tokens, with its "
            f"midpoint at {amount(row['tokens'])} (95 % interval {amount(row['low'])} to {amount(row['high'])}); its "
            f"height is {row['effect']:+.3f} (95 % interval {row['effect_low']:+.3f} to {row['effect_high']:+.3f}), as "
            f"{unit}."
        )
    if np.isfinite(row["lag"]):
        lag, low, high = (f"{10 ** row[name]:.2g}" for name in ("lag", "lag_low", "lag_high"))
        parts.append(
            f"The brain's midpoint comes at {lag} times the tokens of the behaviour's (95 % interval {low} to {high}; "
            f"a rise at a random time comes as close with p = {row['lag_p']:.2g})."
        )
        if row["lag_p"] > 0.05:
            parts.append("Closeness in time is thus no evidence by itself that the two belong together.")
    if notes := dict.fromkeys(note for fit in (result.brain, result.form, result.accuracy) for note in fit.notes):
        parts.append(f"Of the curves: {'; '.join(notes)}.")
    if row["verdict"] != "not decided":
        parts.append(f"Test: p = {row['p']:.2g}, after Holm's correction over the three phases {row['p_holm']:.2g}.")
    return " ".join(parts)
