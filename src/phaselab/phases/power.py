"""What a verdict on the phases hangs on: other choices (sensitivity), and how deep a fall must be to be found."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from phaselab.curves import behaviour_by_task, brain_layer, brain_measure
from phaselab.phases.three_phases import RULE, judge, triple_phase_test
from phaselab.phases.transitions import fit_transitions
from phaselab.study import PhaseSpec

__all__ = ["detachment_power", "detectable_depth", "sensitivity"]


def sensitivity(curves: pd.DataFrame, model: Sequence[str], rule: PhaseSpec = RULE, **options: Any) -> pd.DataFrame:
    """The same verdict under other choices, one changed at a time: a row a variant and phase.

    Columns: varied (which choice; "" for `rule`), choice, phase, found, verdict, tokens, p_holm, agrees (same verdict
    as the first), note. Choices that come to the rule's own, and regions made of noise, are left out. With
    log-probability instead of accuracy the margin is scaled by the ratio of the two curves' ranges.
    """
    base = triple_phase_test(curves, model, rule, **options)
    own = curves[curves["model"] == (model if isinstance(model, str) else model[0])]
    brain, measures = own[own["perspective"] == "brain"], {*own["measure"].unique()}
    # Depths that come to one layer are one choice.
    depths = {brain_layer(own, c): c for c in ("mean", "best", 1.0, 1 / 3, rule.layer)} if len(brain) else {}
    choices: dict[str, Sequence[Any]] = {
        "layer": [*depths.values()][::-1],
        "measure": [c for c in ("r", "r_normalised", "significant") if c in measures],
        "roi": [roi for roi in sorted(brain["roi"].unique()) if "noise" not in roi],
        "penalty": (2.0, 4.0),
        "max_changes": (4,),
        "margin": (rule.margin / 2, rule.margin * 2),
        "lag": (rule.lag / 2, rule.lag * 2),
        "accuracy": [c for c in ("log_probability", "knowing") if c in measures],
    }
    given = rule.model_dump() | {"measure": rule.measure or brain_measure(brain)}
    varied = [(field, c) for field, several in choices.items() for c in several if c != given[field]]
    parts = []
    for field, choice in [("", ""), *varied]:
        change = {field: choice} if field else {}
        if choice == "log_probability" and base.accuracy.decided:
            curve = behaviour_by_task(own, choice, options.get("tasks")).mean
            scale = float(np.ptp(curve)) / max(float(np.ptp(base.accuracy.values)), 1e-12)
            change["margin"] = max(rule.margin * scale, 1e-9)
        result = triple_phase_test(curves, model, rule.model_copy(update=change), **options) if change else base
        table = result.table[["phase", "found", "verdict", "tokens", "p_holm"]]
        table = table.assign(agrees=table["verdict"] == base.table["verdict"], note="")
        if choice == "log_probability":
            table.loc[~table["found"] & base.table["found"], "note"] = "found in the discontinuous measure alone"
        said = f"{choice:.2g}" if isinstance(choice, float) else str(choice)
        parts.append(pd.DataFrame({"varied": field, "choice": said}, table.index).join(table))
    return pd.concat(parts, ignore_index=True)


def detachment_power(
    depths: Sequence[float],
    checkpoints: int,
    subjects: int,
    accuracy_noise: float = 0.005,
    rule: PhaseSpec = RULE,
    n_simulations: int = 100,
    seed: int = 0,
) -> pd.DataFrame:
    """How often phase 2 as a whole is found in a design, by simulation: a row a depth.

    The brain rises by 10 standard deviations of one subject's noise, together with instruction following, then falls
    by `depths` (in the same unit) for a third of the log-token axis, and returns; accuracy stands still meanwhile and
    rises with the return, with an error of `accuracy_noise`. White noise is each subject's own. At depth 0 the power is
    the rate of false alarms; low and high are Wilson's 95 % interval.
    """
    tokens = np.concatenate([[0.0], np.logspace(6, 10, checkpoints - 1)])
    at, error = np.linspace(0.0, 1.0, checkpoints), np.full(checkpoints, accuracy_noise)
    rise = np.interp(at, [0.15, 0.4], [0.0, 1.0])
    dip = np.interp(at, [0.5, 0.6, 0.73, 0.83], [0.0, -1.0, -1.0, 0.0])
    right = np.interp(at, [0.2, 0.4, 0.75, 0.95], [0.3, 0.45, 0.45, 0.9])
    found, rng = np.zeros(len(depths), dtype=int), np.random.default_rng([seed, checkpoints, subjects])
    for _ in range(n_simulations):
        noise = rng.standard_normal((subjects, checkpoints))
        behaviour = np.stack([0.05 + 0.9 * rise, right]) + accuracy_noise * rng.standard_normal((2, checkpoints))
        form, accuracy = (fit_transitions(tokens, curve, error, max_changes=6, n_bootstrap=60) for curve in behaviour)
        for i, depth in enumerate(depths):
            fit = fit_transitions(tokens, 10 * rise + depth * dip + noise, max_changes=6, n_bootstrap=60)
            found[i] += judge(fit, form, accuracy, rule).table["found"].iloc[1]
    table = pd.DataFrame({"checkpoints": checkpoints, "subjects": subjects, "depth": np.asarray(depths, dtype=float)})
    ends = [stats.binomtest(hits, n_simulations).proportion_ci(method="wilson") for hits in found.tolist()]
    return table.assign(power=found / n_simulations, **pd.DataFrame(ends))


def detectable_depth(power: pd.DataFrame, target: float = 0.8) -> pd.DataFrame:
    """The shallowest fall found with a probability of `target`, interpolated, by design; NaN where `power` has none."""
    rows = []
    for (checkpoints, subjects), own in power.sort_values("depth").groupby(["checkpoints", "subjects"]):
        best = own["power"].cummax()
        until = best.shift(fill_value=-1) < target  # with the first that passes
        rows.append((checkpoints, subjects, np.interp(target, best[until], own["depth"][until], right=np.nan)))
    return pd.DataFrame(rows, columns=["checkpoints", "subjects", "depth"])
