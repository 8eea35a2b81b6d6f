"""What was read or heard, runs of timed text or of items without a time axis; its features on the TR grid, by runs."""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from scipy import sparse

from phaselab.errors import PhaselabError, expect
from phaselab.files import read_text
from phaselab.results import read_table
from phaselab.study import FeatureSpec

#: Points at which the response is evaluated within one TR before it is averaged.
HRF_OVERSAMPLING = 64
#: Share of the greatest response that counts as none when it is asked how long a TR is carried.
FAINT = 0.05
#: Parts of a TR to which the onset of an event is rounded.
EVENT_OVERSAMPLING = 16
#: TRs of all runs at most: half a day at 20 a second, and weeks at one in 2 seconds.
MOST_TRS = 10**6
#: What counts in a Praat text file, of the long format as of the short one: quoted texts and free-standing numbers.
TOKEN = re.compile(r'"((?:[^"]|"")*)"|(?<![^\s=])([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)(?!\S)|!.*')
Kind = TypeVar("Kind", str, float)


@dataclass(frozen=True)
class Run:
    """One scanning run of a stimulus, or one group of items."""

    name: str
    texts: tuple[str, ...]  # words, sentences or captions; what several annotators wrote of one moment has one onset
    onsets: np.ndarray  # (n_texts,) seconds from the start of the run's first TR, ascending; before it in a margin
    offsets: np.ndarray  # (n_texts,) seconds
    tr: float  # repetition time, seconds
    n_trs: int
    labels: pd.DataFrame  # one row per text: what is known of it (for probes, nuisance and simulated brains)
    starts: np.ndarray  # (n_texts,) True where a text begins anew, so that no left context is taken from before
    items: bool = False  # whether there is no time axis: response k belongs to text k, and the times mean nothing
    overlap: int | None = None  # TRs at its start that repeat the end of the run before; None where nobody knows
    margin: int = 0  # TRs before its first one, and after its last, of which texts count though no response is left

    def __post_init__(self) -> None:
        n = len(self.texts)
        found = {name: len(getattr(self, name)) for name in ("onsets", "offsets", "labels", "starts")}
        found |= {"n_trs": self.n_trs} if self.items else {}
        expect({*found.values()} == {n}, f"run {self.name}", found, f"{n} of each, as many as texts")
        times = np.stack([self.onsets, self.offsets]).astype(float)
        for text in np.flatnonzero(~np.isfinite(times).all(axis=0) | (times[1] < times[0]))[:1]:
            where, told = f"run {self.name}: text {text} ({self.texts[text]!r})", "onset {:g} s, offset {:g} s"
            expect(False, where, told.format(*times[:, text]), "times that are known, the offset not before the onset")
        expect((np.diff(self.onsets) >= 0).all(), f"run {self.name}: onsets", "some in disorder", "ascending order")

    def dropped(self, trim: int) -> int:
        """TRs dropped at its start by ``features.trim``: none where it is known that nothing is repeated there."""
        right = f"at least {self.overlap}, for they repeat the end of the run before"
        expect(trim >= (self.overlap or 0), f"run {self.name}: features.trim", trim, right)
        return 0 if self.overlap == 0 else trim


@dataclass(frozen=True)
class Stimulus:
    """What was read or heard."""

    name: str
    runs: tuple[Run, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (16 digits) of texts, times, labels and TR grid."""
        sha = hashlib.sha256()
        for run in self.runs:
            sha.update(repr((run.name, run.tr, run.n_trs, run.texts)).encode())
            for array in (run.onsets, run.offsets):
                sha.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
            sha.update(np.packbits(run.starts.astype(bool)).tobytes())
            sha.update(run.labels.to_csv(index=False).encode())
        return sha.hexdigest()[:16]

    @property
    def n_trs(self) -> int:
        """TRs of all runs."""
        return sum(run.n_trs for run in self.runs)

    @property
    def labels(self) -> pd.DataFrame:
        """Labels of the texts of all runs, with a column ``run``; (n_texts, n_labels + 1)."""
        return pd.concat([run.labels.assign(run=run.name) for run in self.runs], ignore_index=True)


def items(name: str, table: pd.DataFrame) -> Stimulus:
    """A stimulus without a time axis, such as sentences with a response each: one run per group of items.

    `table` has a row per item: ``item``, its name; ``text``; ``group``, whose items are never in training and test of
    one fold; and, where items are read after others of their group, ``start``: whether one is read alone. Responses
    are in the order of ``stimulus.labels["item"]``: groups as they first appear.
    """
    needed = ["item", "text", "group"]
    expect({*needed} <= {*table}, f"items of {name}: columns", ", ".join(map(str, table)), f"also {', '.join(needed)}")
    empty = table[needed].isna() | (table[needed] == "")
    wrong = np.flatnonzero(empty.any(axis=1) | table["item"].duplicated()).tolist()
    expect(not wrong, f"items of {name}: rows {wrong[:3]}", "nothing, or an item again", "distinct items with all")
    runs = []
    for group, rows in table.groupby("group", sort=False):
        onsets, texts = np.arange(float(len(rows))), tuple(rows["text"].astype(str))
        labels, starts = rows.reset_index(drop=True), rows.get("start", pd.Series(True, rows.index)).to_numpy(bool)
        runs.append(Run(str(group), texts, onsets, onsets + 1, 1.0, len(rows), labels, starts, items=True))
    return Stimulus(name, tuple(runs))


def read_words(path: Path, tr: float, n_trs: Mapping[str, int]) -> Stimulus:
    """A stimulus of the words of a table, in runs of `n_trs` TRs of `tr` seconds, in that order.

    Columns: ``word``; ``onset`` and ``offset``, seconds from the start of the run's first TR; ``run``, where there are
    several; and, where texts begin anew within a run, ``start``: 1 there, else 0.
    """
    total = sum(n_trs.values())
    expect(total <= MOST_TRS, "runs", f"{total:,} TRs", f"at most {MOST_TRS:,}")
    table = read_table(path, "word", "onset", "offset", *["run"] * (len(n_trs) > 1))
    expect(len(table), str(path), "no word", "a row for each")
    table = pd.DataFrame({"run": next(iter(n_trs)), "start": "0"}, index=table.index).assign(**table)
    times = table[["onset", "offset"]].apply(pd.to_numeric, errors="coerce")
    ends = tr * (table["run"].map(dict(n_trs)) - 1e-9)
    wrong = {
        "a word": table["word"].str.strip() == "",
        f"run as one of {', '.join(n_trs)}": ~table["run"].isin([*n_trs]),
        "seconds, the offset after the onset": ~(np.isfinite(times).all(axis=1) & (times["offset"] > times["onset"])),
        "an onset in its run": ~times["onset"].between(0, ends, inclusive="left"),
        "the onsets of a run in ascending order": times["onset"].groupby(table["run"]).diff() < 0,
        "start as 0 or 1": ~table["start"].isin(["0", "1"]),
    }
    for expected, rows in wrong.items():
        for row in np.flatnonzero(rows)[:1]:
            found = ", ".join(f"{name} {value!r}" for name, value in table.iloc[row].items())
            raise PhaselabError(f"{path}: line {row + 2}: found {found[:200]}; expected {expected}")
    runs = []
    for name, length in n_trs.items():
        own = table[table["run"] == name].reset_index(drop=True)
        onsets, offsets = own[["onset", "offset"]].to_numpy(dtype=float).T
        starts = (own["start"] == "1").to_numpy() | (own.index == 0)
        runs.append(Run(name, tuple(own["word"]), onsets, offsets, tr, length, own, starts))
    return Stimulus(path.stem, tuple(runs))


class Interval(NamedTuple):
    """One labelled stretch of a tier, in seconds, and its line in the file."""

    start: float
    end: float
    text: str
    line: int


def read_textgrid(path: Path) -> dict[str, list[Interval]]:
    """The interval tiers of a Praat TextGrid (text formats, UTF-8 or UTF-16): tier name -> intervals in order."""
    content = read_text(path)
    tokens, line, at = (match for match in TOKEN.finditer(content) if match.lastindex), 1, 0

    def take(kind: type[Kind]) -> Kind:
        nonlocal line, at
        value: object = None
        if match := next(tokens, None):
            line, at = line + content.count("\n", at, match.start()), match.start()
            value = match[1].replace('""', '"') if match.lastindex == 1 else float(match[2])
        if isinstance(value, kind) and value not in (math.inf, -math.inf):
            return value
        found, right = "the end" if value is None else repr(value), "text" if kind is str else "number"
        raise PhaselabError(f"{path}: line {line}: found {found}, expected a {right}")

    for right in ("ooTextFile", "TextGrid"):
        expect((head := take(str)) == right, f"{path}: line {line}", repr(head), f"{right!r}: a TextGrid saved as text")
    tiers: dict[str, list[Interval]] = {}
    _, _, n_tiers = (take(float) for _ in ("xmin", "xmax", "size"))
    for _ in range(int(n_tiers)):
        kind, name = take(str), take(str)
        expect(name not in tiers, f"{path}: line {line}", f"a second tier {name!r}", "distinct names")
        _, _, size = (take(float) for _ in ("xmin", "xmax", "size"))
        tier, before = list[Interval](), -math.inf
        for _ in range(int(size)):
            start = take(float)
            end = take(float) if kind == "IntervalTier" else start  # a point has no end
            tier.append(Interval(start, end, take(str).strip(), line))
            found = f"an interval from {start} to {end} s after one that ends at {before} s"
            expect(before - 1e-6 <= start <= end, f"{path}: line {line}", found, "ascending times")
            before = end
        tiers |= {name: tier} if kind == "IntervalTier" else {}
    expect(next(tokens, None) is None, f"{path}: line {line}", "more after the last tier", "as many as its sizes say")
    expect(tiers, str(path), "no interval tier", "at least one")
    return tiers


def align(values: np.ndarray, run: Run, spec: FeatureSpec) -> np.ndarray:
    """Features (n_texts, p) of a run's texts as convolved ones of its TRs; float32 (n_trs, p), or p * n_delays."""
    expected = "none, for its items have no time" if run.items else "hrf, average or stack, for its texts have times"
    fits = run.items == (spec.hemodynamics == "none")
    expect(fits, f"run {run.name}: features.hemodynamics", spec.hemodynamics, expected)
    if run.items:
        return values.astype(np.float32)
    return convolved(resample(values, run, spec.resample), run.tr, spec)[run.margin : run.margin + run.n_trs]


def carried(tr: float, spec: FeatureSpec) -> int:
    """TRs of a run, from its first one, in whose features there is a part of what is in that first one (``trim``)."""
    if spec.hemodynamics != "hrf":
        return 0 if spec.hemodynamics == "none" else 1 + max(spec.delays)
    weights = np.abs(hrf(tr))
    return int(1 + np.flatnonzero(weights > FAINT * weights.max())[-1])


def resample(values: np.ndarray, run: Run, how: Literal["mean", "sum", "lanczos"] = "mean") -> np.ndarray:
    """Features (n_texts, p) on the TR grid, with the margin on both sides; float32 (n_trs + 2 margin, p).

    Texts that begin at one moment, as those of several annotators do, count as one: their mean. A TR then takes the
    ``mean`` or the ``sum`` of the moments that begin in it, zeros when there is none; or (``lanczos``) of all moments
    ``sinc(x) sinc(x / 3)`` for ``|x| < 3``, x being the TRs from the middle of the text to that of the TR (Huth et al.
    2016, doi:10.1038/nature17637), which is not causal: a text reaches up to three TRs into its past.
    """
    moments, at, n = values.astype(np.float64), tr_of_texts(run) + run.margin, run.n_trs + 2 * run.margin
    middles = (np.asarray(run.onsets, dtype=float) + run.offsets) / 2
    _, first, group, counts = np.unique(run.onsets, return_index=True, return_inverse=True, return_counts=True)
    if len(first) < len(at):
        together = sparse.csr_array((1 / counts[group], (group, np.arange(len(group)))))
        moments, at, middles = together @ moments, at[first], together @ middles
    if how == "lanczos":
        x = np.arange(n)[:, None] - run.margin + 0.5 - middles / run.tr
        weights = sparse.csr_array(np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0))
    else:
        weights = sparse.csr_array((np.ones(len(at)), (at, np.arange(len(at)))), shape=(n, len(at)))
    grid = np.asarray(weights @ moments)
    if how == "mean":
        grid /= np.maximum(np.bincount(at, minlength=n), 1)[:, None]
    return grid.astype(np.float32)


def tr_of_texts(run: Run) -> np.ndarray:
    """(n_texts,) index of the TR in which each text begins; an onset outside the run and its margin is refused."""
    at, low, high = _steps(run, run.tr), -run.margin, run.n_trs + run.margin
    for text in np.flatnonzero((at < low) | (at >= high)):
        where, found = f"run {run.name}: text {text} ({run.texts[text]!r})", f"onset {run.onsets[text]:.3f} s"
        raise PhaselabError(f"{where}: found {found}, expected one from {0 + low * run.tr:g} to {high * run.tr:g} s")
    return at


def _steps(run: Run, step: float) -> np.ndarray:
    # The small number keeps an onset on an edge in the step that begins when `step` has no exact binary form.
    return np.floor(np.asarray(run.onsets, dtype=float) / step + 1e-9).astype(np.int64)


def word_rate(run: Run) -> np.ndarray:
    """Texts that begin in each TR; float32 (n_trs, 1), not convolved."""
    at = tr_of_texts(run)
    return np.bincount(at[(at >= 0) & (at < run.n_trs)], minlength=run.n_trs).astype(np.float32)[:, None]


def convolved(series: np.ndarray, tr: float, spec: Any) -> np.ndarray:
    """A run (n_trs, p) with a spec's haemodynamics: ``delays`` move it, zeros before it; averaged, or side by side."""
    if spec.hemodynamics in ("none", "hrf"):
        return series if spec.hemodynamics == "none" else convolve(series, tr)
    expect(spec.delays and min(spec.delays) >= 0, "features.delays", spec.delays, "at least one number of TRs >= 0")
    shifted = [np.pad(series, ((delay, 0), (0, 0)))[: len(series)] for delay in spec.delays]
    return np.mean(shifted, axis=0) if spec.hemodynamics == "average" else np.concatenate(shifted, axis=1)


def convolve(series: np.ndarray, tr: float, delay: float = 0.0) -> np.ndarray:
    """Convolution of (n_trs, p), constant during each TR, with the response of `hrf`; float32 (n_trs, p)."""
    out = np.zeros(series.shape, dtype=np.float64)
    for lag, weight in enumerate(hrf(tr, delay)[: len(series)]):
        out[lag:] += weight * series[: len(series) - lag]
    return out.astype(np.float32)


def convolve_events(run: Run, amplitudes: np.ndarray) -> np.ndarray:
    """Response to an impulse at each text's very onset, of `amplitudes` (n_texts, k); float32 (n_trs, k) per TR."""
    tr_of_texts(run)  # refuses onsets outside the run
    fine, first = run.tr / EVENT_OVERSAMPLING, run.margin * EVENT_OVERSAMPLING
    events = np.zeros((run.n_trs * EVENT_OVERSAMPLING + 2 * first, amplitudes.shape[1]))
    np.add.at(events, first + _steps(run, fine), amplitudes)
    return EVENT_OVERSAMPLING * convolve(events, fine)[first : len(events) - first : EVENT_OVERSAMPLING]


def hrf(tr: float, delay: float = 0.0) -> np.ndarray:
    """The canonical double-gamma response (SPM's, by nilearn), `delay` seconds later, on the TR grid; (n_lags,), sum 1.

    Weight k: what a stimulus through TR 0 adds at the start of TR k, the mean from k - 1 to k TR after an onset.
    """
    from nilearn.glm.first_level.hemodynamic_models import spm_hrf  # here: it takes a second

    fine = spm_hrf(tr, oversampling=HRF_OVERSAMPLING, onset=delay)
    padded = np.pad(fine, (0, -len(fine) % HRF_OVERSAMPLING))
    weights = np.concatenate([[0.0], padded.reshape(-1, HRF_OVERSAMPLING).sum(axis=1)])
    return np.asarray(weights / weights.sum())
