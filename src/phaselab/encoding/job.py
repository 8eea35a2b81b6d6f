"""Encoding scores of anybody's arrays: what ``phaselab encode`` reads, checks, computes and writes."""

from __future__ import annotations

import hashlib
import importlib.metadata as metadata
import itertools
import json
import os
import platform
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from rich.table import Table

from phaselab import encoding
from phaselab.encoding.arrays import Array, ArrayError, Source, open_array, parse, pieces
from phaselab.results import digest_code, digest_file, write_table
from phaselab.stimuli import delayed
from phaselab.study import EncodingSpec

#: Columns of the table of scores, a row a subject, layer and voxel.
COLUMNS = ("subject", "layer", "voxel", "roi", "r", "p", "significant", "alpha", "r_normalised", "note")
#: Why a voxel is left out, as its ``note`` says.
NOT_FINITE, CONSTANT = "NaN or infinite", "constant"
#: Lowest ceiling that scores are divided by.
LOWEST_CEILING = 0.1
#: What the JSON beside a table says of itself.
MADE_BY = "phaselab encode"
#: Rows of the summary above which it shows each subject's best layer alone.
LONG_SUMMARY = 60

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What is asked of ``phaselab encode``; the provenance keeps it as it is.

    Attributes
    ----------
    features : ``[label=]path[:array]`` each, (n_trs, p) for a layer or (n_layers, n_trs, p).
    responses : ``[subject=]path[:array]`` each, (n_trs, n_voxels).
    out : table of scores, .parquet or .csv.
    runs : table of one row a TR (``run``) or one row a run (``run``, ``n_trs``); None: a single run.
    rois : table ``voxel``, ``roi`` and, for several subjects, ``subject``.
    ceiling : ``[subject=]path[:array]`` each, (n_voxels,) noise ceiling as a correlation.
    folds : ``runs`` or ``contiguous``; None: by run where runs are known.
    n_folds, gap : contiguous folds, and TRs left out beside each.
    log10_alphas : lowest, highest, and their number.
    permutations, block, fdr : of the test: their number (0: no test), TRs in a block, and the level.
    hemodynamics, delays : ``none`` takes features as they are; ``average`` or ``stack`` over `delays` (TRs).
    trim : TRs dropped at the start of each run, after the delays.
    seed : seed of the permutations.
    device : torch device of the ridge regressions, or ``auto``.
    """

    features: tuple[str, ...]
    responses: tuple[str, ...]
    out: Path
    runs: Path | None = None
    rois: Path | None = None
    ceiling: tuple[str, ...] = ()
    folds: Literal["runs", "contiguous"] | None = None
    n_folds: int = 4
    gap: int = 10
    log10_alphas: tuple[float, float, int] = (-12.0, 12.0, 25)
    permutations: int = 1000
    block: int = 10
    fdr: float = 0.05
    hemodynamics: Literal["none", "average", "stack"] = "none"
    delays: tuple[int, ...] = ()
    trim: int = 0
    seed: int = 0
    device: str = "cpu"


class _Runs(Mapping[str, np.ndarray]):
    """Run -> features of one layer, delayed and trimmed when asked for."""

    def __init__(self, layers: Layers, number: int) -> None:
        self._layers, self._number = layers, number

    def __getitem__(self, run: str) -> np.ndarray:
        layers = self._layers
        series = layers.as_given(self._number)[layers.runs[run]]
        if layers.hemodynamics != "none":
            series = delayed(series, layers.hemodynamics, layers.delays)
        return series[layers.trim :]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers.runs)

    def __len__(self) -> int:
        return len(self._layers.runs)


class Layers(Mapping[int, Mapping[str, np.ndarray]]):
    """Layer -> run -> features, for ``encoding.encode``; one layer is in memory at a time.

    Parameters
    ----------
    parts : an array a layer, with the position in it of the layer, or None where it is the layer.
    runs : run -> its TRs.
    hemodynamics, delays, trim : as in ``Options``; each run is delayed by itself.
    """

    def __init__(
        self,
        parts: list[tuple[Array, int | None]],
        runs: dict[str, slice],
        hemodynamics: Literal["none", "average", "stack"],
        delays: tuple[int, ...],
        trim: int,
    ) -> None:
        self._parts, self.runs = parts, runs
        self.hemodynamics, self.delays, self.trim = hemodynamics, delays, trim
        self._last: tuple[int, np.ndarray] | None = None

    def as_given(self, number: int) -> np.ndarray:
        """(n_trs, p) features of a layer, as they are in the file."""
        if self._last is None or self._last[0] != number:
            array, position = self._parts[number]
            self._last = number, array.load() if position is None else array[position]
        return self._last[1]

    def __getitem__(self, number: int) -> Mapping[str, np.ndarray]:
        if number not in range(len(self)):
            raise KeyError(number)
        return _Runs(self, number)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self._parts)))

    def __len__(self) -> int:
        return len(self._parts)


@dataclass
class Job:
    """What ``plan`` found in order, ready to be scored.

    Attributes
    ----------
    options : what was asked for.
    spec : the same, as ``encoding.encode`` takes it.
    labels : (n_layers,) name of each layer.
    X : layer -> run -> (n_trs, p).
    Y : subject -> run -> (n_trs, n_voxels that are kept).
    notes : subject -> (n_voxels,) why a voxel is left out; empty for those that are kept.
    rois : subject -> (n_voxels,) region, empty where unknown.
    ceiling : subject -> (n_voxels,), NaN where unknown.
    inputs : one entry a file, with its digest.
    warnings : what a reader of the scores must know.
    """

    options: Options
    spec: EncodingSpec
    labels: list[str]
    X: Layers
    Y: dict[str, dict[str, np.ndarray]]
    notes: dict[str, np.ndarray]
    rois: dict[str, np.ndarray]
    ceiling: dict[str, np.ndarray]
    inputs: list[dict[str, Any]]
    warnings: list[str] = field(default_factory=list)


def plan(options: Options, say: Say) -> Job:
    """Open and check everything that is asked for, before anything is computed.

    Parameters
    ----------
    options : what is asked for.
    say : receives a line for each thing that was understood.

    Raises
    ------
    ArrayError
        Naming the option or file, what was found and what was expected.
    """
    _check_out(options)
    _check_delays(options)
    features = [open_array(parse(text, "--features")) for text in options.features]
    labels, parts = _layers(features)
    n_trs = features[0].shape[-2]
    responses = _by_subject([open_array(parse(text, "--responses")) for text in options.responses])
    for array in (*features, *responses.values()):
        _check_length(array, n_trs, features[0])

    cautions: list[str] = []
    lengths = {"all": n_trs} if options.runs is None else _read_runs(options.runs, n_trs, features[0], say)
    folds = options.folds or ("contiguous" if options.runs is None else "runs")
    _check_runs(options, folds, lengths, cautions)
    spec = EncodingSpec(
        log10_alphas=options.log10_alphas,
        folds=folds,
        n_folds=options.n_folds,
        gap=options.gap,
        permutations=options.permutations,
        block=options.block,
        fdr=options.fdr,
    )
    _rehearse({run: n - options.trim for run, n in lengths.items()}, spec, options.device)
    sizes = {subject: array.shape[1] for subject, array in responses.items()}
    rois = _read_rois(options.rois, sizes)
    ceilings = _ceilings(options.ceiling, sizes)
    ceiling = {s: ceilings[s][...] if s in ceilings else np.full(n, np.nan) for s, n in sizes.items()}
    say(_folds_line(spec, len(lengths)))
    say(_test_line(spec))

    stops = itertools.accumulate(lengths.values())
    runs = {run: slice(stop - n, stop) for (run, n), stop in zip(lengths.items(), stops, strict=True)}
    X = Layers(parts, runs, options.hemodynamics, options.delays, options.trim)
    for number, label in enumerate(labels):
        _check_features(X.as_given(number), label, parts[number][0].source, cautions)
    width = _some(sorted({array.shape[-1] for array in features}))
    say(f"features: {_count(len(labels), 'layer')} of {n_trs:,} TRs x {width} features{_delayed(options)}")

    Y, notes = {}, {}
    kept_rows = {run: slice(rows.start + options.trim, rows.stop) for run, rows in runs.items()}
    for subject, array in responses.items():
        values = array.load()
        notes[subject] = _screen(values, list(kept_rows.values()))
        kept = notes[subject] == ""
        say(f"subject {subject}: {_count(len(kept), 'voxel')}")
        if not kept.any():
            raise ArrayError(f"{array.source}: found {_left_out(notes[subject])}; expected at least one voxel to score")
        if not kept.all():
            cautions.append(f"subject {subject}: left out, with r = NaN and a note: {_left_out(notes[subject])}")
        Y[subject] = {run: values[rows] if kept.all() else values[rows][:, kept] for run, rows in kept_rows.items()}

    inputs = _inputs(options, features, responses, ceilings)
    return Job(options, spec, labels, X, Y, notes, rois, ceiling, inputs, cautions)


def score(job: Job, progress: Callable[[int, int], None] | None = None) -> pd.DataFrame:
    """The table of scores: one row a subject, layer and voxel.

    What ``encoding.encode`` warns of is added to ``job.warnings``.

    Parameters
    ----------
    job : from ``plan``.
    progress : called with (layers scored, layers).

    Returns
    -------
    Columns ``COLUMNS``. ``r``, ``p`` and ``alpha`` are NaN, with a ``note``, for a voxel that is left
    out; ``p`` is NaN as well when there are no permutations, and ``r_normalised`` where there is no
    ceiling of at least 0.1. Layers and subjects are ordered categories.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scores = encoding.encode(job.X, job.Y, job.spec, job.options.seed, progress, job.options.device)
    job.warnings += dict.fromkeys(str(warning.message) for warning in caught)
    tables = []
    for subject, of_subject in scores.items():
        kept = job.notes[subject] == ""
        shape = len(job.labels), len(kept)
        full = {name: np.full(shape, np.nan, np.float32) for name in ("r", "p", "alpha")}
        for name, values in full.items():
            values[:, kept] = getattr(of_subject, name)
        significant = np.zeros(shape, bool)
        if job.spec.permutations:
            significant[:, kept] = of_subject.significant
        else:
            full["p"][:] = np.nan
        normalised = encoding.normalise(full["r"], job.ceiling[subject], LOWEST_CEILING)
        layer, voxel = np.indices(shape)
        tables.append(
            pd.DataFrame(
                {
                    "subject": pd.Categorical.from_codes(
                        np.full(layer.size, list(scores).index(subject)), pd.Index(list(scores)), ordered=True
                    ),
                    "layer": pd.Categorical.from_codes(layer.ravel(), pd.Index(job.labels), ordered=True),
                    "voxel": voxel.ravel(),
                    "roi": np.tile(job.rois[subject], shape[0]),
                    **{name: values.ravel() for name, values in full.items()},
                    "significant": significant.ravel(),
                    "r_normalised": normalised.ravel().astype(np.float32),
                    "note": np.tile(job.notes[subject], shape[0]),
                }
            )
        )
    table = pd.concat(tables, ignore_index=True)
    return table.astype({"roi": "category", "note": "category"})[list(COLUMNS)]


def write(job: Job, table: pd.DataFrame) -> tuple[Path, Path]:
    """Write the table, and beside it ``NAME.json`` with where it comes from; gives the two paths.

    Nothing in the JSON depends on the time: the same inputs give the same two files.
    """
    out = job.options.out
    write_table(table, out)
    packages = ("phaselab", "numpy", "scipy", "himalaya", "torch")
    left_out = {
        subject: {
            "voxels": len(notes),
            CONSTANT: int((notes == CONSTANT).sum()),
            NOT_FINITE: int((notes == NOT_FINITE).sum()),
        }
        for subject, notes in job.notes.items()
    }
    content = {
        "made_by": MADE_BY,
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in packages},
        },
        "code": digest_code("encoding", "stimuli", "study"),
        "options": asdict(job.options),
        "folds": job.spec.folds,
        "layers": job.labels,
        "runs": {run: rows.stop - rows.start for run, rows in job.X.runs.items()},
        "inputs": job.inputs,
        "left_out": left_out,
        "lowest_ceiling": LOWEST_CEILING,
        "warnings": job.warnings,
        "output": {"path": str(out), "rows": len(table), "sha256": sha256(out)},
    }
    beside = out.with_suffix(".json")
    aside = beside.with_name(f".{beside.name}.partial")
    aside.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")
    os.replace(aside, beside)
    return out, beside


def sha256(path: Path) -> str:
    """What ``sha256sum`` prints for a file; for the folder of a Zarr store, of all names and bytes in it."""
    if path.is_dir():
        return digest_file(path)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# ---------------------------------------------------------------------- what is said at the end


def summary(table: pd.DataFrame, fdr: float) -> list[Table]:
    """Tables for the screen, of a table of scores: by subject and layer, and by region where known."""
    known = table[table["note"] == ""]
    tested = bool(known["p"].notna().any())
    with_ceiling = bool(known["r_normalised"].notna().any())
    means = known.groupby(["subject", "layer"], observed=True)["r"].mean()
    # The first of equals, so that the choice does not depend on how rows are sorted.
    best = means.groupby(level="subject", observed=True).idxmax().tolist()
    rows = means.index.tolist()
    shown = rows if len(rows) <= LONG_SUMMARY else best
    title = "Correlation of predicted and measured responses in held-out TRs"
    by_layer = _summary_table(
        title if shown is rows else f"{title}; each subject's best of {len(set(table['layer']))} layers",
        ["subject", "layer"],
        tested,
        with_ceiling,
    )
    captions = [f"significant: at a false discovery rate of {fdr:g} in a layer"] if tested else []
    captions += [f"r / ceiling: where the ceiling is at least {LOWEST_CEILING:g}"] if with_ceiling else []
    by_layer.caption = "; ".join(captions)
    groups = dict(list(known.groupby(["subject", "layer"], observed=True)))
    for key in shown:
        style = "bold" if key in best and len(rows) > len(best) else ""
        by_layer.add_row(*map(str, key), *_numbers(groups[key], tested, with_ceiling), style=style)
    if not (known["roi"] != "").any():
        return [by_layer]
    by_roi = _summary_table(
        "By region" + (", in the layer with the highest mean r" if len(rows) > len(best) else ""),
        ["subject", "layer", "region"],
        tested,
        with_ceiling,
    )
    for key in best:
        inside = groups[key][groups[key]["roi"] != ""]
        for roi, of_roi in inside.groupby("roi", observed=True):
            by_roi.add_row(*map(str, key), str(roi), *_numbers(of_roi, tested, with_ceiling))
    return [by_layer, by_roi]


def _summary_table(title: str, keys: list[str], tested: bool, with_ceiling: bool) -> Table:
    table = Table(title=title)
    for name in keys:
        table.add_column(name)
    names = ["voxels", "mean r", "median r", "highest r"]
    names += ["significant"] if tested else []
    names += ["mean r / ceiling"] if with_ceiling else []
    for name in names:
        table.add_column(name, justify="right")
    return table


def _numbers(rows: pd.DataFrame, tested: bool, with_ceiling: bool) -> list[str]:
    r = rows["r"]
    cells = [f"{len(rows):,}", f"{r.mean():.3f}", f"{r.median():.3f}", f"{r.max():.3f}"]
    if tested:
        n = int(rows["significant"].sum())
        cells.append(f"{n:,} ({n / len(rows):.1%})".replace("%", " %"))
    if with_ceiling:
        share = rows["r_normalised"].mean()
        cells.append("–" if np.isnan(share) else f"{share:.3f}")
    return cells


# ---------------------------------------------------------------------- what is checked before


def _check_out(options: Options) -> None:
    out = options.out
    if out.suffix not in (".parquet", ".csv"):
        raise ArrayError(f"--out {out}: found ending {out.suffix!r}, expected .parquet or .csv")
    if out.is_dir():
        raise ArrayError(f"--out {out}: found a folder, expected the name of a file")
    if out.resolve() in {path.resolve() for path in (options.runs, options.rois) if path is not None}:
        raise ArrayError(f"--out {out}: found a file that is read as well, expected another name")
    beside = out.with_suffix(".json")
    if beside.exists() and f'"made_by": "{MADE_BY}"' not in beside.read_text(errors="replace"):
        raise ArrayError(
            f"--out {out}: found {beside.name} beside it, which would be written over and is not of "
            f"{MADE_BY}; expected another name"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise ArrayError(f"--out {out}: cannot be written there ({error.strerror})") from error


def _check_delays(options: Options) -> None:
    low, high, n = options.log10_alphas
    if not -300 <= low <= high <= 300 or n < 1 or (low == high) != (n == 1):
        raise ArrayError(
            f"--alphas: found {low:g} {high:g} {n}, expected the log10 of the lowest and the highest alpha, "
            "from -300 to 300, and how many"
        )
    delays = options.delays
    if options.hemodynamics == "none":
        if delays:
            raise ArrayError(
                "--delays: found it with --hemodynamics none, which takes features as they are; "
                "expected --hemodynamics average or stack"
            )
    elif not delays or min(delays) < 0 or len(set(delays)) < len(delays):
        raise ArrayError(
            f"--delays: found {','.join(map(str, delays)) or 'none'} with --hemodynamics "
            f"{options.hemodynamics}, expected distinct numbers of TRs >= 0, such as 2,3,4"
        )


def _check_length(array: Array, n_trs: int, first: Array) -> None:
    found = array.shape[-2]
    if found != n_trs:
        turned = "; is it transposed?" if array.shape[-1] == n_trs else ""
        raise ArrayError(
            f"{array.source}: found {found:,} TRs (shape {array.shape}), expected {n_trs:,} as in "
            f"{first.source} (shape {first.shape}){turned}"
        )


def _layers(arrays: list[Array]) -> tuple[list[str], list[tuple[Array, int | None]]]:
    """The label of each layer, and where it lies."""
    labels: list[str] = []
    parts: list[tuple[Array, int | None]] = []
    for array in arrays:
        name = array.source.label or array.source.path.stem
        if len(array.shape) == 2:
            labels.append(name)
            parts.append((array, None))
        elif len(array.shape) == 3:
            prefix = "" if len(arrays) == 1 and not array.source.label else f"{name}:"
            labels += [f"{prefix}{position}" for position in range(array.shape[0])]
            parts += [(array, position) for position in range(array.shape[0])]
        else:
            raise ArrayError(
                f"{array.source}: found shape {array.shape}, expected (n_trs, n_features) for a layer or "
                "(n_layers, n_trs, n_features)"
            )
    _check_distinct("--features", "layer", labels)
    return labels, parts


def _by_subject(arrays: list[Array]) -> dict[str, Array]:
    for array in arrays:
        if len(array.shape) != 2:
            one = "; for a single voxel, (n_trs, 1)" if len(array.shape) == 1 else ""
            raise ArrayError(f"{array.source}: found shape {array.shape}, expected (n_trs, n_voxels){one}")
    names = [array.source.label or array.source.path.stem for array in arrays]
    _check_distinct("--responses", "subject", names)
    return dict(zip(names, arrays, strict=True))


def _check_distinct(option: str, what: str, names: list[str]) -> None:
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise ArrayError(
            f"{option}: found {what} {twice[0]!r} more than once, expected distinct names: {option} NAME=PATH gives one"
        )


def _read_table(path: Path, option: str, needed: tuple[str, ...]) -> pd.DataFrame:
    if not path.is_file():
        raise ArrayError(f"{option} {path}: not there, expected a table (from {Path.cwd()})")
    if path.suffix.lower() not in (".csv", ".tsv"):
        raise ArrayError(f"{option} {path}: found ending {path.suffix!r}, expected .csv or .tsv")
    try:
        table = pd.read_csv(
            path,
            sep="\t" if path.suffix.lower() == ".tsv" else ",",
            dtype=str,
            keep_default_na=False,
            skipinitialspace=True,
            encoding="utf-8-sig",
        )
    except ValueError as error:
        raise ArrayError(f"{option} {path}: found no table that can be read ({error})") from error
    table = table.apply(lambda column: column.str.strip())
    for name in needed:
        if name not in table:
            raise ArrayError(
                f"{option} {path}: found columns {', '.join(map(str, table)) or '(none)'}; expected "
                f"{' and '.join(needed)}"
            )
    return table


def _read_runs(path: Path, n_trs: int, first: Array, say: Say) -> dict[str, int]:
    """Run -> TRs, in order, from a table of one row a TR or one row a run."""
    table = _read_table(path, "--runs", ("run",))
    names = table["run"].tolist()
    if "" in names:
        raise ArrayError(f"--runs {path}: found no name of the run in row {names.index('') + 1}")
    if "n_trs" in table:
        kind, lengths = "run", {}
        for name, text in zip(names, table["n_trs"], strict=True):
            if name in lengths:
                raise ArrayError(f"--runs {path}: found run {name!r} twice, expected one row a run")
            if not re.fullmatch("[0-9]+", text) or not int(text):
                raise ArrayError(f"--runs {path}: run {name!r}: n_trs: found {text!r}, expected a whole number above 0")
            lengths[name] = int(text)
    else:
        kind, lengths = "TR", {}
        for row, (name, before) in enumerate(zip(names, ["", *names], strict=False), 1):
            if name in lengths and name != before:
                raise ArrayError(
                    f"--runs {path}: row {row}: found run {name!r} again after {before!r}, expected the TRs "
                    "of a run together"
                )
            lengths[name] = lengths.get(name, 0) + 1
    if sum(lengths.values()) != n_trs:
        raise ArrayError(
            f"--runs {path}: found {sum(lengths.values()):,} TRs in {_count(len(lengths), 'run')} (one row a "
            f"{kind}), expected {n_trs:,} as in {first.source}: one row a TR with a column run, or one row a "
            "run with columns run and n_trs"
        )
    told = _some(list(lengths.values()))
    say(f"runs: {path} has one row a {kind}: {_count(len(lengths), 'run')} (TRs: {told})")
    return lengths


def _check_runs(options: Options, folds: str, lengths: dict[str, int], cautions: list[str]) -> None:
    if folds == "runs" and len(lengths) < 2:
        found = f"{options.runs} with 1 run" if options.runs else "no --runs"
        raise ArrayError(
            f"--folds runs: found {found}, expected at least 2 runs to leave one out; or --folds contiguous"
        )
    longest = max((0, *options.delays))
    for run, n in lengths.items():
        if n <= options.trim or n <= longest:
            raise ArrayError(
                f"run {run}: found {_count(n, 'TR')}, expected more than --trim {options.trim} and than the "
                f"longest of --delays, {longest}"
            )
    if options.runs is None:
        cautions.append(
            "no --runs: all TRs are taken as one run, and folds are contiguous stretches of it; where the "
            "scanner stopped in between, delays and permuted blocks reach over the break"
        )
    if folds == "contiguous" and not options.gap:
        cautions.append(
            "--gap 0: training TRs touch the tested ones and resemble them whatever the features; scores may "
            "be too high"
        )


def _rehearse(lengths: dict[str, int], spec: EncodingSpec, device: str) -> None:
    """Encode noise, one feature and one voxel: folds, blocks or a device that cannot be are told at once."""
    rng = np.random.default_rng(0)
    X, Y = ({run: rng.standard_normal((n, 1)) for run, n in lengths.items()} for _ in range(2))
    try:
        brief = spec.model_copy(update={"permutations": min(1, spec.permutations)})
        encoding.encode({0: X}, {"": Y}, brief, device=device)
    except ValueError as error:
        argument, _, rest = str(error).partition(":")
        option = {
            "n": "--n-folds",
            "n_folds": "--n-folds",
            "gap": "--gap",
            "block": "--block",
            "device": "--device",
        }.get(argument)
        if option is None:
            raise
        raise ArrayError(f"{option}:{rest}") from error


def _check_features(values: np.ndarray, label: str, source: Source, cautions: list[str]) -> None:
    varies = False
    for rows in pieces(len(values), values[:1].nbytes):
        bad = np.argwhere(~np.isfinite(values[rows]))
        if len(bad):
            at = bad[0] + [rows.start, 0]
            raise ArrayError(
                f"{source}: layer {label}: found {values[tuple(at)]} at TR {at[0]}, feature {at[1]} "
                f"({np.count_nonzero(~np.isfinite(values)):,} NaN or infinite values in all), expected none"
            )
        varies = varies or bool((values[rows] != values[0]).any())
    if not varies:
        cautions.append(f"layer {label}: all features are constant and can predict nothing")


def _screen(values: np.ndarray, runs: list[slice]) -> np.ndarray:
    """(n_voxels,) why a voxel of (n_trs, n_voxels) is left out, or an empty string; read in pieces."""
    finite = np.ones(values.shape[1], bool)
    constant = np.ones(values.shape[1], bool)
    first = values[runs[0].start]
    for run in runs:
        for rows in pieces(run.stop - run.start, values[:1].nbytes):
            part = values[run][rows]
            finite &= np.isfinite(part).all(axis=0)
            constant &= (part == first).all(axis=0)
    return np.where(~finite, NOT_FINITE, np.where(constant, CONSTANT, ""))


def _left_out(notes: np.ndarray) -> str:
    told = []
    for why in (CONSTANT, NOT_FINITE):
        at = np.flatnonzero(notes == why)
        if len(at):
            told.append(f"{len(at):,} {why} ({'voxel' if len(at) == 1 else 'voxels'} {_some(at.tolist())})")
    return f"{', '.join(told)}, of {len(notes):,}"


def _read_rois(path: Path | None, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Subject -> region of each voxel, empty where the table does not name it."""
    rois = {subject: np.full(n, "", dtype=object) for subject, n in sizes.items()}
    if path is None:
        return rois
    table = _read_table(path, "--rois", ("voxel", "roi"))
    unknown = sorted(set(table.get("subject", [])) - set(sizes))
    if unknown:
        raise ArrayError(f"--rois {path}: found subject {unknown[0]!r}, expected one of {', '.join(sizes)}")
    for subject, n in sizes.items():
        own = table[table["subject"] == subject] if "subject" in table else table
        for row, text, roi in zip(own.index + 1, own["voxel"], own["roi"], strict=True):
            if not re.fullmatch("[0-9]+", text) or int(text) >= n:
                raise ArrayError(
                    f"--rois {path}: row {row}: voxel: found {text!r}, expected a column of the responses of "
                    f"{subject}, 0 to {n - 1}"
                )
            if not roi or rois[subject][int(text)]:
                found = f"voxel {text} a second time" if roi else "no name"
                raise ArrayError(f"--rois {path}: row {row}: roi: found {found}, expected one region a voxel")
            rois[subject][int(text)] = roi
    return rois


def _ceilings(texts: tuple[str, ...], sizes: dict[str, int]) -> dict[str, Array]:
    """Subject -> its ceiling, for those that have one."""
    found: dict[str, Array] = {}
    for text in texts:
        source = parse(text, "--ceiling")
        subject = source.label or (next(iter(sizes)) if len(sizes) == 1 else source.path.stem)
        if subject not in sizes or subject in found:
            raise ArrayError(
                f"{source}: found subject {subject!r}{' twice' if subject in found else ''}, expected "
                f"SUBJECT=PATH, a subject once, of {', '.join(sizes)}"
            )
        array = open_array(source)
        if array.shape != (sizes[subject],):
            raise ArrayError(
                f"{source}: found shape {array.shape}, expected ({sizes[subject]},), one a voxel of {subject}"
            )
        found[subject] = array
    return found


def _inputs(
    options: Options, features: list[Array], responses: dict[str, Array], ceilings: dict[str, Array]
) -> list[dict[str, Any]]:
    """One entry an array or table that was read: what it is, and the digest of its file."""
    arrays = [(array.source.label or array.source.path.stem, array) for array in features]
    arrays += [*responses.items(), *ceilings.items()]
    found: list[dict[str, Any]] = [
        {
            "option": array.source.option,
            "label": label,
            "path": array.source.path,
            "array": array.source.array,
            "shape": array.shape,
            "dtype": str(array.values.dtype),
        }
        for label, array in arrays
    ]
    tables = (("--runs", options.runs), ("--rois", options.rois))
    found += [{"option": option, "path": path} for option, path in tables if path is not None]
    # Several arrays may come from one file, which is read once.
    digests = {path: sha256(path) for path in dict.fromkeys(entry["path"] for entry in found)}
    return [{**entry, "path": str(entry["path"]), "sha256": digests[entry["path"]]} for entry in found]


def _folds_line(spec: EncodingSpec, n_runs: int) -> str:
    low, high, n = spec.log10_alphas
    what = (
        f"each of {n_runs} runs is left out once"
        if spec.folds == "runs"
        else f"{spec.n_folds} contiguous stretches, {_count(spec.gap, 'TR')} left out beside each"
    )
    return f"folds: {what}; alpha of each voxel chosen inside the training set, {n} from 1e{low:g} to 1e{high:g}"


def _test_line(spec: EncodingSpec) -> str:
    if not spec.permutations:
        return "test: none (--permutations 0)"
    smallest = 1 / (1 + spec.permutations)
    needed = 100 * min(1, smallest / spec.fdr)
    return (
        f"test: {spec.permutations:,} permutations of blocks of {_count(spec.block, 'TR')}; the smallest p "
        f"is {smallest:.2g}, so at a false discovery rate of {spec.fdr:g} a layer has no significant voxel "
        f"unless {needed:.2g} % of its voxels have that p"
    )


def _delayed(options: Options) -> str:
    if options.hemodynamics == "none":
        return ", as they are"
    how = "averaged" if options.hemodynamics == "average" else "side by side"
    return f", delayed by {_some(list(options.delays))} TRs in each run, {how}"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _some(values: list[int]) -> str:
    """The first five of some numbers."""
    more = f" and {len(values) - 5:,} more" if len(values) > 5 else ""
    return ", ".join(map(str, values[:5])) + more
