"""What a verdict on the phases hangs on: other choices (sensitivity), and how deep a fall must be to be found."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from phaselab.curves import Curve, behaviour_by_task
from phaselab.phases.fit import Array, log_tokens
from phaselab.phases.monotone import autocorrelated
from phaselab.phases.test import MARGIN, Side, TriplePhase, triple_phase_test


def sensitivity(curves: pd.DataFrame, model: str, **options: Any) -> pd.DataFrame:
    """The same verdict under other choices, one changed at a time: a row a variant and phase.

    Columns: varied (which choice; "" for the given `options`), choice, phase, found, tokens, p_holm, agrees (same
    verdict as the first) and note. With log-probability instead of accuracy, the margin of flatness is scaled by the
    ratio of the two curves' ranges; a phase that is found with accuracy alone is noted as such.
    """
    base = triple_phase_test(curves, model, **options)
    own = curves[curves["model"] == model]
    brain = own[own["perspective"] == "brain"]
    margin = float(options.get("margin", MARGIN))
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
    rows = _compared(base, base, "", "")
    for varied, choice, change in variants:
        rows += _compared(base, triple_phase_test(curves, model, **(options | change)), varied, choice)
    return pd.DataFrame(rows)


def _compared(base: TriplePhase, test: TriplePhase, varied: str, choice: str) -> list[dict[str, Any]]:
    """The rows of one variant, set against the verdict under the given options."""
    rows = []
    for row, first in zip(test.table.to_dict("records"), base.table["found"], strict=True):
        lost = varied == "accuracy" and bool(first) and not row["found"]
        told = {k: row[k] for k in ("phase", "found", "tokens", "p_holm")}
        said = {"agrees": row["found"] == first, "note": "found in the discontinuous measure alone" if lost else ""}
        rows.append({"varied": varied, "choice": choice} | told | said)
    return rows


def detachment_power(
    depths: Sequence[float] = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0),
    checkpoints: Sequence[int] = (12, 20, 40),
    subjects: Sequence[int] = (1, 3, 6),
    *,
    autocorrelation: float = 0.0,
    n_simulations: int = 100,
    alpha: float = 0.05,
    seed: int = 0,
) -> pd.DataFrame:
    """How often a fall of the brain curve is found, by simulation: a row a combination.

    Simulated curves rise by 10 standard deviations of one subject's noise at one checkpoint, then fall by `depths`
    (in the same unit) for a third of the log-token axis, and return. Noise is each subject's own, AR(1) along the
    checkpoints, and the same for all depths. The first checkpoint is step 0, the rest are evenly spaced in log tokens
    over four decades. At depth 0 the power is the false-positive rate; low and high are Wilson's 95 % interval of the
    simulation's own error.
    """
    rows = []
    for n in checkpoints:
        tokens = np.concatenate([[0.0], np.round(np.logspace(6, 10, n - 1))])
        where = log_tokens(tokens)
        unit = (where - where[0]) / (where[-1] - where[0])
        rise = np.interp(unit, [0.15, 0.4], [0.0, 10.0])
        dip = np.interp(unit, [0.5, 0.6, 0.73, 0.83], [0.0, -1.0, -1.0, 0.0])
        for count in subjects:
            found = np.zeros(len(depths), dtype=int)
            rng = np.random.default_rng([seed, n, count])
            for _ in range(n_simulations):
                noise = autocorrelated(rng, (count, n), autocorrelation)
                found += [fall_found(tokens, rise + depth * dip + noise, alpha) for depth in depths]
            for depth, hits in zip(depths, found, strict=True):
                interval = stats.binomtest(int(hits), n_simulations).proportion_ci(method="wilson")
                rows.append((n, count, float(depth), hits / n_simulations, interval.low, interval.high))
    return pd.DataFrame(rows, columns=["checkpoints", "subjects", "depth", "power", "low", "high"])


def fall_found(tokens: Array, subjects: Array, alpha: float) -> bool:
    """Whether the brain's part of phase 2 is found in curves (n_subjects, n)."""
    names = tuple(map(str, range(len(subjects))))
    curve = Curve("subject", names, tokens, subjects, np.full(subjects.shape, nan))
    brain = Side.of("brain", lambda: curve, max_changes=6, seed=0, n_bootstrap=60)
    return any(brain.fall_p(fall) <= alpha for fall in brain.falls_after_rise)


def detectable_depth(power: pd.DataFrame, target: float = 0.8) -> pd.DataFrame:
    """The shallowest fall that is found with a probability of `target`, a row for each design of `detachment_power`.

    `depth` is linearly interpolated where the power first passes `target`; NaN where no depth of the table reaches it.
    """
    rows = []
    for (checkpoints, subjects), own in power.groupby(["checkpoints", "subjects"], sort=True):
        own = own.sort_values("depth")
        depths = own["depth"].to_numpy(dtype=float)
        shares = np.maximum.accumulate(own["power"].to_numpy(dtype=float))
        if shares[-1] < target:
            depth = nan
        elif shares[0] >= target:
            depth = float(depths[0])
        else:
            after = int(np.argmax(shares >= target))
            part = (target - shares[after - 1]) / (shares[after] - shares[after - 1])
            depth = float(depths[after - 1] + part * (depths[after] - depths[after - 1]))
        rows.append((checkpoints, subjects, depth))
    return pd.DataFrame(rows, columns=["checkpoints", "subjects", "depth"])
