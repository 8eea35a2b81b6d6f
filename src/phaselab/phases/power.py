"""What a verdict on the phases hangs on: other choices (sensitivity), and how deep a fall must be to be found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from phaselab.curves import behaviour_by_task
from phaselab.phases.fit import Array, log_tokens
from phaselab.phases.three_phases import ALPHA, MARGIN, fall_p, falls_after_rise, triple_phase_test
from phaselab.phases.transitions import fit_transitions


def sensitivity(curves: pd.DataFrame, model: str, **options: Any) -> pd.DataFrame:
    """The same verdict under other choices, one changed at a time: a row a variant and phase.

    Columns: varied (which choice; "" for the given `options`), choice, phase, found, tokens, p_holm, agrees (same
    verdict as the first) and note. With log-probability instead of accuracy, the margin of flatness is scaled by the
    ratio of the two curves' ranges.
    """
    base, margin = triple_phase_test(curves, model, **options), options.get("margin", MARGIN)
    own = curves[curves["model"] == model]
    brain = own[own["perspective"] == "brain"]
    choices: dict[str, Sequence[Any]] = {
        "layer": ("best", "mean", 0.5, 1.0),
        "measure": [c for c in ("r", "r_normalised", "significant") if c in set(brain["measure"])],
        "roi": sorted(brain["roi"].unique()),
        "penalty": (2.0, 3.0, 4.0),
        "max_changes": (4, 6),
        "margin": (margin / 2, margin * 2),
    }
    variants = [(varied, str(choice), {varied: choice}) for varied, own in choices.items() for choice in own]
    if (own["measure"] == "log_probability").any() and base.accuracy.decided:
        curve = behaviour_by_task(own, "log_probability", options.get("tasks")).mean
        scaled = margin * float(np.ptp(curve)) / max(float(np.ptp(base.accuracy.values)), 1e-12)
        variants.append(("accuracy", "log_probability", {"accuracy": "log_probability", "margin": scaled}))
    parts = []
    for varied, choice, change in [("", "", {}), *variants]:
        verdict = triple_phase_test(curves, model, **(options | change)) if change else base
        table = verdict.table[["phase", "found", "tokens", "p_holm"]]
        table = table.assign(agrees=table["found"] == base.table["found"], note="")
        if varied == "accuracy":
            table.loc[~table["found"] & base.table["found"], "note"] = "found in the discontinuous measure alone"
        parts.append(pd.DataFrame({"varied": varied, "choice": choice}, table.index).join(table))
    return pd.concat(parts, ignore_index=True)


def detachment_power(
    depths: Sequence[float] = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0),
    checkpoints: Sequence[int] = (12, 20, 40),
    subjects: Sequence[int] = (1, 3, 6),
    n_simulations: int = 100,
    seed: int = 0,
) -> pd.DataFrame:
    """How often a fall of the brain curve is found, by simulation: a row a combination.

    Simulated curves rise by 10 standard deviations of one subject's noise at one checkpoint, then fall by `depths`
    (in the same unit) for a third of the log-token axis, and return. White noise is each subject's own, and the same
    for all depths. At depth 0 the power is the false-positive rate; low and high are Wilson's 95 % interval.
    """
    rows = []
    for n in checkpoints:
        tokens = np.concatenate([[0.0], np.round(np.logspace(6, 10, n - 1))])
        where = log_tokens(tokens)
        unit = (where - where[0]) / (where[-1] - where[0])
        rise = np.interp(unit, [0.15, 0.4], [0.0, 10.0])
        dip = np.interp(unit, [0.5, 0.6, 0.73, 0.83], [0.0, -1.0, -1.0, 0.0])
        for count in subjects:
            found, rng = np.zeros(len(depths), dtype=int), np.random.default_rng([seed, n, count])
            for _ in range(n_simulations):
                noise = rng.standard_normal((count, n))
                found += [fall_found(tokens, rise + depth * dip + noise) for depth in depths]
            for depth, hits in zip(depths, found, strict=True):
                interval = stats.binomtest(int(hits), n_simulations).proportion_ci(method="wilson")
                rows.append((n, count, float(depth), hits / n_simulations, interval.low, interval.high))
    return pd.DataFrame(rows, columns=["checkpoints", "subjects", "depth", "power", "low", "high"])


def fall_found(tokens: Array, subjects: Array) -> bool:
    """Whether the brain's part of phase 2 is found in curves (n_subjects, n)."""
    fit = fit_transitions(tokens, subjects, max_changes=6, n_bootstrap=60)
    return any(fall_p(fit, fall) <= ALPHA for fall in falls_after_rise(fit))


def detectable_depth(power: pd.DataFrame, target: float = 0.8) -> pd.DataFrame:
    """The shallowest fall found with a probability of `target`, interpolated, by design; NaN where `power` has none."""
    rows = []
    for (checkpoints, subjects), own in power.sort_values("depth").groupby(["checkpoints", "subjects"]):
        best = own["power"].cummax()
        until = best.shift(fill_value=-1) < target  # with the first that passes
        rows.append((checkpoints, subjects, np.interp(target, best[until], own["depth"][until], right=np.nan)))
    return pd.DataFrame(rows, columns=["checkpoints", "subjects", "depth"])
