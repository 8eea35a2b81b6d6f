"""Phases: false alarms, coverage of intervals, power and speed, on simulated curves with known truth.

    python benchmarks/phases.py [--quick] [--json benchmarks/results/phases.json] [--check]

A goal counts as met when the simulation, with its own 95 % interval (Clopper and Pearson), does not
contradict it. Times are of one core (the process's own time).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
from _table import Row, arguments, finish
from scipy import stats

from phaselab.phases import detachment_power, fit_transitions, log_tokens, triple_phase_test
from phaselab.results import curve_table

CHECKPOINTS = (12, 20, 40)
SUBJECTS = 3


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def grid(n: int) -> np.ndarray:
    """Step 0, then n - 1 checkpoints evenly spaced in log tokens over four decades."""
    return np.concatenate([[0.0], np.round(np.logspace(6, 10, n - 1))])


def shape(tokens: np.ndarray, *corners: tuple[float, float]) -> np.ndarray:
    """A curve through (log10 tokens, value) corners, straight between them, flat outside."""
    x, y = zip(*corners, strict=True)
    return np.interp(log_tokens(tokens), x, y)


def noise(rng: np.random.Generator, rows: int, n: int, rho: float = 0.0) -> np.ndarray:
    """Normal noise (rows, n) of variance 1, first-order autocorrelation `rho` along each row."""
    e = rng.standard_normal((rows, n))
    for t in range(1, n):
        e[:, t] = rho * e[:, t - 1] + np.sqrt(1 - rho**2) * e[:, t]
    return e


def error(hits: int, trials: int) -> tuple[float, float]:
    interval = stats.binomtest(hits, trials).proportion_ci(method="exact")
    return float(interval.low), float(interval.high)


# ------------------------------------------------------------------------------- false alarms

Null = tuple[np.ndarray, np.ndarray, np.ndarray]  # brain (subjects, n), form (n,), accuracy (n,)
FORM = ((7.0, 0.1), (8.0, 0.9))
LATE = ((9.0, 0.33), (9.8, 0.9))
PLATEAU = ((7.0, 0.3), (7.8, 0.6))


def flat(rng: np.random.Generator, t: np.ndarray, rho: float = 0.0) -> Null:
    n = t.size
    behaviour = 0.03 * noise(rng, 2, n, rho)
    return 0.4 + 0.03 * noise(rng, SUBJECTS, n, rho), 0.3 + behaviour[0], 0.33 + behaviour[1]


def monotone(rng: np.random.Generator, t: np.ndarray) -> Null:
    n = t.size
    brain = shape(t, (6.5, 0.2), (9.8, 0.7)) + 0.03 * noise(rng, SUBJECTS, n)
    return brain, shape(t, *FORM) + 0.02 * noise(rng, 1, n)[0], shape(t, *LATE) + 0.02 * noise(rng, 1, n)[0]


def plateau(
    rng: np.random.Generator,
    t: np.ndarray,
    rho: float = 0.0,
    shared: float = 0.03,
    shared_rho: float = 0.0,
    subjects: int = SUBJECTS,
) -> Null:
    """Rises once and stays; noise of each subject's own, and noise that all share."""
    n = t.size
    own = 0.03 * noise(rng, subjects, n, rho)
    brain = shape(t, *PLATEAU) + own + shared * noise(rng, 1, n, shared_rho)
    accuracy = np.full(n, 0.33) if rho == 0 else shape(t, *LATE)
    return brain, shape(t, *FORM) + 0.02 * noise(rng, 1, n)[0], accuracy + 0.01 * noise(rng, 1, n)[0]


#: Name, curves, and which phases are not in them.
NULLS: tuple[tuple[str, Callable[[np.random.Generator, np.ndarray], Null], tuple[int, ...]], ...] = (
    ("flat", flat, (1, 2, 3)),
    ("flat, autocorrelated .6", lambda rng, t: flat(rng, t, 0.6), (1, 2, 3)),
    ("monotone", monotone, (2, 3)),
    ("noisy plateau", plateau, (2, 3)),
    ("plateau, autocorrelated .6", lambda rng, t: plateau(rng, t, 0.6, 0.0), (2, 3)),
    ("plateau, autocorrelated .8", lambda rng, t: plateau(rng, t, 0.8, 0.0), (2, 3)),
    ("plateau, autocorrelated .6, 1 subject", lambda rng, t: plateau(rng, t, 0.6, 0.0, subjects=1), (2, 3)),
    ("plateau, all share autocorrelated .6", lambda rng, t: plateau(rng, t, 0.0, 0.03, 0.6), (2, 3)),
)


def found(t: np.ndarray, curves: Null) -> np.ndarray:
    """Which of the three phases (3,) are found in these curves."""
    brain, form, accuracy = curves
    rows = []
    for i, tokens in enumerate(t):
        place = {"checkpoint": f"c{i}", "step": i, "tokens": int(tokens)}
        for s, own in enumerate(brain):
            where = {"perspective": "brain", "measure": "r_normalised", "roi": "all", "subject": f"s{s}"}
            rows.append(place | where | {"task": "", "layer": 0, "value": own[i], "stderr": np.nan})
        for measure, curve in (("instruction_following", form), ("accuracy", accuracy)):
            where = {"perspective": "behaviour", "measure": measure, "roi": "", "subject": "", "task": "t"}
            rows.append(place | where | {"layer": -1, "value": curve[i], "stderr": 0.01})
    table = curve_table(rows, study="simulated", model="m")
    return triple_phase_test(table, "m", n_bootstrap=60).table["found"].to_numpy(dtype=int)


def false_alarms(simulations: int) -> list[Row]:
    rows = []
    pooled = {phase: [0, 0] for phase in (1, 2, 3)}
    for name, make, absent in NULLS:
        for n in CHECKPOINTS:
            rng = np.random.default_rng([1, n, len(name)])
            hits = sum(found(grid(n), make(rng, grid(n))) for _ in range(simulations))
            for phase in absent:
                pooled[phase][0] += int(hits[phase - 1])
                pooled[phase][1] += simulations
            worst = max(int(hits[phase - 1]) for phase in absent)
            low, _ = error(worst, simulations)
            title = f"false alarms, {name}, n = {n}: worst phase"
            rows.append(Row(title, worst / simulations, "share", "<= 0.05 within error", low <= 0.05))
            say(f"{title}: {hits} of {simulations}")
    for phase, (hits_of, trials) in pooled.items():
        low, _ = error(hits_of, trials)
        rows.append(Row(f"false alarms, phase {phase}, all nulls", hits_of / trials, "share", "<= 0.05", low <= 0.05))
    return rows


# ----------------------------------------------------------------------------------- coverage

TWO = ((7.7, 0.0), (8.9, 1.0))
FOUR = ((7.2, 0.0), (8.2, 1.0), (8.7, 1.0), (9.3, 0.4))
#: Corners, checkpoints, subjects, noise of one subject, autocorrelation.
CELLS = (
    (TWO, 12, 1, 0.05, 0.0),
    (TWO, 20, 1, 0.05, 0.0),
    (TWO, 40, 1, 0.05, 0.0),
    (TWO, 12, 6, 0.12, 0.0),
    (TWO, 20, 6, 0.12, 0.0),
    (TWO, 40, 6, 0.12, 0.0),
    (TWO, 20, 8, 0.1, 0.6),
    (FOUR, 20, 1, 0.03, 0.0),
    (FOUR, 40, 1, 0.05, 0.0),
    (FOUR, 40, 6, 0.12, 0.0),
)


def coverage(simulations: int) -> list[Row]:
    """Intervals of change points over the truth, in fits with the right number of change points."""
    rows = []
    for corners, n, subjects, sd, rho in CELLS:
        t = grid(n)
        at = np.array([corner[0] for corner in corners])
        rng = np.random.default_rng([2, n, subjects, len(corners), int(10 * rho)])
        inside, fits = 0.0, 0
        for _ in range(simulations):
            curves = shape(t, *corners) + sd * noise(rng, subjects, n, rho)
            fit = fit_transitions(t, curves, max_changes=4)
            if len(fit.knots) == len(corners):
                low, high = np.log10(np.maximum(fit.intervals, 1.0)).T
                inside += float(((low <= at) & (at <= high)).mean())
                fits += 1
        low, high = error(round(inside), fits)
        title = f"coverage, {len(corners)} changes, n = {n}, {subjects} subjects, noise {sd:g}"
        title += f" autocorrelated {rho:g}" if rho else ""
        met = high >= 0.92 and low <= 0.98
        rows.append(Row(title, inside / fits, "share", "0.92 to 0.98 within error", met))
        rows.append(Row(f"{title}: right number", fits / simulations, "share"))
        say(f"{title}: {inside / fits:.3f} of {fits}")
    return rows


# -------------------------------------------------------------------------------------- power


def power(simulations: int) -> tuple[list[Row], list[dict[str, float]]]:
    table = detachment_power((0, 1, 2, 3, 4, 6, 10), CHECKPOINTS, (1, 3, 6), n_simulations=simulations, seed=3)
    rows = []
    for (n, subjects), own in table.groupby(["checkpoints", "subjects"]):
        drop = float((own["power"].cummax() - own["power"]).max())
        # All depths see the same noise; two curves of a small simulation may still be lost.
        title = f"power, n = {n}, {subjects} subjects: largest drop with depth"
        rows.append(Row(title, drop, "share", "<= 0.1", drop <= max(0.1, 2 / simulations)))
        at = own.set_index("depth")["power"]
        rows.append(Row(f"power, n = {n}, {subjects} subjects: fall of 4 noise sd", float(at[4]), "share"))
    return rows, table.to_dict("records")


# -------------------------------------------------------------------------------------- speed


def fastest(run: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def speed(repeats: int) -> list[Row]:
    rng = np.random.default_rng(4)
    t = grid(27)
    four = shape(t, *FOUR) + 0.02 * noise(rng, 1, 27)[0]
    assert len(fit_transitions(t, four, max_changes=4).knots) == 4
    seconds = fastest(lambda: fit_transitions(t, four, max_changes=4, n_bootstrap=2000), repeats)
    rows = [Row("2,000 bootstrap fits, 27 points, up to 4 changes", seconds, "s, one core", "<= 2", seconds <= 2)]
    sizes = {}
    for n in (250, 500, 1000):
        long = grid(n)
        y = shape(long, *FOUR) + 0.05 * noise(rng, 1, n)[0]
        fit_transitions(long, y, max_changes=4)  # the grid's own set-up is kept between fits
        sizes[n] = fastest(lambda t=long, y=y: fit_transitions(t, y, max_changes=4), repeats)
        rows.append(Row(f"one fit with 200 bootstrap fits, {n} points", sizes[n], "s, one core"))
    ratio = sizes[1000] / sizes[500]
    rows.append(Row("1,000 points over 500 points", ratio, "times", "<= 3 (quadratic: 4)", ratio <= 3))
    return rows


def main() -> None:
    options = arguments(__doc__ or "")
    quick = options.quick
    rows = speed(2 if quick else 4)
    rows += coverage(20 if quick else 200)
    more, table = power(3 if quick else 40)
    rows += more
    rows += false_alarms(4 if quick else 80)
    finish("phases", rows, options, power=table)


if __name__ == "__main__":
    main()
