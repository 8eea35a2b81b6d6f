"""The three phases as tests on fits, by a rule that a study fixes before anybody looks.

A rise or fall counts if noise makes none like it of a curve without any; a phase if all that it is made of counts.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from phaselab import curves as query
from phaselab.curves import Names, amount, each_row, plain
from phaselab.errors import expect, number_of
from phaselab.phases.fit import DEGREES, log_tokens
from phaselab.phases.transitions import CARRIED, ENDS, MOVE_COLUMNS, Transitions, fit_transitions
from phaselab.results import CURVE_COLUMNS
from phaselab.stats import dates_together, holm
from phaselab.study import PhaseSpec, digest_of

__all__ = ["TriplePhase", "dates_together", "holm", "judge", "phase_text", "rule_text", "surges", "transitions_of"]
__all__ += ["triple_phase_test"]

#: A surge is this many times as steep as the whole curve: its range over the length of training in log tokens.
STEEP = 2.0
#: The rule that decides unless a study has its own.
RULE = PhaseSpec()
PHASES = ("alignment", "detachment", "realignment")
#: What a verdict tells of the brain's move, and what that is called there.
MEASURED = {"tokens": "midpoint", "low": "midpoint_low", "high": "midpoint_high", "start": "onset", "stop": "end"}
MEASURED |= {"effect" + end: "height" + end for end in ENDS}


class TriplePhase(NamedTuple):
    """The verdict on the three phases of one model, or of seeds of one: a row per phase.

    verdict : ``found``, ``not found``, ``not decided`` or ``nothing to stagnate``; why : the reason in words.
    tokens, low, high : midpoint of the brain's move and its 95 % interval; start, stop : from where to where it moves.
    effect, effect_low, effect_high : signed height in units of the brain measure; effect_spread : over its standard
    deviation over replicates. lag, lag_low, lag_high : decades by which the brain's midpoint comes after the
    behaviour's (phases 1 and 3). p : the largest of the phase's parts, NaN where nothing was tested; p_holm : after
    Holm's correction over those that were. seeds : how many are the replicates; with one, the subjects are.
    """

    model: str
    table: pd.DataFrame
    brain: Transitions
    form: Transitions
    accuracy: Transitions
    statement: str  # one sentence
    notes: tuple[str, ...] = ()  # what was left out of the curves, or merged


def falls_after_rise(fit: Transitions) -> list[Any]:
    """Falls after the first rise, the deepest first: before it there is nothing to fall from."""
    return sorted((f for f in fit.falls if any(r.onset < f.onset for r in fit.rises)), key=lambda fall: fall.height)


def fall_p(fit: Transitions, fall: Any) -> float:
    """P of a fall, and of the rise before it."""
    return float(np.max((fit.p(fall), fit.p([r for r in fit.rises if r.onset < fall.onset][-1]))))


def surges(fit: Transitions) -> list[Any]:
    """Rises that are steep for certain (`STEEP`, by the lower end of the interval) and carry a fifth of the range."""
    both = (fit.fitted, log_tokens(fit.tokens))
    whole, length = (float(np.ptp(of)) if fit.rises else np.nan for of in both)  # of no curve there is nothing
    return [r for r in fit.rises if r.steepness_low >= STEEP * (whole / length) and r.height >= CARRIED * whole]


class _Link(NamedTuple):
    """One phase before the correction for many tests."""

    why: str
    p: float = np.nan  # the largest of its parts' p; NaN if one could not be tested
    move: Any = None  # of the brain
    lag: Sequence[float] = (np.nan, np.nan, np.nan)  # behind the move that goes with it
    holds: bool = True  # what has no p-value of its own
    verdict: str = ""  # where it is not for p to say


def _range(move: Any) -> str:
    return f"({amount(move.onset)} to {amount(move.end)} tokens)"


def _missed(fit: Transitions) -> str:
    """What the test could not have seen; nothing for a curve that is constant."""
    return f"; a move of less than {fit.detectable:.2g} would have been missed" if fit.detectable > 0 else ""


def _together(
    brain: Transitions, moves: Sequence[Any], other: Transitions, partners: Sequence[Any], name: str, rule: PhaseSpec
) -> _Link:
    """The largest of `moves` whose lag to one of `partners` is within the rule's, interval and all; or the closest."""
    if not partners:
        return _Link(f"{name.capitalize()} has no surge{_missed(other)}.")
    tried = []
    for move, partner in product(*(sorted(rises, key=lambda rise: -rise.height) for rises in (moves, partners))):
        both = [(of.midpoint, of.midpoint_low, of.midpoint_high) for of in (move, partner)]
        (own, start, stop), (theirs, their_start, their_stop) = brain.place(both).tolist()
        lag = own - theirs  # with its 95 % interval by Zou and Donner's (2008) rule
        low = lag - float(np.hypot(own - start, their_stop - theirs))
        high = lag + float(np.hypot(stop - own, theirs - their_start))
        # p of a lag outside of the rule's, normal with the interval's own half-widths.
        sides = (rule.lag - lag) / max(high - lag, 1e-9), (rule.lag + lag) / max(lag - low, 1e-9)
        apart = float(stats.norm.sf(1.96 * min(sides)))
        p, holds = np.max((brain.p(move), other.p(partner), apart)), max(-low, high) <= rule.lag
        why = f"The brain's rise {_range(move)} has its midpoint at {10**lag:.2g} times the tokens of the surge in "
        why += f"{name} (95 % interval {10**low:.2g} to {10**high:.2g})"
        why += "." if holds else f"; not shown to be within a factor of {10**rule.lag:.2g}."
        tried.append(_Link(why, p, move, (lag, low, high), holds))
    return next((link for link in tried if link.holds), min(tried, key=lambda link: (np.isnan(link.p), link.p)))


def _first(brain: Transitions, form: Transitions, rule: PhaseSpec) -> _Link:
    if own := surges(brain):
        return _together(brain, own, form, surges(form)[:1], "instruction following", rule)
    steep = "rises, but nowhere surges" if brain.rises else "has no piece that surely rises"
    return _Link(f"The brain curve {steep}{_missed(brain)}.")


def _second(brain: Transitions, accuracy: Transitions, rule: PhaseSpec, chance: float) -> _Link:
    if not (falls := falls_after_rise(brain)):
        after = " after a rise" if brain.falls else ""
        return _Link(f"The brain curve has no piece that surely falls{after}{_missed(brain)}.")
    chances = [fall_p(brain, fall) for fall in falls]
    falls, deepest = [f for f, p in zip(falls, chances, strict=True) if p <= rule.alpha], falls[0]
    if not falls:
        why = f"The brain's fall {_range(deepest)} is not beyond chance (p = {chances[0]:.2g})."
        return _Link(why, chances[0], deepest, holds=False)
    learnt = [accuracy.p(rise) for rise in accuracy.rises]
    if not any(p <= rule.alpha for p in learnt):
        level, known = float(accuracy.values.mean()), f" (chance {chance:.2f})" if np.isfinite(chance) else ""
        stays = "its mean is" if accuracy.moves else "it stays at"
        why = f"The brain falls {_range(falls[0])}, but accuracy never rises: {stays} {level:.2f}{known}."
        return _Link(why, np.nan, falls[0], verdict="not decided" if np.isnan(learnt).any() else "nothing to stagnate")
    tried = [_pause(brain, fall, accuracy, rule) for fall in falls]
    return next((link for link in tried if link.holds and link.p <= rule.alpha), tried[0])


def _pause(brain: Transitions, fall: Any, accuracy: Transitions, rule: PhaseSpec) -> _Link:
    """Whether accuracy pauses, by its own scatter, from the onset of a fall to its end, or until a fifth is made up."""
    start, stop, at, values = fall.onset, fall.end, accuracy.tokens, accuracy.values
    # Without a level between fall and return their corner lies in the middle of the trough: the return begins later.
    for back in [rise for rise in brain.rises if rise.onset >= fall.midpoint][:1]:
        begin, done = brain.place([back.onset, back.end])
        path = brain.at(10 ** (places := np.linspace(begin, done, 201)))
        stop = 10 ** np.interp(path[0] - CARRIED * fall.height, path, places)
    first, last = np.searchsorted(at, start), np.searchsorted(at, stop, "right") - 1
    if last - first < 2:  # a fall between two checkpoints: with those beside it
        first, last = max(np.searchsorted(at, start, "right") - 1, 0), min(np.searchsorted(at, stop), at.size - 1)
    inside, after, span = slice(first, last + 1), slice(last, None), f"{amount(at[first])} to {amount(at[last])}"
    if at.size - last < 3:
        why = f"The brain falls {_range(fall)}; training ends too soon afterwards to tell a pause from an end."
        return _Link(why, move=fall, verdict="not decided")
    noise = max(accuracy.scatter, 1e-12)
    degrees = max(at.size - 2 - DEGREES * len(accuracy.knots), 1.0)
    x = log_tokens(at)

    def slope(of: slice) -> tuple[float, float]:
        away = x[of] - x[of].mean()
        return float(away @ values[of] / (away @ away)), noise / float(np.sqrt(away @ away))

    (rate, error), (later, later_error), length = slope(inside), slope(after), float(np.ptp(x[inside]))
    change, off = rate * length, error * length
    least = float(stats.t.ppf(1 - rule.alpha, degrees)) * off
    if least >= rule.margin:
        level = float(values[inside].mean())
        items = level * (1 - level) / noise**2 * ((least + 0.84 * off) / rule.margin) ** 2
        why = f"The brain falls {_range(fall)}, but how accuracy changes from {span} is known to ±{least:.2g} only "
        why += f"(margin {rule.margin:g}); about {items:,.0f} items would do."
        return _Link(why, move=fall, verdict="not decided")
    excursion = float(np.ptp(accuracy.at(at[inside])))
    parts = {
        "changes by the margin or more": float(stats.t.sf((rule.margin - abs(change)) / off, degrees)),
        "leaves its level": float(stats.norm.sf((2 * rule.margin - excursion) / (noise / np.sqrt(2)))),
        "is no faster afterwards": float(stats.t.sf((later - rate) / np.hypot(error, later_error), degrees)),
    }
    failed = [name for name, p in parts.items() if p > rule.alpha]
    verb = f"not shown to pause: it may be that it {' or '.join(failed)}" if failed else "it pauses"
    why = f"The brain falls {_range(fall)}; accuracy changes by {change:+.3f} from {span} (margin {rule.margin:g}), "
    why += f"then by {later:+.3f} a decade: {verb}."
    return _Link(why, np.max((*parts.values(), fall_p(brain, fall))), fall)


def _third(brain: Transitions, accuracy: Transitions, rule: PhaseSpec, first: Any, fall: Any) -> _Link:
    if fall is None:
        return _Link("No piece of the brain curve surely falls after a rise, so there is no fall to return from.")
    rises = [rise for rise in brain.rises if rise.onset >= fall.midpoint]
    if not rises and np.isnan(fall.end_low):
        return _Link("The brain curve falls until training ends: it has no time to return.", verdict="not decided")
    if not (returns := [rise for rise in rises if rise is not first]):
        once = "rises after its fall once, which is phase 1's rise" if rises else "does not rise again after its fall"
        return _Link(f"The brain curve {once}{_missed(brain)}.")
    link = _together(brain, returns, accuracy, surges(accuracy), "accuracy", rule)
    return link._replace(p=np.max((link.p, fall_p(brain, fall))))


def judge(
    brain: Transitions,
    form: Transitions,
    accuracy: Transitions,
    rule: PhaseSpec = RULE,
    model: str = "",
    seeds: int = 1,
    chance: float = np.nan,
) -> TriplePhase:
    """The test of the phases on fits of the brain score, instruction following and accuracy (`triple_phase_test`)."""

    def ask(name: str, other: Transitions, test: Callable[[], _Link]) -> _Link:
        fits = ("Brain", brain), (name.capitalize(), other)
        poor = [f"{n}: {fit.statement.removeprefix('Not decided: ')}" for n, fit in fits if not fit.decided]
        return _Link(" ".join(poor), verdict="not decided") if poor else test()

    first = ask("instruction following", form, lambda: _first(brain, form, rule))
    second = ask("accuracy", accuracy, lambda: _second(brain, accuracy, rule, chance))
    third = ask("accuracy", accuracy, lambda: _third(brain, accuracy, rule, first.holds and first.move, second.move))
    links, rows = (first, second, third), []
    most = brain.grid[1]  # change points that the checkpoints allow
    for phase, (link, p) in enumerate(zip(links, holm([link.p for link in links]), strict=True), start=1):
        verdict, why = link.verdict or ("found" if link.holds and p <= rule.alpha else "not found"), link.why
        if not link.verdict and link.holds and p > rule.alpha:
            why += f" Not beyond chance: p = {p:.2g} after correction."
        if not link.verdict and link.move is not None and np.isnan(link.p):
            verdict, why = "not decided", f"{why} Too few checkpoints lie around one of these moves to test it."
        if verdict == "not found" and 0 < most == len(brain.knots) < rule.max_changes:
            # What was not found may be what could not be drawn.
            verdict, why = "not decided", f"{why} But {brain.tokens.size} checkpoints allow at most "
            why += f"{number_of(most, 'change point')}, and the brain curve takes all of them: there may be more."
        row = {"model": model, "phase": phase, "name": PHASES[phase - 1], "found": verdict == "found"}
        row |= {"verdict": verdict} | _measured(link, brain) | {"p": link.p, "p_holm": p}
        rows.append(row | {"seeds": seeds, "rule": digest_of(rule), "why": why})
    table = pd.DataFrame(rows)
    told = {"found": "{0.name} at {1} tokens", "not found": "no {0.name}"}
    said = [told.get(r.verdict, "{0.name} {0.verdict}").format(r, amount(r.tokens)) for r in each_row(table)]
    told_by = f"{seeds} seeds" if seeds > 1 else "one seed"
    notes = tuple(dict.fromkeys(note for fit in (brain, form, accuracy) for note in fit.notes))
    return TriplePhase(model, table, brain, form, accuracy, f"{model} ({told_by}): {', '.join(said)}.", notes)


def _measured(link: _Link, brain: Transitions) -> dict[str, float]:
    """Dates and size of a move of the brain, its size over the spread of replicates' own sizes, and the lag."""
    move = link.move
    told = {name: getattr(move, of, np.nan) for name, of in MEASURED.items()} | {"effect_spread": np.nan}
    if move is not None and brain.replicates is not None:
        where, at = brain.place(brain.tokens), brain.place([move.onset, move.end])
        own = np.diff([np.interp(at, where, own) for own in brain.replicates]).std(ddof=1)
        told["effect_spread"] = move.height / own if own > 0 else np.nan
    return told | dict(zip(("lag", "lag_low", "lag_high"), link.lag, strict=True))


def _fit(ask: Callable[[str], query.Curve], models: Sequence[str], **options: Any) -> Transitions:
    """Fit of the curve that `ask` gives of each model; of seeds at the checkpoints that all of them have.

    Replicates are the seeds, or the subjects of one model. Without a curve the fit says what there is.
    """
    try:
        curves = [ask(model) for model in models]
    except query.NothingToDraw as error:
        return replace(fit_transitions([], [], **options), statement=f"Not decided: {error}")
    one, notes = curves[0], [note for curve in curves for note in curve.notes]
    means, errors = (pd.DataFrame([pd.Series(getattr(c, a), c.tokens) for c in curves]) for a in ("mean", "error"))
    shared = means.dropna(axis=1).columns.sort_values()
    if lost := means.shape[1] - shared.size:
        notes.append(f"{number_of(lost, 'checkpoint')} that not every seed has left out")
    values = one.values if len(models) == 1 < len(one.names) and one.of == "subject" else means[shared].to_numpy()
    stderr = None if one.of == "subject" else np.sqrt((errors[shared] ** 2).sum(skipna=False).to_numpy()) / len(curves)
    fit = fit_transitions(shared.to_numpy(), values, stderr, **options)
    return replace(fit, notes=(*dict.fromkeys(notes), *fit.notes))


def triple_phase_test(
    curves: pd.DataFrame, model: Sequence[str], rule: PhaseSpec = RULE, tasks: Names = None, n_bootstrap: int = 400
) -> TriplePhase:
    """Whether the three phases are in the curves of one model, or of models that differ in their seed alone.

    1. alignment: a surge of the brain (`surges`) comes together with the first surge of instruction following: the
       whole 95 % interval of their lag is within the rule's ``lag``.
    2. detachment: after a rise the brain falls while accuracy pauses: until a fifth of the fall is made up it changes
       by less than ``margin``, leaves its level by no more than twice that, and moves faster afterwards.
    3. realignment: the brain then rises again, by another rise than phase 1's, together with a surge of accuracy.

    curves : the curves table, `phaselab.results.CURVE_COLUMNS`. rule : what was fixed before looking.
    model : its name, or the names of the seeds, which are then the replicates in place of the subjects.
    tasks : over which behaviour is averaged; None: all.

    Missing or poor curves leave a phase not decided; PhaselabError: no such region, measure, layer or task in there.
    """
    models = [model] if isinstance(model, str) else list(model)
    absent = [column for column in CURVE_COLUMNS if column not in curves.columns]
    expect(not absent, "curves", f"missing columns {', '.join(absent)}", ", ".join(CURVE_COLUMNS))
    expect(0 < len({*models}) == len(models), "model", ", ".join(models) or "none", "a name, or other ones of seeds")
    names = sorted(curves["model"].unique())
    expect({*models} <= {*names}, "model", repr(min({*models} - {*names}, default="")), f"one of {', '.join(names)}")
    own = {name: curves[curves["model"] == name] for name in models}
    pooled = pd.concat(own.values())
    for field, column in (("roi", "roi"), ("measure", "measure"), ("accuracy", "measure")):
        rows = pooled[pooled["perspective"] == ("behaviour" if field == "accuracy" else "brain")]
        there, asked = sorted(rows[column].unique()), getattr(rule, field)
        known = not there or asked in ("", "accuracy", *there)  # the default may be missing: then it is not decided
        expect(known, field, repr(asked), f"one of {', '.join(there)}")
    options = {"max_changes": rule.max_changes, "n_bootstrap": n_bootstrap, "penalty": rule.penalty}
    measure = rule.measure or min((query.brain_measure(table) for table in own.values()), key=len)  # that all have
    brain = _fit(lambda m: query.brain_by_subject(own[m], rule.roi, rule.layer, measure), models, **options)
    form = _fit(lambda m: query.behaviour_by_task(own[m], "instruction_following", tasks), models, **options)
    right = _fit(lambda m: query.behaviour_by_task(own[m], rule.accuracy, tasks), models, **options)
    chance = query.chance_level(query.of_tasks(pooled, tasks), rule.accuracy)
    return judge(brain, form, right, rule, ", ".join(models), len(models), chance)


def transitions_of(result: TriplePhase) -> pd.DataFrame:
    """Every rise and fall that the test of the phases fitted, a row each; tokens, low, high: of its midpoint."""
    fits = {"brain": result.brain, "instruction_following": result.form, "accuracy": result.accuracy}
    rows = [{"measure": measure, **vars(move)} for measure, fit in fits.items() for move in fit.moves]
    table = pd.DataFrame(rows, columns=["measure", *MOVE_COLUMNS]).assign(model=result.model)
    table["perspective"] = np.where(table["measure"] == "brain", "brain", "behaviour")
    table = table.rename(columns={"midpoint": "tokens", "midpoint_low": "low", "midpoint_high": "high"})
    return table[["model", "perspective", "measure", "kind", "onset", "tokens", "low", "high", "end", "height"]]


def rule_text(rule: PhaseSpec) -> str:
    """What was fixed before anybody looked, in a sentence, with its digest."""
    depth = {"mean": "the mean over layers", "best": "the layer that scores best over all checkpoints"}
    where = depth.get(str(rule.layer), f"layer {rule.layer}")
    if isinstance(rule.layer, float):
        where = f"the layer at {rule.layer:.0%} of the depth of each model"
    roi = "all regions" if rule.roi == "all" else f"region {plain(rule.roi)}"
    return (
        f"Fixed before looking (rule {digest_of(rule)[:8]}): the brain curve is that of {where}, {roi}; rises "
        f"are together within {rule.lag:g} decade of tokens; {plain(rule.accuracy.replace('_', ' '))} stands still if "
        f"it changes by less than {rule.margin:g}; tests at the level {rule.alpha:g}."
    )


def phase_text(result: TriplePhase, phase: int, unit: str) -> str:
    """What the test says of a phase (1, 2, 3), in sentences; `unit`: what the brain curve counts."""
    row = result.table.set_index("phase").loc[phase]
    parts = [f"Phase {phase} ({row['name']}) is **{row.verdict}** in {result.model}. {row.why}"]
    if np.isfinite(row.tokens):
        start, stop, middle, low, high = map(amount, row[["start", "stop", "tokens", "low", "high"]])
        parts.append(
            f"The {'rise' if row.effect > 0 else 'fall'} of the brain score goes from {start} to {stop} tokens, with "
            f"its midpoint at {middle} (95 % interval {low} to {high}); its height is {row.effect:+.3f} (95 % interval "
            f"{row.effect_low:+.3f} to {row.effect_high:+.3f}), as {unit}."
        )
    if result.notes:
        parts.append(f"About the curves: {plain('; '.join(result.notes))}.")
    if np.isfinite(row.p):
        tested = int(result.table["p"].notna().sum())
        after = f", after Holm's correction over the {tested} phases that could be tested {row.p_holm:.2g}"
        parts.append(f"Test: p = {row.p:.2g}{after if tested > 1 else ''}.")
    if row.seeds == 1:
        parts.append("This is one seed: a drift that all its checkpoints share cannot be told from a phase.")
    return " ".join(parts)
