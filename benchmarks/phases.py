"""Phases: false alarms, power and coverage of dates, on simulated curves with known truth and on real ones; speed.

    python benchmarks/phases.py [--quick] [--json benchmarks/results/phases.json] [--check] [--simulations N]

A goal is met or missed by the estimate itself; the error of a share of N simulations is sqrt(share (1 - share) / N).
Times are of one core (the process's own time). Simulations run on all cores.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from _table import Row, arguments, finish

from phaselab.phases import detachment_power, fit_table, fit_transitions, judge, log_tokens
from phaselab.phases.fit import autocorrelated

ROOT = Path(__file__).parents[1]
PHASES = ("phase 1", "phase 2", "phase 3", "all three")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def grid(n: int) -> np.ndarray:
    """Step 0, then n - 1 checkpoints evenly spaced in log tokens over four decades."""
    return np.concatenate([[0.0], np.round(np.logspace(6, 10, n - 1))])


def unit(n: int) -> np.ndarray:
    """Where the checkpoints of `grid` lie, 0 to 1 in log tokens."""
    where = log_tokens(grid(n))
    return np.asarray((where - where[0]) / np.ptp(where))


# ----------------------------------------------------------------------------- what is simulated

#: Share of the axis at which a corner lies -> value. Brain curves in standard deviations of one subject's noise.
BRAINS: dict[str, tuple[Sequence[float], Sequence[float]]] = {
    "flat": ([0, 1], [0, 0]),
    "saturating": ([0.2, 0.35], [0, 10]),
    "straight line": ([0, 1], [0, 10]),
    "late": ([0.7, 0.8], [0, 10]),
    "V": ([0, 0.3, 0.5], [6, 0, 6]),
}
#: Accuracy: one true plateau that gives way to progress, and eight that are none.
ACCURACIES: dict[str, tuple[Sequence[float], Sequence[float]]] = {
    "plateau": ([0.2, 0.4, 0.75, 0.9], [0.3, 0.45, 0.45, 0.9]),
    "plateau at chance": ([0.75, 0.9], [0.33, 0.9]),
    "steady rise of .40": ([0, 1], [0.33, 0.73]),
    "rise through the fall": ([0.4, 0.75], [0.33, 0.8]),
    "slower, not still": ([0.1, 0.4, 0.75, 1.0], [0.2, 0.5, 0.62, 0.8]),
    "V of .15": ([0.4, 0.55, 0.75, 0.85, 1.0], [0.6, 0.45, 0.6, 0.6, 0.9]),
    "falls and stays": ([0.1, 0.4, 0.45, 0.55], [0.3, 0.7, 0.7, 0.5]),
    "done before": ([0.1, 0.35], [0.33, 0.8]),
    "chance for ever": ([0, 1], [0.33, 0.33]),
}
SETTING: dict[str, Any] = {"max_changes": 6, "n_bootstrap": 60}
FORM = ([0.2, 0.35], [0.05, 0.95])
RISE, DIP = ([0.2, 0.35], [0, 10]), ([0.5, 0.6, 0.73, 0.83], [0, -1, -1, 0])


class Cell(NamedTuple):
    """One kind of simulated study: shapes, noise, size."""

    brain: str | float  # a number: rises, falls by so many standard deviations, and returns
    accuracy: str
    n: int = 20
    seeds: int = 1
    subjects: int = 6
    rho: float = 0.0
    shared: bool = False  # whether all subjects of a seed share their noise
    error: float = 0.005  # of accuracy, at each checkpoint
    lag: float = 0.0  # decades by which the brain's rise comes after that of instruction following

    @property
    def title(self) -> str:
        brain = self.brain if isinstance(self.brain, str) else f"dip of {self.brain:g} sd"
        noise = f"{'shared' if self.shared else 'own'} noise{f' AR {self.rho:g}' if self.rho else ''}"
        size = f"n = {self.n}, {self.seeds} seed{'s' * (self.seeds > 1)} x {self.subjects} subjects"
        lag = f", {self.lag:g} decade later" if self.lag else ""
        return f"{brain}{lag}; accuracy: {self.accuracy} (error {self.error:g}); {noise}; {size}"


def behaviours(cell: Cell, rng: np.random.Generator) -> tuple[Any, Any]:
    """Fits of instruction following and of accuracy, of one seed or the mean of several."""
    u, error = unit(cell.n), np.full(cell.n, cell.error / np.sqrt(cell.seeds))
    noise = rng.standard_normal((2, cell.seeds, cell.n))
    form = np.interp(u, *FORM) + 0.01 * noise[0]
    right = np.interp(u, *ACCURACIES[cell.accuracy]) + cell.error * noise[1]
    curves = (form, right) if cell.seeds > 1 else (form[0], right[0])
    first, second = (fit_transitions(grid(cell.n), curve, error, **SETTING) for curve in curves)
    return first, second


def simulate(cell: Cell, rng: np.random.Generator, others: tuple[Any, Any]) -> np.ndarray:
    """Which of the phases are found, and whether all are: (4,) of 0 and 1."""
    t, u, late = grid(cell.n), unit(cell.n), cell.lag / np.ptp(log_tokens(grid(cell.n)))
    if isinstance(cell.brain, str):
        truth = np.interp(u - late, *BRAINS[cell.brain])
    else:
        truth = np.interp(u - late, *RISE) + cell.brain * np.interp(u, *DIP)
    own = []
    for _ in range(cell.seeds):
        rows = autocorrelated(rng, (1 if cell.shared else cell.subjects, cell.n), cell.rho)
        # Shared noise comes beside the subjects' own.
        own.append(0.5 * rows + 0.5 * rng.standard_normal((cell.subjects, cell.n)) if cell.shared else rows)
    brain = truth + (np.stack([seed.mean(axis=0) for seed in own]) if cell.seeds > 1 else own[0])
    found = judge(fit_transitions(t, brain, **SETTING), *others, seeds=cell.seeds).table["found"].to_numpy(dtype=int)
    return np.append(found, found.min())


def _batch(cell: Cell, seed: int, simulations: int) -> np.ndarray:
    """Counts of `simulations` brains, each with one of at most 25 pairs of behaviours."""
    rng = np.random.default_rng([seed, *np.frombuffer(cell.title.encode(), dtype=np.uint8).tolist()])
    others = [behaviours(cell, rng) for _ in range(min(25, simulations))]
    return np.sum([simulate(cell, rng, others[i % len(others)]) for i in range(simulations)], axis=0)


def shares(cells: Sequence[Cell], simulations: int) -> list[np.ndarray]:
    """Share of the simulations of each cell in which each phase, and all, are found: (4,) each."""
    tasks = [(cell, part) for cell in cells for part in range(4)]
    many = -(-simulations // 4)
    found = dict.fromkeys(cells, np.zeros(4))
    with ProcessPoolExecutor() as pool:
        for (cell, _), hits in zip(
            tasks, pool.map(_batch, *zip(*tasks, strict=True), [many] * len(tasks)), strict=True
        ):
            found[cell] = found[cell] + hits / (4 * many)
            say(f"{cell.title}: {hits} of {many}")
    return [found[cell] for cell in cells]


# ------------------------------------------------------------------------------- false alarms

OWN, SHARED = ((0.0, False), (0.5, False), (0.8, False)), ((0.5, True), (0.8, True))


def nulls() -> list[tuple[Cell, tuple[int, ...]]]:
    """Cells, and which phases (1, 2, 3; 4: all three) are not in them."""
    cells: list[tuple[Cell, tuple[int, ...]]] = []
    for rho, shared in OWN + SHARED:
        for brain, absent in (("flat", (1, 2, 3, 4)), ("saturating", (2, 3, 4)), ("straight line", (1, 2, 3, 4))):
            for seeds in (1, 3, 5) if shared else (1,):
                cells.append((Cell(brain, "plateau", seeds=seeds, rho=rho, shared=shared), absent))
    for n in (12, 40):
        for brain, absent in (("flat", (1, 2, 3, 4)), ("saturating", (2, 3, 4)), ("late", (1, 2, 3, 4))):
            cells.append((Cell(brain, "plateau", n=n), absent))
        cells.append((Cell("saturating", "plateau", n=n, rho=0.8, shared=True), (2, 3, 4)))
        cells.append((Cell("saturating", "plateau", n=n, subjects=3, rho=0.5), (2, 3, 4)))
    cells.append((Cell("late", "plateau"), (1, 2, 3, 4)))
    cells.append((Cell("V", "plateau"), (1, 2, 4)))
    for accuracy in ACCURACIES:
        if not accuracy.startswith("plateau"):
            cells += [(Cell(3.0, accuracy, n=n), (2, 4)) for n in (20, 40)]
    return cells


def false_alarms(simulations: int) -> list[Row]:
    asked = nulls()
    rows = []
    for (cell, absent), share in zip(asked, shares([cell for cell, _ in asked], simulations), strict=True):
        for phase in absent:
            most = 0.07 if cell.seeds < 3 else 0.01 if phase == 4 else 0.05
            goal = f"<= {most:g}"
            title = f"false alarms, {PHASES[phase - 1]}: {cell.title}"
            rows.append(Row(title, float(share[phase - 1]), "share", goal, bool(share[phase - 1] <= most)))
    return rows


# -------------------------------------------------------------------------------------- power

DEPTHS = (0.5, 1.0, 2.0, 3.0, 5.0)


def power(simulations: int) -> tuple[list[Row], list[dict[str, float]]]:
    rows = []
    for n in (12, 20, 40):
        cells = [Cell(depth, "plateau", n=n) for depth in DEPTHS]
        found = [float(share[1]) for share in shares(cells, simulations)]
        for cell, share in zip(cells, found, strict=True):
            asked = cell.n == 20 and cell.brain == 2.0
            goal, met = (">= 0.8", share >= 0.8) if asked else ("", None)
            rows.append(Row(f"phase 2 found: {cell.title}", share, "share", goal, met))
        drop = max(max(found[: i + 1]) - later for i, later in enumerate(found))
        least = 2 * float(np.sqrt(0.25 / simulations))
        rows.append(Row(f"phase 2, n = {n}: largest drop with depth", drop, "share", f"<= {least:.2g}", drop <= least))
    more = [
        (Cell(2.0, "plateau", error=0.02), 2),
        (Cell(3.0, "plateau", rho=0.8, shared=True), 2),
        (Cell(3.0, "plateau", seeds=5, rho=0.8, shared=True), 2),
        (Cell(2.0, "plateau", subjects=3), 2),
        (Cell(3.0, "plateau at chance"), 2),
        (Cell(3.0, "plateau"), 3),
        *((Cell("saturating", "plateau", n=n, lag=lag), 1) for n in (20, 40) for lag in (0.0, 0.35, 0.7, 1.0)),
    ]
    for (cell, phase), share in zip(more, shares([cell for cell, _ in more], simulations), strict=True):
        goal = {0.0: 0.9, 0.7: 0.07, 1.0: 0.07}.get(cell.lag) if phase == 1 else None
        value = float(share[phase - 1])
        met = None if goal is None else value >= goal if goal > 0.5 else value <= goal
        said = "" if goal is None else f"{'>=' if goal > 0.5 else '<='} {goal:g}"
        rows.append(Row(f"{PHASES[phase - 1]} found: {cell.title}", value, "share", said, met))
    depths, designs = (0, 1, 2, 3, 4, 6, 10), product((12, 20, 40), (1, 3, 6))
    few = max(5, simulations // 10)
    table = pd.concat([detachment_power(depths, *design, n_simulations=few) for design in designs])
    return rows, table.to_dict("records")


# ----------------------------------------------------------------------------------- coverage


def dated(n: int, rho: float, sharp: float, subjects: int, seed: int, simulations: int) -> tuple[int, int]:
    """Of so many rises at a random date, how many are found, and how many intervals hold the date."""
    rng, t = np.random.default_rng([seed, n, subjects, int(10 * rho)]), grid(n)
    x, inside, found = log_tokens(t), 0, 0
    for _ in range(simulations):
        date = rng.uniform(7.2, 8.8)
        truth = 1 / (1 + np.exp(-(x - date) / sharp))
        noise = 0.05 * np.sqrt(subjects) * autocorrelated(rng, (subjects, n), rho)
        rises = fit_transitions(t, truth + noise if subjects > 1 else truth + noise[0], max_changes=4).rises
        if rises:
            rise = max(rises, key=lambda move: move.height)
            found += 1
            inside += bool(rise.midpoint_low <= 10**date <= rise.midpoint_high)
    return inside, found


def peaked(n: int, rho: float, seed: int, simulations: int) -> tuple[int, int]:
    """The same for the date of a rounded maximum with unequal sides."""
    rng, t = np.random.default_rng([7, seed, n, int(10 * rho)]), grid(n)
    x, inside, found = log_tokens(t), 0, 0
    for _ in range(simulations):
        date = rng.uniform(7.5, 8.5)
        away = x - date
        truth = -0.3 * np.where(away < 0, away**2, 0.5 * away**2)
        falls = fit_transitions(t, truth + 0.02 * autocorrelated(rng, (1, n), rho)[0], max_changes=4).falls
        turned = [fall for fall in falls if np.isfinite(fall.turn)]
        if turned:
            fall = min(turned, key=lambda move: move.height)
            found += 1
            inside += bool(fall.turn_low <= 10**date <= fall.turn_high)
    return inside, found


def curves_of(quick: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Real learning curves of 24 to 51 checkpoints: name -> tokens or steps (n,), values (n,) or (replicates, n)."""
    data, found = ROOT / "book" / "data", {}
    scores = pd.read_csv(data / "pythia" / "zero_shot.csv").query("metric == 'acc'")
    blimp = pd.read_csv(data / "blimp_seeds" / "accuracy.csv")
    bert = pd.read_csv(data / "bert_fmri" / "decoding.csv").query("model != '_'")
    for table, axis, by, over in (
        (scores, "tokens", ["model", "task"], "metric"),
        (blimp, "tokens", ["field", "phenomenon", "seed"], "seed"),
        (bert, "step", ["model", "run"], "subject"),
    ):
        for names, rows in table.groupby(by):
            wide = rows.pivot(index=over, columns=axis, values="value").dropna(axis=0)
            found[", ".join(map(str, names))] = wide.columns.to_numpy(float), wide.to_numpy().squeeze()
    return dict([*found.items()][:: 8 if quick else 1])


def thinned(item: tuple[str, tuple[np.ndarray, np.ndarray]], kept: int, draws: int) -> tuple[int, int]:
    """Of so many thinnings of a real curve to `kept` checkpoints, how many intervals hold the date of the whole one.

    Only curves whose largest move is beyond chance (p <= .01) and dated, and thinnings that find a move of its kind.
    """
    name, (tokens, values) = item
    whole = fit_transitions(tokens, values, max_changes=4)
    moves = [m for m in whole.moves if np.isfinite(m.midpoint_low) and whole.p(m) <= 0.01]
    if not moves or tokens.size <= kept:
        return 0, 0
    largest = max(moves, key=lambda move: abs(move.height))
    rng, inside, found = np.random.default_rng([3, len(name), kept]), 0, 0
    for _ in range(draws):
        inner = np.sort(rng.choice(np.arange(1, tokens.size - 1), kept - 2, replace=False))
        at = np.concatenate([[0], inner, [tokens.size - 1]])
        fit = fit_transitions(tokens[at], values[..., at], max_changes=4)
        alike = [m for m in fit.moves if m.kind == largest.kind]
        if alike:
            move = max(alike, key=lambda move: abs(move.height))
            found += 1
            inside += bool(move.midpoint_low <= largest.midpoint <= move.midpoint_high)
    return inside, found


def coverage(simulations: int, quick: bool) -> list[Row]:
    """Intervals of dates over the truth, at the simulated dates and at those of the whole curve."""
    rows = []

    def add(title: str, counts: Sequence[tuple[int, int]], goal: float | None) -> None:
        inside, found = np.sum(counts, axis=0)
        share = float(inside / found) if found else float("nan")
        said = "" if goal is None else f">= {goal:g}"
        rows.append(Row(f"{title} ({found} dates)", share, "share", said, None if goal is None else share >= goal))
        say(f"{title}: {share:.3f} of {found}")

    with ProcessPoolExecutor() as pool:
        many = -(-simulations // 4)
        for n in (12, 20, 40):
            for rho in (0.0, 0.5, 0.8):
                for sharp in (0.02, 0.2):
                    parts = pool.map(partial(dated, n, rho, sharp, 1, simulations=many), range(4))
                    how = "sharp" if sharp < 0.1 else "smooth"
                    goal = 0.9 if rho < 0.8 else None
                    add(f"date covered, {how} rise, AR {rho:g}, n = {n}, one curve", [*parts], goal)
                parts = pool.map(partial(peaked, n, rho, simulations=many), range(4))
                add(f"peak covered, AR {rho:g}, n = {n}", [*parts], 0.9 if rho < 0.8 else None)
            parts = pool.map(partial(dated, n, 0.0, 0.2, 6, simulations=many), range(4))
            add(f"date covered, smooth rise, n = {n}, six subjects", [*parts], 0.9)
        real = curves_of(quick)
        for kept in (12, 20, 30):
            parts = pool.map(partial(thinned, kept=kept, draws=3 if quick else 10), real.items())
            add(f"date covered, real curves thinned to {kept} checkpoints", [*parts], 0.9)
    return rows


# -------------------------------------------------------------------------------------- speed


def fastest(run: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def speed(repeats: int, quick: bool) -> list[Row]:
    rng, t = np.random.default_rng(4), grid(27)
    x = log_tokens(t)
    four = np.interp(x, [7.2, 8.2, 8.7, 9.3], [0.0, 1.0, 1.0, 0.4]) + 0.02 * rng.standard_normal(27)
    assert len(fit_transitions(t, four, max_changes=4).knots) == 4
    seconds = fastest(lambda: fit_transitions(t, four, max_changes=4, n_bootstrap=2000), repeats)
    rows = [Row("2,000 bootstrap fits, 27 points, up to 4 changes", seconds, "s, one core", "<= 2", seconds <= 2)]
    many = 100 if quick else 1134
    table: dict[str, Any] = {"tokens": np.tile(t, many), "curve": np.repeat(np.arange(many), 27).astype(str)}
    table["value"] = np.tile(four, many) + 0.05 * rng.standard_normal(27 * many)
    start = time.process_time()
    fit_table(pd.DataFrame(table), by=["curve"])
    seconds = (time.process_time() - start) * 1134 / many
    rows.append(
        Row(f"a table of 1,134 curves of 27 points ({many} run)", seconds, "s, one core", "<= 40", seconds <= 40)
    )
    return rows


def main() -> None:
    more = {"simulations": {"type": int, "default": 0, "help": "per cell; default 1000, with --quick 8"}}
    options = arguments(__doc__ or "", **more)
    simulations = options.simulations or (8 if options.quick else 1000)
    rows = speed(2 if options.quick else 4, options.quick)
    rows += coverage(simulations // 2, options.quick)
    more_rows, table = power(simulations)
    rows += more_rows + false_alarms(simulations)
    finish("phases", rows, options, power=table)


if __name__ == "__main__":
    main()
