"""Transitions of learning curves: where a curve rises and falls, with intervals; of one curve or a whole table."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby, islice
from math import isnan, nan
from types import SimpleNamespace
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from phaselab.curves import amount, complete, each_row
from phaselab.errors import expect, number_of
from phaselab.phases import fit as pieces
from phaselab.phases.fit import Array, Pieces, log_tokens
from phaselab.results import numbers

__all__ = ["MOVE_COLUMNS", "FittedTable", "Transitions", "fit_table", "fit_transitions"]

#: What a move is told by, and the ends of the 95 % interval that each estimate has as columns of its own.
QUANTITIES = ("onset", "liftoff", "midpoint", "landing", "end", "turn", "height", "steepness")
ENDS = ("", "_low", "_high")
#: What `fit_table` says of one rise or fall; dates in the unit of x, heights in that of y.
MOVE_COLUMNS = ("kind", *(q + end for q in QUANTITIES for end in ENDS), "censored", "p", "q", "statement", "notes")
#: Share of a move's height that a piece carries at least for the move to lift off or land with it.
CARRIED = 0.2
#: Fits with another number of change points are heard on dates if their BIC is that close (odds of about 1 to 20).
RIVAL = 6.0


@dataclass(frozen=True)
class Transitions:
    """The transitions of one curve: change points (`knots`), the pieces between them, rises and falls (`moves`).

    A move is a run of pieces of one `kind` (``rise`` or ``fall``), told by `QUANTITIES`, each with its 95 % interval
    (``onset_low``, ``onset_high``); positions are in tokens. `onset` is where the curve leaves its baseline;
    `liftoff` where the first piece begins, and `landing` where the last one ends, that is half as steep as the steepest
    (of pieces that carry a fifth of the height: a slow drift, or a wiggle afterwards, moves neither); `midpoint`
    where half of `height` (signed, in units of the value) is done, `end` where it stops, `turn` the maximum or minimum
    from which it leaves an opposite move before; `steepness` is the steepest slope per decade. A place at the first or
    last checkpoint is no date: its interval is NaN. No interval ends inside the two checkpoints around its date;
    `censored` names dates that lie within the first or last three checkpoints, which may be earlier or later still.
    """

    decided: bool  # False where the input is too poor for any answer; `statement` then says why
    tokens: Array  # (n,) sorted, duplicates averaged
    values: Array
    fitted: Array
    statement: str  # the outcome in one sentence
    notes: tuple[str, ...] = ()  # what was done to the input (duplicates averaged, missing values dropped)
    knots: tuple[float, ...] = ()  # change points, tokens
    kinds: tuple[str, ...] = ()  # of the pieces: "rise", "fall" or "flat"
    heights: tuple[float, ...] = ()  # fitted, at the first checkpoint, the change points and the last checkpoint
    moves: tuple[Any, ...] = ()
    replicates: Array | None = None  # (n_replicates, n)
    grid: tuple[tuple[float, ...], int] = field(default=((), 0), repr=False)  # arguments of `grid_of`
    floor: float = 0.0  # root mean square of the standard errors that came with the values

    @property
    def rises(self) -> list[Any]:
        """The moves that rise."""
        return [move for move in self.moves if move.kind == "rise"]

    @property
    def falls(self) -> list[Any]:
        """The moves that fall."""
        return [move for move in self.moves if move.kind == "fall"]

    def place(self, tokens: npt.ArrayLike) -> Array:
        """log10 of token counts, with 0 where it lies among these checkpoints (`log_tokens`)."""
        return log_tokens(tokens, among=self.tokens)

    def at(self, tokens: npt.ArrayLike) -> Array:
        """The fitted curve at any token counts inside the range of the data."""
        corners = self.place([self.tokens[0], *self.knots, self.tokens[-1]])
        return np.asarray(np.interp(self.place(tokens), corners, self.heights))

    @cached_property
    def _noise(self) -> tuple[float, float, float]:
        """Standard deviation, at least that which is known, autocorrelation, and the share common to replicates."""
        grid, (first, last) = pieces.grid_of(*self.grid), self.place(self.tokens[[0, -1]])
        (sigma,), (rho,) = pieces.residual_noise(grid, self.values[None])
        knots, noise = (self.place(self.knots) - first) / (last - first), max(float(sigma), self.floor)
        shared = pieces.shared_noise(grid, knots, self.values - self.fitted, self.replicates, self.grid[1])
        return noise if noise > 1e-9 * np.ptp(self.values) else 0.0, float(rho), shared

    @property
    def scatter(self) -> float:
        """Standard deviation of the noise, of which no bend that the fit has missed is a part.

        By second differences (Gasser, Sroka and Jennen-Steinmetz 1986), their median, corrected for autocorrelation; at
        least what the standard errors say.
        """
        rho = np.clip(self._noise[1], 0.0, 0.9)
        rough = float(np.median(np.abs(np.diff(self.values, 2)))) / 0.6745
        return max(rough / float(np.sqrt(6 - 8 * rho + 2 * rho**2)), self.floor)

    @property
    def detectable(self) -> float:
        """The smallest move that would have been found in four of five curves like this one, by rough estimate.

        The larger of what the noise of the mean allows and what replicates do that differ in their gain from the first
        quarter of the checkpoints to the last.
        """
        if not self.decided or np.ptp(self.values) == 0:
            return nan
        (sigma, rho, _), many, longest = self._noise, self.tokens.size // 4, pieces.windows_of(self.tokens.size)[-1]
        critical = np.interp(rho, pieces.RHOS, np.quantile(pieces.null_of(*self.grid)[0], 0.95, axis=1))
        least = float((critical + stats.norm.ppf(0.8)) * sigma * np.sqrt(2 / longest))
        if self.replicates is None or len(self.replicates) < 2:
            return least
        gains = self.replicates[:, -many:].mean(axis=1) - self.replicates[:, :many].mean(axis=1)
        t = stats.t.ppf([0.975, 0.8], gains.size - 1).sum()
        return max(least, float(t * stats.sem(gains)))

    def p(self, move: Any) -> float:
        """P of a curve that never moves so, from the opposite move before to the opposite one after.

        By its deepest fall. As far as replicates share their noise they are as one curve, whose autocorrelation is read
        with caution; many must also fall when they were left out of the choice of where. NaN below four checkpoints.
        """
        others = [other for other in self.moves if other.kind != move.kind]
        start = max((other.onset for other in others if other.onset < move.onset), default=self.tokens[0])
        stop = min((other.end for other in others if other.end > move.end), default=self.tokens[-1])
        inside = (self.tokens >= start) & (self.tokens <= stop)
        if inside.sum() < 4:
            return nan
        (sigma, rho, shared), sign = self._noise, -1.0 if move.kind == "rise" else 1.0
        (fall,), null = pieces.deepest_fall(sign * self.values[None, inside]), pieces.NULLS + 1.0
        if sigma == 0:
            return 1.0 / null if fall > 0 else 1.0
        falls, rhos = pieces.null_of(*self.grid)
        at = (1.0 + (falls >= fall / sigma).sum(axis=1)) / null  # (n_rhos,)
        low = np.maximum.accumulate(np.quantile(rhos, pieces.CAUTION, axis=1))
        plain, careful = max(rho, 0.0), np.interp(rho, low, pieces.RHOS)
        p = float(np.interp(plain + shared * (careful - plain), pieces.RHOS, at))
        if self.replicates is None or len(self.replicates) < pieces.MANY:
            return p
        return max(p, pieces.left_out(sign * self.replicates[:, inside]))


def _clean(
    tokens: npt.ArrayLike, values: npt.ArrayLike, stderr: Array
) -> tuple[Array, Array, Array | None, Array | None, list[str]]:
    """Ascending distinct tokens, finite values, their standard errors and replicates, and what was done to them."""
    t, v = np.asarray(tokens, dtype=float), np.asarray(values, dtype=float)
    for name, array in (("values", v), ("stderr", stderr)):
        expect(array.shape[-1:] == t.shape, name, f"shape {array.shape}", f"that of tokens, {t.shape}, last")
    several = np.atleast_2d(v if v.ndim == 1 or len(v) else np.full(t.shape, nan))  # replicates that there are none of
    v = several.mean(axis=0)
    notes, keep = [], np.isfinite(t) & np.isfinite(several).all(axis=0)
    if not keep.all():
        notes.append(f"{number_of((~keep).sum(), 'checkpoint')} with missing values dropped")
    unique, place, count = np.unique(t[keep], return_inverse=True, return_counts=True)
    if shared := place.size - unique.size:
        notes.append(f"{number_of(shared, 'checkpoint')} with the tokens of another, averaged")
    means = np.eye(unique.size)[place] / count  # (n, n_unique): each column averages those that share their tokens
    e, known = stderr[keep], np.isfinite(stderr[keep])
    error = np.sqrt((np.where(known, e, np.nanmedian(e)) ** 2 @ means) / count) if known.any() else None
    own, v = several[:, keep] @ means if len(several) > 1 else None, v[keep] @ means
    good = ~_alone(v)
    alone = zip(v[~good], unique[~good], strict=True)
    notes += [f"{x:.3g} at {amount(at)} left out: the checkpoints around it are elsewhere" for x, at in alone]
    return unique[good], v[good], error if error is None else error[good], own if own is None else own[:, good], notes


def _alone(v: Array) -> npt.NDArray[np.bool_]:
    """Checkpoints (n,) that alone are far from their four neighbours: ten standard deviations of those, or more."""
    if v.size < 7:
        return np.zeros(v.size, dtype=bool)
    near = np.delete(np.lib.stride_tricks.sliding_window_view(v, 5), 2, axis=1)
    far, spread = np.abs(v[2:-2] - np.median(near, axis=1)), np.ptp(near, axis=1)  # a range of four is about two sd
    rest = np.array([np.ptp(np.delete(v, i)) for i in range(2, v.size - 2)])
    return np.pad(far > np.maximum(5 * np.maximum(spread, np.median(spread)), rest / 2), 2)


def _turn(x: Array, curve: Array, noise: Array, start: float, stop: float, sign: float) -> tuple[float, Array, float]:
    """Where a curve (n,) is highest (`sign` 1) or lowest (-1) between two positions, samples of that, where it is seen.

    By a cubic, whose sides may differ, through the extreme checkpoint and the nearest others: six, or as many more as
    it takes until it bends by six times the noise. Samples scatter as the checkpoints do, if that is more than noise.
    """
    inside = np.flatnonzero((x >= start) & (x <= stop))
    centre = x[inside[(sign * curve[inside]).argmax()]] if inside.size else 0.5 * (start + stop)
    order = np.argsort(np.abs(x - centre), kind="stable")
    for m in range(6, x.size + 1):
        near = np.sort(order[:m])
        at = x[near] - centre
        basis = np.vander(at, 4, increasing=True)
        back = np.linalg.pinv(basis)  # (4, m)
        own, spread = back @ curve[near], float(noise[:, near].std())
        if -sign * own[2] * np.ptp(at) ** 2 / 4 >= 6 * spread:
            break
    apart = np.sqrt(((curve[near] - basis @ own) ** 2).sum() / max(m - 4, 1))
    several = np.vstack([own, own + noise[:, near] @ back.T * max(1.0, apart / spread if spread else 1.0)])
    fine = np.linspace(at[0], at[-1], 401)
    places = centre + fine[(sign * several @ np.vander(fine, 4, increasing=True).T).argmax(axis=1)]
    return float(places[0]), places[1:], float(centre)


def _described(
    x: Array, y: Array, noise: Array, fits: list[Pieces], place: Callable[[float], float], units: Array, least: float
) -> dict[str, Any]:
    """Change points, pieces, moves of a curve: `fits` are it, its samples and rivals; `units` of value and slope."""
    own, boot, *rivals = fits
    corners, ends = np.array([[0.0, *own.knots[0], 1.0]]), np.tile([0.0, *own.knots[0], 1.0], (len(boot.knots), 1))
    if own.knots.size:
        # A sample's change point for each of the fit is the nearest that can be one of its bend: by their order alone,
        # one that a sample puts elsewhere would shift the names of all after it.
        far = np.abs(boot.knots[:, None, :] - own.knots[:, :, None])  # (draws, k of the fit, k of the sample)
        other = np.sign(boot.coefficients[:, None, 2:]) != np.sign(own.coefficients[:, 2:, None])
        ends[:, 1:-1] = np.take_along_axis(boot.knots, (far + 10.0 * other).argmin(axis=2), axis=1)

    def date(position: float, sample: Array, *others: float) -> tuple[float, float, float]:
        if not 0 < position < 1:
            return place(position), nan, nan
        low, high = np.quantile(sample, [0.025, 0.975])
        for inner in (position, *others):  # the truth may lie anywhere between the checkpoints beside it
            low, high = min(low, *x[x < inner - 1e-9][-1:], 1.0), max(high, *x[x > inner + 1e-9][:1], 0.0)
        return place(position), place(0.0 if position <= x[2] else low), place(1.0 if position >= x[-3] else high)

    dates, heights = [*map(date, corners[0], ends.T)], own.heights(corners)[0]  # (k + 2,)
    # A sample's slope of a piece is taken between its own matched corners; where those are out of order, between the
    # fit's corners.
    apart, lengths = np.diff(ends, axis=1), np.diff(corners[0])
    matching = np.diff(boot.heights(ends), axis=1) / np.maximum(apart, 1e-9)
    slopes = np.where(apart > 1e-9, matching, np.diff(boot.heights(corners), axis=1) / lengths)  # (draws, k + 1)
    low, high = np.quantile(slopes, [0.025, 0.975], axis=0)
    kinds = tuple(np.where(low > 1e-6, "rise", np.where(high < -1e-6, "fall", "flat")).tolist())
    changed, moves, before, last = np.abs(np.diff(heights)), [], "", nan
    for kind, group in groupby(range(len(kinds)), key=kinds.__getitem__):
        run = [*group]
        a, b, upward = run[0], run[-1] + 1, 1.0 if kind == "rise" else -1.0
        whole = abs(heights[b] - heights[a])
        if kind == "flat" or whole * units[0] < least:
            continue
        traced = own.traced(corners[:, a], corners[:, b], upward), boot.traced(ends[:, a], ends[:, b], upward)
        ((middle,), middles), ((steepest,), steeps), ((height,), heighted) = zip(*traced, strict=True)
        halves = [rival.traced(corners[:, a], corners[:, b], upward) for rival in rivals]
        carried = [i for i in run if changed[i] >= CARRIED * whole] or run
        fast = [i for i in carried if changed[i] / lengths[i] >= max((changed / lengths)[carried]) / 2]
        told = {
            "onset": dates[a],
            "liftoff": dates[fast[0]],
            "midpoint": date(middle, middles, *(half[0] for half, _, rise in halves if upward * rise[0] > 0)),
            "landing": dates[fast[-1] + 1],
            "end": dates[b],
            "turn": (nan,) * 3 if before in ("", kind) else date(*_turn(x, y, noise, last, middle, -upward)),
            "height": np.array([height, *np.quantile(heighted, [0.025, 0.975])]) * units[0],
            "steepness": np.array([steepest, *np.quantile(steeps, [0.025, 0.975])]) * units[1],
        }
        before, last = kind, middle
        fields = {q + end: float(v) for q, three in told.items() for end, v in zip(ENDS, three, strict=True)}
        at = {"onset": corners[0, a], "end": corners[0, b]}
        censored = ", ".join(name for name, c in at.items() if 0 < c <= x[2] or x[-3] <= c < 1)
        moves.append(SimpleNamespace(kind=kind, **fields, censored=censored))
    knots = tuple(date[0] for date in dates[1:-1])
    return {"knots": knots, "moves": tuple(moves), "kinds": kinds, "heights": heights}


def fit_transitions(
    tokens: npt.ArrayLike,
    values: npt.ArrayLike,
    stderr: npt.ArrayLike | None = None,
    max_changes: int = 3,
    n_bootstrap: int = 200,
    penalty: float = pieces.COST,
    axis: str = "tokens",
    min_effect: float = 0.0,
) -> Transitions:
    """Where a learning curve changes: continuous piecewise-linear in log10 tokens.

    tokens : (n,) training tokens, 0 allowed, in any order; with fewer than 6 different ones nothing is decided.
    values : (n,) the measure; or (n_replicates, n) the measure in subjects, seeds or items, whose mean is fitted and
        over which intervals are bootstrapped.
    stderr : (n,) standard error of the measure, the least noise assumed.
    max_changes : most change points tried, and at most one for every 4 checkpoints.
    n_bootstrap : bootstrap samples for the intervals, refitted with the chosen number of change points.
    penalty : parameters that a change point counts as in BIC, whose minimum says how many there are.
    axis : what `tokens` counts, for the statement: ``"steps"`` where it is steps.
    min_effect : the smallest height, in units of the value, that counts as a rise or fall.
    """
    e = np.full(np.shape(tokens), nan) if stderr is None else np.asarray(stderr, dtype=float)
    at, v, error, own, notes = _clean(tokens, values, e)
    n = v.size
    if n < 6:
        many = number_of(n, "checkpoint")
        why = f"Not decided: {many} with values at distinct tokens; a change point needs at least 6."
        return Transitions(False, at, v, np.full(n, nan), why, tuple(notes), replicates=own)
    where = log_tokens(at)
    centre, scale = float(v.mean()), float(np.ptp(v))  # values on one scale make tolerances relative
    constant = scale <= 1e-12 * max(1.0, abs(centre))
    scale = 1.0 if constant else scale
    setting = tuple(where.tolist()), 0 if constant else min(max_changes, n // pieces.PER_CHANGE)
    grid, y = pieces.grid_of(*setting), (v - centre) / scale
    fits = pieces.fit_each(grid, y)
    # Without any noise the sum of squares is rounding error, which must not choose.
    rss = np.array([fit.rss[0] if fit.rss[0] > 1e-20 * n else 0.0 for fit in fits])
    floor = 1e-20 if error is None else max(float((error**2).mean()) / scale**2, 1e-20)
    cost = np.minimum(np.arange(len(fits)), setting[1])  # a jump between two checkpoints counts as one change point
    criterion = pieces.bic(rss, n, cost, floor, penalty)
    chosen = int(criterion.argmin())
    best, span = fits[chosen], float(where[-1] - where[0])
    close = [fits[i] for i in np.flatnonzero(criterion <= criterion[chosen] + RIVAL) if i != chosen]
    degrees = max(n - 2 - pieces.DEGREES * cost[chosen], 1.0)
    scaled = None if error is None else error / scale, None if own is None else (own - centre) / scale
    noise = pieces.bootstrap_noise(grid.x, best, degrees, *scaled, n_bootstrap, [0, n, chosen])
    fitted = y - best.residuals[0]
    boot = pieces.fit_exactly(pieces.grid_of(setting[0], chosen), fitted + noise, near=best.knots)

    def place(position: float) -> float:
        inside = 0 < position < 1  # the ends are the table's own
        return float(10 ** (where[0] + span * position) if inside else at[0 if position <= 0 else -1])

    units = np.array([scale, scale / span])
    told = _described(grid.x, y, noise, [best, boot, *close], place, units, min_effect)
    told["heights"] = tuple(told["heights"] * scale + centre)
    said = _sentence(told["kinds"], told["moves"], axis, min_effect)
    known = float(np.sqrt(np.nanmean(e**2))) if np.isfinite(e).any() else 0.0
    return Transitions(
        True, at, v, fitted * scale + centre, said, tuple(notes), **told, replicates=own, grid=setting, floor=known
    )


def _sentence(kinds: Sequence[str], moves: Sequence[Any], unit: str, least: float) -> str:
    if not moves and {*kinds} != {"flat"}:
        return f"No transition: the curve moves, but no rise or fall reaches {least:g}, the smallest that counts."
    if len(kinds) == 1:
        trend = "is flat" if kinds[0] == "flat" else f"{kinds[0]}s steadily"
        return f"No transition: the curve {trend} over all of training."
    if not moves:
        return "No transition: slopes differ, but no piece rises or falls beyond its interval."
    parts = []
    for move in moves:
        since = f"from {amount(move.onset)} {unit} ({amount(move.onset_low)} to {amount(move.onset_high)})"
        since = "from the first checkpoint" if isnan(move.onset_low) else since
        until = "to the last" if isnan(move.end_low) else f"to {amount(move.end)}"
        part = f"{move.kind}s {since} {until}, by {abs(move.height):.3g}"
        if (move.liftoff, move.landing) != (move.onset, move.end):
            part += f", most of it from {amount(move.liftoff)} to {amount(move.landing)}"
        if move.censored:
            part += f" (its {move.censored} lies within three checkpoints of an edge, and may be nearer to it)"
        parts.append(part)
    return f"The curve {'; then it '.join(parts)}; 95 % intervals in brackets."


class FittedTable(NamedTuple):
    """The transitions of every curve of a table: values of the columns `by` -> fit, and a table of their moves.

    `moves` has a row a rise or fall, the columns of `by` and `MOVE_COLUMNS` (see `Transitions`). A curve without moves
    has one row of kind ``flat`` or ``undecided``. ``p`` is that of `Transitions.p`; ``q`` is p after Benjamini and
    Hochberg's correction over all curves and both directions.
    """

    by: tuple[str, ...]
    fits: dict[tuple[str, ...], Transitions]
    moves: pd.DataFrame

    def parts(self, most: int = 60) -> Iterator[Self]:
        """The same by `most` curves, as many as a figure can show."""
        keys = iter(self.fits)
        while own := [*islice(keys, most)]:
            moves = pd.concat([_of_curve(self.moves, self.by, key) for key in own])
            yield self._replace(fits={key: self.fits[key] for key in own}, moves=moves)

    def sure(self, kind: str) -> pd.DataFrame:
        """The moves of a `kind` (rise, fall) that are beyond chance: q of .05 or less."""
        return self.moves[(self.moves["kind"] == kind) & (self.moves["q"] <= 0.05)]

    def returned(self) -> pd.DataFrame:
        """The falls beyond chance, with `back`: the height of the first rise beyond chance that follows; NaN: none."""
        falls, back = self.sure("fall"), []
        for _, fall in falls.iterrows():
            rises = _of_curve(self.sure("rise"), self.by, fall[[*self.by]])
            back.append(next(iter(rises.loc[rises["onset"] >= fall["midpoint"], "height"]), nan))
        return falls.assign(back=back)

    def said(self, key: tuple[str, ...]) -> str:
        """What is found of one curve, in a sentence: its moves, whether they are beyond chance, what was done to it."""
        fit, own = self.fits[key], _of_curve(self.moves, self.by, key)
        parts = []
        for m in each_row(own[own["kind"].isin(("rise", "fall"))]):
            tested = f"{'' if m.q <= 0.05 else 'not '}beyond chance (p = {m.p:.2g}, q = {m.q:.2g})"
            parts.append(f"{m.kind} {tested if m.p >= 0 else 'not tested, of too few checkpoints'}")
        tests = f" {'; '.join(parts).capitalize()}." if parts else ""
        return fit.statement + tests + (f" ({'; '.join(fit.notes)})" if fit.notes else "")


def _of_curve(moves: pd.DataFrame, by: Sequence[str], key: Iterable[str]) -> pd.DataFrame:
    return moves[(moves[[*by]] == [*key]).all(axis=1)]


def _column(table: pd.DataFrame, role: str, column: str) -> Any:
    """A column: names (n,) of `by` or `replicates`, else numbers, NaN where empty, of 0 or more but for `y`."""
    expect(column in table, role, f"no column {column!r}", f"one of {', '.join(map(str, table.columns))}")
    values, where = table[column], f"{role}: column {column!r}"
    if role in ("by", "replicates"):
        empty = int((values.isna() | (values == "")).sum())
        expect(not empty, where, number_of(empty, "empty cell"), "a name in each")
        return values.astype(str).to_numpy()
    read = numbers(values, where)
    least = np.nanmin(read, initial=0.0)
    expect(role == "y" or least == 0, where, f"{least:g}", "0 or more")
    return read


def _replicated(own: pd.DataFrame) -> tuple[Array, Array, list[str]]:
    """Tokens (n,) and values (replicates, n) of one curve, `complete`; or what all have, if that is more."""
    placed = own.dropna(subset=["x"])
    absent = len(own) - len(placed)
    notes = [f"{number_of(absent, 'row')} without a place on the axis dropped"] * (absent > 0)
    wide = placed.pivot_table(index="replicates", columns="x", values="y", dropna=False)
    if doubled := len(placed.dropna(subset=["y"])) - int(wide.notna().to_numpy().sum()):
        notes.append(f"{number_of(doubled, 'row')} with checkpoint and replicate of another, averaged")
    kept, more = complete(wide, "replicate")
    common = wide.dropna(axis=1)
    if len(kept) < len(wide) and kept.size <= common.size:  # it keeps more values
        of_all = number_of(common.shape[1], "checkpoint")
        kept, more = common, [*more[:-1], f"only the {of_all} that all replicates have"]
    return kept.columns.to_numpy(dtype=float), kept.to_numpy(dtype=float), notes + more


def fit_table(
    table: pd.DataFrame,
    x: str = "tokens",
    y: str = "value",
    by: Sequence[str] = (),
    stderr: str = "",
    replicates: str = "",
    min_effect: float = 0.0,
) -> FittedTable:
    """`fit_transitions` of every learning curve of a table, a row per checkpoint, from wherever it comes.

    x, y : columns of training tokens (or steps), 0 or more, and of the measure; rows without are dropped and noted.
    by : columns whose values together name a curve. stderr : column of the standard error of `y`, if known.
    replicates : column that tells the replicates of a curve (seeds, subjects, items) apart.
    min_effect : the smallest height that counts as a rise or fall.
    """
    expect(len(table), "table", "no rows", "one a checkpoint")
    expect(not (stderr and replicates), "stderr", repr(stderr), "none beside replicates, which tell the error")
    options = {"x": x, "y": y} | {r: c for r, c in (("stderr", stderr), ("replicates", replicates)) if c}
    asked = [x, y, *by, *[*options.values()][2:]]
    expect(len({*asked}) == len(asked), "by", f"columns {', '.join(asked)}", "distinct ones in all options")
    wrong = [column for column in by if column in MOVE_COLUMNS]
    expect(not wrong, "by", ", ".join(wrong), "none called as a column of the moves is")
    given = pd.DataFrame({role: _column(table, role, column) for role, column in options.items()})
    names = [_column(table, "by", column) for column in by]
    unit = x.replace("_", " ") + "s" * (x in ("step", "token", "word", "sample", "epoch"))
    fits: dict[Any, Transitions] = {}
    rows, untested = [], 0  # directions in which a curve shows nothing: tests that were passed up, with p = 1
    for name, own in given.groupby(names, sort=False) if by else [((), given)]:
        at, values, notes = _replicated(own) if replicates else (own["x"], own["y"], [])
        fit = fit_transitions(at, values, own.get("stderr"), max_changes=4, axis=unit, min_effect=min_effect)
        fit = fits[name] = replace(fit, notes=(*notes, *fit.notes))
        untested += fit.decided and (not fit.rises) + (not fit.falls)
        said = dict(zip(by, name, strict=True)) | {"statement": fit.statement, "notes": "; ".join(fit.notes)}
        none = {"kind": "flat" if fit.decided else "undecided"}
        rows += [said | vars(move) | {"p": fit.p(move)} for move in fit.moves] or [said | none]
    moves = pd.DataFrame(rows).reindex(columns=[*by, *MOVE_COLUMNS])
    tested = moves["p"].notna()
    if tested.any():
        everything = np.append(moves.loc[tested, "p"].to_numpy(dtype=float), np.ones(untested))
        moves.loc[tested, "q"] = stats.false_discovery_control(everything)[: tested.sum()]
    return FittedTable(tuple(by), fits, moves)
