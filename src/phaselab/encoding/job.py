"""Encoding scores of anybody's arrays: what ``phaselab encode`` is asked, reads, checks, computes and writes."""

from __future__ import annotations

import hashlib
import importlib.metadata as metadata
import json
import os
import platform
import re
import tempfile
import warnings
from collections import UserDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from phaselab import encoding
from phaselab.encoding import folds as cv
from phaselab.encoding.arrays import Array, Part, open_array
from phaselab.encoding.ridge import find_device
from phaselab.errors import PhaselabError, expect
from phaselab.results import digest_code, digest_file, write_table
from phaselab.stimuli import convolve, delayed
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
ARRAY = "PATH[:ARRAY]"
Texts = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
Files = Annotated[Texts, Field(min_length=1)]
Commas = BeforeValidator(lambda value: value.split(",") if isinstance(value, str) else value)
Delays = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Commas]
Grid = tuple[float, float, int]
Folds = Literal["runs", "groups", "contiguous"]
Hemodynamics = Literal["none", "hrf", "average", "stack"]
Null = Literal["block", "circular", "pooled"]


class EncodeJob(EncodingSpec):
    """What is asked of ``phaselab encode``: its options, the fields of a job file, and what the provenance keeps.

    A field is declared once, here or in the section ``encoding`` of a study: its description is the option's help, its
    title the option's metavar. Paths are relative to the current folder.
    """

    # What means nothing here of a study's section.
    shuffles: ClassVar[int] = 0  # type: ignore[misc]
    similarity: ClassVar[tuple[Literal["rsa", "cka"], ...]] = ()  # type: ignore[misc]
    unique: ClassVar[bool] = False  # type: ignore[misc]

    features: Files = Field(
        title=f"[LABEL=]{ARRAY}", description="(TRs, features) or (layers, TRs, features); repeatable."
    )
    responses: Files = Field(title=f"[SUBJECT=]{ARRAY}", description="(TRs, voxels); repeat it for more subjects.")
    out: Path = Field(description="Table of scores, .parquet or .csv; a .json comes beside it.")
    runs: Path | None = Field(
        None, description="Table: a row a TR (run) or a run (run,n_trs), the same for all subjects."
    )
    folds: Folds = Field("runs", description="Leave out runs, --n-folds groups of runs, or stretches (without --runs).")
    gap: int = Field(10, ge=0, description="TRs left out beside a contiguous fold.")
    log10_alphas: Grid = Field(
        (-12, 12, 25), title="LOW HIGH N", description="Log10 of lowest, highest penalty; number."
    )
    hemodynamics: Hemodynamics = Field("none", description="In each run: canonical, or average or stack over --delays.")
    delays: Delays = Field((), title="N,N,...", description="TRs from stimulus to response, with commas: 2,3,4.")
    tr: float | None = Field(None, gt=0, description="Seconds a TR, for --hemodynamics hrf.")
    trim: int = Field(0, ge=0, description="TRs dropped at the start of each run, after the haemodynamics.")
    permutations: int = Field(1000, ge=0, description="Of the test of each voxel; 0: no test.")
    null: Null = Field("block", description="Blocks change places, runs are rotated, or all voxels are the null.")
    fdr: float = Field(0.05, gt=0, lt=1, description="False discovery rate in a layer.")
    rois: Path | None = Field(None, description="Table: voxel (from 0), roi, and subject where there are several.")
    ceiling: Texts = Field((), title=f"[SUBJECT=]{ARRAY}", description="(voxels,) noise ceiling as a correlation.")
    seed: int = Field(0, ge=0, description="Of the permutations.")
    device: str = Field("cpu", description="Of the ridge regressions: cpu, cuda, cuda:N, or auto.")

    @classmethod
    def read(cls, path: Path | None, options: Mapping[str, Any]) -> EncodeJob:
        """The job of a YAML file (None: of none), with `options` (field -> value) in place of what stands in it.

        Raises PhaselabError, one line a wrong option: where it is, what was found, what was expected.
        """
        try:
            content = {} if path is None else yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise PhaselabError(f"{path}: found no YAML file that can be read ({error})") from error
        expect(isinstance(content, dict), str(path), type(content).__name__, "a mapping of fields")
        try:
            return cls.model_validate({**content, **options})
        except ValidationError as error:
            raise PhaselabError("\n  ".join(map(cls._told, error.errors()))) from error

    @staticmethod
    def option(name: str) -> str:
        """The option of the command line that is the field `name`."""
        return "--" + name.removeprefix("log10_").replace("_", "-")

    @classmethod
    def _told(cls, item: Mapping[str, Any]) -> str:
        said = str(item["msg"]).removeprefix("Value error, ").replace("Input should be", "expected")
        if not item["loc"]:
            return said
        name, kind = str(item["loc"][0]), item["type"]
        if kind == "extra_forbidden":
            return f"{name}: unknown field, expected one of {', '.join(cls.model_fields)}"
        return f"{cls.option(name)}: " + (
            "missing, expected a value" if kind == "missing" else f"found {item['input']!r}, {said}"
        )

    @model_validator(mode="before")
    @classmethod
    def _folds_of_known_runs(cls, content: dict[str, Any]) -> dict[str, Any]:
        return {"folds": "runs" if content.get("runs") else "contiguous", **content}

    @model_validator(mode="after")
    def _options_together(self) -> EncodeJob:
        low, high, n = self.log10_alphas
        grid = -300 <= low <= high <= 300 and n >= 1 and (low == high) == (n == 1)
        expected = "the log10 of the lowest and the highest alpha, from -300 to 300, and how many"
        expect(grid, "--alphas", f"{low:g} {high:g} {n}", expected)
        how, moved = f"with --hemodynamics {self.hemodynamics}", self.hemodynamics in ("average", "stack")
        delays = f"{','.join(map(str, self.delays)) or 'none'} {how}"
        distinct = not moved or len({*self.delays}) == len(self.delays) > 0
        expect(distinct, "--delays", delays, "distinct numbers of TRs >= 0, such as 2,3,4")
        expect(moved or not self.delays, "--delays", delays, "them with average or stack alone")
        fits = (self.tr is not None) == (self.hemodynamics == "hrf")
        expect(fits, "--tr", f"{self.tr or 'none'} {how}", "seconds with --hemodynamics hrf, and with it alone")
        return self


class Lazy(UserDict[Any, Any]):
    """Key -> value, made by a function whenever it is asked for."""

    def __getitem__(self, key: Any) -> Any:
        return self.data[key]()


@dataclass
class Plan:
    """What ``plan`` found in order, ready to be scored."""

    job: EncodeJob
    #: Name of each layer; and run -> its TRs.
    labels: list[str]
    runs: dict[str, range]
    #: Layer -> run -> (n_trs, p), with haemodynamics, read when asked for.
    X: Mapping[int, Mapping[str, np.ndarray]]
    #: Subject -> run -> (n_trs, n_voxels that are kept), read where it is indexed.
    Y: dict[str, dict[str, Any]]
    #: Subject -> (n_voxels,): why a voxel is left out, empty for those that are kept; region; ceiling or NaN.
    notes: dict[str, np.ndarray]
    rois: dict[str, np.ndarray]
    ceiling: dict[str, np.ndarray]
    #: One entry a file, with its digest; and what a reader of the scores must know.
    inputs: list[dict[str, Any]]
    warnings: list[str]


def plan(job: EncodeJob, say: Say) -> Plan:
    """Open and check everything that is asked for, before anything is computed.

    `say` receives a line for each thing that was understood. Raises PhaselabError naming the option or file, what was
    found and what was expected.
    """
    _check_out(job)
    features = [open_array(text, "--features") for text in job.features]
    layers = _layers(features)
    subjects = _layers([open_array(text, "--responses") for text in job.responses], "--responses")
    responses = {subject: array for subject, (array, _) in subjects.items()}
    _check_lengths([*features, *responses.values()])
    n_trs = features[0].shape[-2]
    lengths = {"all": n_trs} if job.runs is None else _read_runs(job.runs, n_trs, features[0], say)
    _check_folds(job, lengths)
    sizes = {subject: array.shape[1] for subject, array in responses.items()}
    rois, ceilings = _read_rois(job.rois, sizes), _ceilings(job.ceiling, sizes)
    ceiling = {s: ceilings[s][...] if s in ceilings else np.full(n, np.nan) for s, n in sizes.items()}
    _say_folds_and_test(job, len(lengths), say)

    stops = dict(zip(lengths, np.cumsum([*lengths.values()]).tolist(), strict=True))
    runs = {run: range(stops[run] - n, stops[run]) for run, n in lengths.items()}
    parts = [Lazy({run: partial(_moved, job, *at, trs) for run, trs in runs.items()}) for at in layers.values()]
    X = Lazy({number: partial(parts.__getitem__, number) for number in range(len(parts))})
    cautions = _cautions(job) + [told for label, at in layers.items() for told in _check_features(label, *at)]
    width, step = _some(sorted({array.shape[-1] for array in features})), f"{job.tr:g} s a TR" if job.tr else ""
    how = (
        f"{job.hemodynamics} in each run ({step or f'delays: {_some(job.delays)} TRs'})"
        if step or job.delays
        else "as they are"
    )
    say(f"features: {_count(len(layers), 'layer')} of {n_trs:,} TRs x {width} features, {how}")

    Y, notes = {}, {}
    scored = {run: trs[job.trim :] for run, trs in runs.items()}
    for subject, array in responses.items():
        notes[subject] = _screen(array, np.concatenate(list(scored.values())))
        kept = np.flatnonzero(notes[subject] == "")
        say(f"subject {subject}: {_count(sizes[subject], 'voxel')}")
        expect(len(kept), str(array), _left_out(notes[subject]), "at least one voxel to score")
        if len(kept) < sizes[subject]:
            cautions.append(f"subject {subject}: left out, with r = NaN and a note: {_left_out(notes[subject])}")
        Y[subject] = {run: Part(array, trs, kept) for run, trs in scored.items()}
    inputs = _inputs(job, [*features, *responses.values(), *ceilings.values()])
    return Plan(job, list(layers), runs, X, Y, notes, rois, ceiling, inputs, cautions)


def score(found: Plan, progress: Callable[[int, int], None] | None = None) -> pd.DataFrame:
    """The table of scores: one row a subject, layer and voxel.

    What ``encoding.encode`` warns of is added to ``found.warnings``.

    Returns
    -------
    Columns ``COLUMNS``. ``r``, ``p`` and ``alpha`` are NaN, with a ``note``, for a voxel that is left out; ``p`` is NaN
    as well when there are no permutations, and ``r_normalised`` where there is no ceiling of at least 0.1. Layers and
    subjects are ordered categories.
    """
    job, tables = found.job, []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scores = encoding.encode(found.X, found.Y, job, job.seed, progress, job.device)
    found.warnings += dict.fromkeys(str(warning.message) for warning in caught)
    for subject, of_subject in scores.items():
        kept = found.notes[subject] == ""
        layer, voxel = np.indices((len(found.labels), len(kept)))
        full: dict[str, Any] = {name: np.full(layer.shape, np.nan, np.float32) for name in ("r", "p", "alpha")}
        for name in full if job.permutations else ("r", "alpha"):
            full[name][:, kept] = getattr(of_subject, name)
        significant = np.zeros(layer.shape, bool)
        significant[:, kept] = of_subject.significant & bool(job.permutations)
        full["r_normalised"] = encoding.normalise(full["r"], found.ceiling[subject], LOWEST_CEILING).astype(np.float32)
        columns = {
            "subject": pd.Categorical([subject] * layer.size, list(scores), ordered=True),
            "layer": pd.Categorical.from_codes(layer.ravel(), pd.Index(found.labels), ordered=True),
            "roi": np.tile(found.rois[subject], len(layer)),
            "note": np.tile(found.notes[subject], len(layer)),
        }
        full |= {"voxel": voxel, "significant": significant}
        tables.append(pd.DataFrame({**columns, **{name: values.ravel() for name, values in full.items()}}))
    return pd.concat(tables, ignore_index=True).astype({"roi": "category", "note": "category"})[list(COLUMNS)]


def write(found: Plan, table: pd.DataFrame) -> tuple[Path, Path]:
    """Write the table, and beside it ``NAME.json`` with where it comes from; gives the two paths.

    Nothing in the JSON depends on the time: the same inputs give the same two files. Its ``options`` are a job file.
    """
    job, out = found.job, found.job.out
    write_table(table, out)
    packages = ["phaselab", "numpy", "scipy", "torch"] + ["himalaya"] * (getattr(job, "solver", "") == "himalaya")
    why = (CONSTANT, NOT_FINITE)
    content = {
        "made_by": MADE_BY,
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}},
        "code": digest_code("encoding", "stimuli", "study"),
        "options": job.model_dump(mode="json"),
        "folds": job.folds,
        "layers": found.labels,
        "runs": {run: len(trs) for run, trs in found.runs.items()},
        "inputs": found.inputs,
        "left_out": {s: {"voxels": len(n), **{w: int((n == w).sum()) for w in why}} for s, n in found.notes.items()},
        "lowest_ceiling": LOWEST_CEILING,
        "warnings": found.warnings,
        "output": {"path": str(out), "rows": len(table), "sha256": sha256(out)},
    }
    beside, aside = out.with_suffix(".json"), out.with_name(f".{out.stem}.json.partial")
    aside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(aside, beside)
    return out, beside


def sha256(path: Path) -> str:
    """What ``sha256sum`` prints for a file; for the folder of a Zarr store, of all names and bytes in it."""
    if path.is_dir():
        return digest_file(path)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def summary(table: pd.DataFrame, fdr: float) -> list[str]:
    """For the screen, of a table of scores: means by subject and layer, and by region where known."""
    known = table[table["note"] == ""]
    numbers = {"voxels": ("r", "size"), "mean r": ("r", "mean"), "median r": ("r", "median"), "highest r": ("r", "max")}
    tested, with_ceiling = known["p"].notna().any(), known["r_normalised"].notna().any()
    numbers |= {"significant": ("significant", "sum"), "share": ("significant", "mean")} if tested else {}
    numbers |= {"mean r / ceiling": ("r_normalised", "mean")} if with_ceiling else {}
    means = known.groupby(["subject", "layer"], observed=True).agg(**numbers)
    # The first of equals, so that the choice does not depend on how rows are sorted.
    best = means.groupby(level="subject", observed=True)["mean r"].idxmax().tolist()
    title = "correlation of predicted and measured responses in held-out TRs"
    title += f"; significant: at a false discovery rate of {fdr:g} in a layer" * bool(tested)
    title += f"; r / ceiling: where the ceiling is at least {LOWEST_CEILING:g}" * bool(with_ceiling)
    if len(means) > LONG_SUMMARY:
        title, means = f"{title}; each subject's best of {table['layer'].nunique()} layers", means.loc[best]
    tables = {title: means}
    if (named := known[known["roi"] != ""]).size:
        by_roi = named.groupby(["subject", "layer", "roi"], observed=True).agg(**numbers)
        inside = [at[:2] in best for at in by_roi.index]
        tables["by region, in the layer with the highest mean r"] = by_roi[inside]
    return [f"{title}\n{cells.to_string(float_format='{:.3f}'.format)}" for title, cells in tables.items()]


def _check_out(job: EncodeJob) -> None:
    where, out, beside = f"--out {job.out}", job.out, job.out.with_suffix(".json")
    expect(out.suffix in (".parquet", ".csv"), where, f"ending {out.suffix!r}", ".parquet or .csv")
    expect(not out.is_dir(), where, "a folder", "the name of a file")
    read = {path.resolve() for path in (job.runs, job.rois) if path is not None}
    expect(out.resolve() not in read, where, "a file that is read as well", "another name")
    ours = not beside.exists() or f'"made_by": "{MADE_BY}"' in beside.read_text(errors="replace")
    other = f"{beside.name} beside it, which would be written over and is not of {MADE_BY}"
    expect(ours, where, other, "another name")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise PhaselabError(f"{where}: cannot be written there ({error.strerror})") from error


def _layers(arrays: list[Array], option: str = "--features") -> dict[str, tuple[Array, tuple[int, ...]]]:
    """Label of each layer (or subject) -> the array, and the position in it where the array has several."""
    found: dict[str, tuple[Array, tuple[int, ...]]] = {}
    what = {2: "(n_trs, n_features) for a layer", 3: "(n_layers, n_trs, n_features)"}
    if option == "--responses":
        what = {2: "(n_trs, n_voxels)" + "; for a single voxel, (n_trs, 1)" * (len(arrays[0].shape) == 1)}
    for array in arrays:
        expect(len(array.shape) in what, str(array), f"shape {array.shape}", " or ".join(what.values()))
        name = array.label or array.path.stem
        prefix = "" if len(arrays) == 1 and not array.label else f"{name}:"
        several = range(array.shape[0] if len(array.shape) == 3 else 0)
        positions: dict[str, tuple[int, ...]] = {f"{prefix}{number}": (number,) for number in several} or {name: ()}
        for label, at in positions.items():
            twice = f"{'layer' if 3 in what else 'subject'} {label!r} more than once"
            expect(label not in found, option, twice, f"distinct names: {option} NAME=PATH gives one")
            found[label] = array, at
    return found


def _check_lengths(arrays: list[Array]) -> None:
    first, n_trs = arrays[0], arrays[0].shape[-2]
    for array in arrays:
        turned = "; is it transposed?" if array.shape[-1] == n_trs else ""
        expected = f"{n_trs:,} as in {first} (shape {first.shape}){turned}"
        expect(array.shape[-2] == n_trs, str(array), f"{array.shape[-2]:,} TRs (shape {array.shape})", expected)


def _read_table(path: Path, option: str, *needed: str) -> pd.DataFrame:
    where, ending = f"{option} {path}", path.suffix.lower()
    if not path.is_file():
        raise PhaselabError(f"{where}: not there, expected a table (from {Path.cwd()})")
    expect(ending in (".csv", ".tsv"), where, f"ending {path.suffix!r}", ".csv or .tsv")
    how: dict[str, Any] = {"dtype": str, "keep_default_na": False, "skipinitialspace": True, "encoding": "utf-8-sig"}
    try:
        table = pd.read_csv(path, sep="\t" if ending == ".tsv" else ",", **how)
    except ValueError as error:
        raise PhaselabError(f"{where}: found no table that can be read ({error})") from error
    expect({*needed} <= {*table}, where, f"columns ({', '.join(map(str, table))})", " and ".join(needed))
    return pd.DataFrame({name: column.str.strip() for name, column in table.items()})


def _read_runs(path: Path, n_trs: int, first: Array, say: Say) -> dict[str, int]:
    """Run -> TRs, in order, from a table of one row a TR or one row a run."""
    table, where, lengths = _read_table(path, "--runs", "run"), f"--runs {path}", dict[str, int]()
    names, kind = table["run"].tolist(), "run" if "n_trs" in table else "TR"
    for row, (name, before, text) in enumerate(zip(names, ["", *names], table.get("n_trs", names), strict=False), 1):
        expect(name, where, f"no name of the run in row {row}", "one")
        if kind == "run":
            expect(name not in lengths, where, f"run {name!r} twice", "one row a run")
            whole = re.fullmatch("[0-9]+", text) and int(text)
            expect(whole, f"{where}: run {name!r}: n_trs", repr(text), "a whole number above 0")
        again = f"run {name!r} again after {before!r}"
        expect(name not in lengths or name == before, f"{where}: row {row}", again, "the TRs of a run together")
        lengths[name] = lengths.get(name, 0) + (int(text) if kind == "run" else 1)
    found = f"{sum(lengths.values()):,} TRs in {_count(len(lengths), 'run')} (one row a {kind})"
    either = "one row a TR with a column run, or one row a run with columns run and n_trs"
    expect(sum(lengths.values()) == n_trs, where, found, f"{n_trs:,} as in {first}: {either}")
    told = f"{_count(len(lengths), 'run')} (TRs: {_some(list(lengths.values()))})"
    say(f"runs: {path} has one row a {kind}: {told}")
    return lengths


def _check_folds(job: EncodeJob, lengths: dict[str, int]) -> None:
    """That folds, blocks and device can be had, before anything is read."""
    one = f"{job.runs} with 1 run" if job.runs else "no --runs"
    expected = "at least 2 runs to leave one out; or --folds contiguous"
    expect(job.folds == "contiguous" or len(lengths) > 1, f"--folds {job.folds}", one, expected)
    longest = max((0, *job.delays))
    expected = f"more than --trim {job.trim} and than the longest of --delays, {longest}"
    for run, n in lengths.items():
        expect(n > max(job.trim, longest), f"run {run}", _count(n, "TR"), expected)
    runs = np.repeat(np.arange(len(lengths)), np.array(list(lengths.values())) - job.trim)
    try:
        folds = cv.outer_folds(runs, job)
        for train, _ in folds:
            cv.inner_folds(train, runs, job)
    except ValueError as error:
        where = f"--folds {job.folds} --n-folds {job.n_folds} --gap {job.gap}"
        raise PhaselabError(f"{where}: {error}") from error
    for _, test in folds if job.permutations else ():
        in_runs = np.unique(runs[test], return_counts=True)[1]
        rotated, n = job.null == "circular", int((in_runs // job.block).sum())
        expect(not rotated or in_runs.min() > 1, "--null circular", "a run of 1 TR in a test fold", "at least 2")
        blocks = f"{job.block} TRs, with which a test fold of {len(test)} TRs has {n} whole blocks"
        expect(rotated or n > 1, "--block", blocks, "at least 2")
    try:
        find_device(job.device)
    except ValueError as error:
        raise PhaselabError(f"--{error}") from error


def _moved(job: EncodeJob, array: Array, at: tuple[int, ...], trs: range) -> np.ndarray:
    """(n_trs, p) features of one run, with haemodynamics, trimmed."""
    values = array[(*at, slice(trs.start, trs.stop))]
    if job.tr is not None:
        values = convolve(values, job.tr)
    elif job.hemodynamics in ("average", "stack"):
        values = delayed(values, job.hemodynamics, job.delays)
    return values[job.trim :]


def _check_features(label: str, array: Array, at: tuple[int, ...]) -> list[str]:
    """Refuse a layer with NaN; gives what is to be told of it."""
    bad, where, varies, first = 0, "", False, array[(*at, 0)]
    for rows in array.pieces():
        values = array[(*at, rows)]
        wrong = np.argwhere(~np.isfinite(values))
        if len(wrong):
            where = where or f"{values[tuple(wrong[0])]} at TR {rows.start + wrong[0, 0]}, feature {wrong[0, 1]}"
        bad, varies = bad + len(wrong), varies or bool((values != first).any())
    expect(not bad, f"{array}: layer {label}", f"{where} ({bad:,} NaN or infinite values in all)", "none")
    return [] if varies else [f"layer {label}: all features are constant and can predict nothing"]


def _screen(array: Array, kept: np.ndarray) -> np.ndarray:
    """(n_voxels,) why a voxel of (n_trs, n_voxels) is left out, or an empty string; `kept` TRs are read in pieces."""
    finite, constant = np.ones((2, array.shape[1]), bool)
    first = array[kept[0]]
    for rows in array.pieces():
        inside = kept[(kept >= rows.start) & (kept < rows.stop)] - rows.start
        values = array[rows] if len(inside) == rows.stop - rows.start else array[rows][inside]
        finite &= np.isfinite(values).all(axis=0)
        constant &= (values == first).all(axis=0)
    return np.where(~finite, NOT_FINITE, np.where(constant, CONSTANT, ""))


def _left_out(notes: np.ndarray) -> str:
    at = {why: np.flatnonzero(notes == why).tolist() for why in (CONSTANT, NOT_FINITE)}
    told = [f"{len(n):,} {why} (voxel{'s' * (len(n) > 1)} {_some(n)})" for why, n in at.items() if n]
    return f"{', '.join(told)}, of {len(notes):,}"


def _read_rois(path: Path | None, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Subject -> region of each voxel, empty where the table does not name it."""
    rois = {subject: np.full(n, "", dtype=object) for subject, n in sizes.items()}
    table = _read_table(path, "--rois", "voxel", "roi") if path else pd.DataFrame(columns=["voxel", "roi"])
    for subject in table.get("subject", []):
        expect(subject in sizes, f"--rois {path}", f"subject {subject!r}", f"one of {', '.join(sizes)}")
    for subject, n in sizes.items():
        own = table[table["subject"] == subject] if "subject" in table else table
        for row, text, roi in zip(own.index + 1, own["voxel"], own["roi"], strict=True):
            where, inside = f"--rois {path}: row {row}", re.fullmatch("[0-9]+", text) and int(text) < n
            expect(inside, f"{where}: voxel", repr(text), f"a column of the responses of {subject}, 0 to {n - 1}")
            twice = f"voxel {text} a second time" if roi else "no name"
            expect(roi and not rois[subject][int(text)], f"{where}: roi", twice, "one region a voxel")
            rois[subject][int(text)] = roi
    return rois


def _ceilings(texts: tuple[str, ...], sizes: dict[str, int]) -> dict[str, Array]:
    """Subject -> its ceiling, for those that have one."""
    found: dict[str, Array] = {}
    for array in (open_array(text, "--ceiling") for text in texts):
        subject = array.label or (next(iter(sizes)) if len(sizes) == 1 else array.path.stem)
        what = f"subject {subject!r}{' twice' if subject in found else ''}"
        expected = f"SUBJECT=PATH, a subject once, of {', '.join(sizes)}"
        expect(subject in sizes and subject not in found, str(array), what, expected)
        expected = f"({sizes[subject]},), one a voxel of {subject}"
        expect(array.shape == (sizes[subject],), str(array), f"shape {array.shape}", expected)
        found[subject] = replace(array, label=subject)
    return found


def _inputs(job: EncodeJob, arrays: list[Array]) -> list[dict[str, Any]]:
    """One entry an array or table that was read: what it is, and the digest of its file."""
    found: list[dict[str, Any]] = []
    for a in arrays:
        where = {"option": a.option, "label": a.label or a.path.stem, "path": str(a.path), "array": a.name}
        found.append({**where, "shape": a.shape, "dtype": str(a.values.dtype)})
    found += [
        {"option": f"--{n}", "path": str(path)} for n in ("runs", "rois") if (path := getattr(job, n)) is not None
    ]
    # Several arrays may come from one file, which is read once.
    digests = {path: sha256(Path(path)) for path in dict.fromkeys(entry["path"] for entry in found)}
    return [{**entry, "sha256": digests[entry["path"]]} for entry in found]


def _say_folds_and_test(job: EncodeJob, n_runs: int, say: Say) -> None:
    low, high, n = job.log10_alphas
    folds = {
        "runs": f"each of {n_runs} runs is left out once",
        "groups": f"{job.n_folds} groups of the {n_runs} runs",
        "contiguous": f"{job.n_folds} contiguous stretches, {_count(job.gap, 'TR')} left out beside each",
    }
    chosen = f"alpha of each voxel chosen inside the training set, {n} from 1e{low:g} to 1e{high:g}"
    say(f"folds: {folds[job.folds]}; {chosen}")
    if not job.permutations or job.null == "pooled":
        say("test: one shuffle, pooled over voxels" if job.permutations else "test: none (--permutations 0)")
        return
    smallest = 1 / (1 + job.permutations)
    what = f"permutations of blocks of {_count(job.block, 'TR')}" if job.null == "block" else "rotations of each run"
    needed = f"unless {100 * min(1, smallest / job.fdr):.2g} % of its voxels have that p"
    none = f"at a false discovery rate of {job.fdr:g} a layer has no significant voxel {needed}"
    say(f"test: {job.permutations:,} {what}; the smallest p is {smallest:.2g}, so {none}")


def _cautions(job: EncodeJob) -> list[str]:
    stretches = "no --runs: all TRs are taken as one run, and folds are contiguous stretches of it"
    reach = "where the scanner stopped in between, delays and permuted blocks reach over the break"
    touch = (
        "--gap 0: training TRs touch the tested ones and resemble them whatever the features; scores may be too high"
    )
    return [f"{stretches}; {reach}"] * (job.runs is None) + [touch] * (job.folds == "contiguous" and not job.gap)


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _some(values: Iterable[int]) -> str:
    """The first five of some numbers."""
    first, rest = [*values][:5], [*values][5:]
    return ", ".join(map(str, first)) + (f" and {len(rest):,} more" if rest else "")
