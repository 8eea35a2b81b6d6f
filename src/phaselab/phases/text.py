"""What the test of the phases says, as tables and sentences for pages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from phaselab.curves import PHASE_NAMES, amount
from phaselab.phases.test import TriplePhase


def transitions_of(result: TriplePhase) -> pd.DataFrame:
    """Every rise and fall that the test of the phases fitted, a row each.

    Columns: model, perspective, measure (``brain``, ``instruction_following``, ``accuracy``), kind (``rise``,
    ``fall``), onset, tokens (the midpoint), low, high (its 95 % interval), end and height (in units of the measure).
    """
    rows: list[tuple[Any, ...]] = []
    fits = {"brain": result.brain, "instruction_following": result.form, "accuracy": result.accuracy}
    for measure, fit in fits.items():
        for move in fit.moves:
            dates = move.onset, move.midpoint, move.midpoint.low, move.midpoint.high, move.end, move.height
            perspective = "brain" if measure == "brain" else "behaviour"
            rows.append((result.model, perspective, measure, move.kind, *map(float, dates)))
    names = ["model", "perspective", "measure", "kind", "onset", "tokens", "low", "high", "end", "height"]
    return pd.DataFrame(rows, columns=names)


def phase_text(result: TriplePhase, phase: int, unit: str) -> str:
    """What the test says of a phase (1, 2, 3), in sentences; `unit`: what the brain curve counts."""
    row = result.table[result.table["phase"] == phase].iloc[0]
    verdict = "**found**" if row["found"] else "**not found**"
    parts = [f"Phase {PHASE_NAMES[phase]} ({row['name']}) is {verdict} in {result.model}. {row['why']}"]
    if np.isfinite(row["tokens"]):
        verb = "rise" if row["effect"] > 0 else "fall"
        midpoint = _with_interval(row, "tokens", "low", "high", amount)
        height = _with_interval(row, "effect", "effect_low", "effect_high", "{:+.3f}".format)
        parts.append(
            f"The {verb} of the brain score goes from {amount(row['start'])} to {amount(row['stop'])} "
            f"tokens, with its midpoint at {midpoint}; its height is {height}, as {unit}."
        )
    if np.isfinite(row["lag"]):
        times = {name: f"{10 ** row[name]:.2g}" for name in ("lag", "lag_low", "lag_high")}
        parts.append(
            f"The brain's midpoint comes at {times['lag']} times the tokens of the behaviour's (95 % "
            f"interval {times['lag_low']} to {times['lag_high']}; a rise at a random time comes as close "
            f"with p = {row['lag_p']:.2g})."
        )
        if row["lag_p"] > 0.05:
            parts.append("Closeness in time is thus no evidence by itself that the two belong together.")
    if notes := dict.fromkeys(note for fit in (result.brain, result.form, result.accuracy) for note in fit.notes):
        parts.append(f"Of the curves: {'; '.join(notes)}.")
    parts.append(f"Test: p = {row['p']:.2g}, after Holm's correction over the three phases {row['p_holm']:.2g}.")
    return " ".join(parts)


def _with_interval(row: Any, value: str, low: str, high: str, show: Any) -> str:
    """``value (low to high)``, or the value alone where the interval is not known."""
    if np.isfinite(row[low]) and np.isfinite(row[high]):
        return f"{show(row[value])} (95 % interval {show(row[low])} to {show(row[high])})"
    return f"{show(row[value])}"
