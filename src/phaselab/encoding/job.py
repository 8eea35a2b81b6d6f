"""Encoding scores of anybody's arrays: what ``phaselab encode`` reads, checks, computes and writes."""

import importlib.metadata as metadata
import warnings
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from itertools import accumulate
from pathlib import Path

import numpy as np
import pandas as pd

from phaselab import encoding
from phaselab.encode_options import EncodeJob
from phaselab.encoding.arrays import Array, open_array
from phaselab.errors import expect, number_of
from phaselab.files import read_bytes
from phaselab.lazy import Lazy, View
from phaselab.results import digest_code, digest_file, numbers, read_table, try_beside, write_json, write_table
from phaselab.stats import check_ceiling
from phaselab.stimuli import convolved

#: Columns of the table of scores, a row per subject, layer and voxel.
COLUMNS = ["subject", "layer", "voxel", "roi", "r", "p", "significant", "alpha", "r_normalised", "note"]
#: What the JSON beside a table says of itself.
MADE_BY = "phaselab encode"
#: Bytes of responses that are looked through at once; and rows of the summary that show every layer.
PIECE, LONG = 64 * 2**20, 60


def run(job: EncodeJob, say: Callable[[str], None], progress: Callable[[int, int], None] | None = None) -> list[Path]:
    """Check what is asked for, score it, and write the table and the JSON beside it: the two paths. `say` is told."""
    beside = job.out.with_suffix(".json")
    ours = not beside.exists() or f'"made_by": "{MADE_BY}"' in read_bytes(beside).decode(errors="replace")
    fits = job.out.suffix in (".parquet", ".csv") and not job.out.is_dir() and job.out not in (job.runs, job.rois)
    expected = f"a .parquet or .csv that can be written, over no input, and no {beside.name} of another program there"
    expect(fits and ours, "out", job.out, expected)
    try_beside(job.out)
    of = ([open_array(text, name, job.memory) for text in getattr(job, name)] for name in ("features", "responses"))
    (features, responses), ceilings = of, [open_array(text, "ceiling", job.memory) for text in job.ceiling]
    layers = _layers(features, responses[0], job)
    subjects = {array.name: array for array in responses}
    expect(len(subjects) == len(responses), "responses", f"one of {', '.join(subjects)} twice", "names: SUBJECT=PATH")
    n_trs = features[0].shape[-2]
    for array in responses:
        fits = len(array.shape) == 2 and array.shape[0] == n_trs
        turned = "; is one transposed, or are both?" if array.shape[1:] and array.shape[1] in features[0].shape else ""
        expected = f"({n_trs}, n_voxels), with the {job.rows} of {features[0].where}{turned}"
        expect(fits, array.where, f"shape {array.shape}", expected)
    lengths = run_lengths(job.runs) if job.runs else {"all": n_trs}
    total, least = sum(lengths.values()), min(lengths.values())
    found = f"{total:,} {job.rows} in {number_of(len(lengths), 'run')}, {least:,} at least"
    right = f"{n_trs:,}, more than trim ({job.trim}) in each; a row per {job.rows[:-1]} (run) or per run (run,n_trs)"
    expect(total == n_trs and least > job.trim, str(job.runs), found, right)
    runs = {run: slice(end - lengths[run], end) for run, end in zip(lengths, accumulate(lengths.values()), strict=True)}
    unused = job.given("gap") and job.gap and (job.folds == "shuffled" or (job.folds == "runs" and len(runs) > 2))
    expect(not unused, "gap", f"{job.gap} with folds: {job.folds}", "none: it would be ignored")
    scored = {name: slice(trs.start + job.trim, trs.stop) for name, trs in runs.items()}
    voxels = _voxels(job, subjects, scored, ceilings)
    many = f"{number_of(len(layers), 'layer')} of {n_trs:,} {job.rows} in {number_of(len(runs), 'run')}"
    say(f"{many} ({job.hemodynamics}); folds: {job.folds}")
    notes = _cautions(job, voxels)
    for note in notes:
        say(f"note: {note}")

    def of_layer(number: int) -> Lazy[str, np.ndarray]:
        array, at = list(layers.values())[number]
        return Lazy(runs, lambda name: convolved(array[(*at, runs[name])], job.tr or 0, job)[job.trim :])

    # Before hours are spent on other layers.
    for number, label in enumerate(layers):
        for name, values in of_layer(number).items():
            expect(np.isfinite(values).all(), f"features: layer {label}: run {name}", "NaN or infinite values", "none")
    Y = {}
    for subject, array in subjects.items():
        kept = voxels.loc[(voxels["subject"] == subject) & (voxels["note"] == ""), "voxel"].to_numpy()
        Y[subject] = {name: View(array, trs, kept) for name, trs in scored.items()}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scores = encoding.encode(Lazy(range(len(layers)), of_layer), Y, job, job.seed, progress, job.device)
    said = [*dict.fromkeys(str(warning.message) for warning in caught)]
    table = _table(job, voxels, list(layers), scores)
    write_table(table, job.out)
    paths = [*(array.path for array in (*features, *responses, *ceilings)), job.runs, job.rois, job.out]
    content = {
        "made_by": MADE_BY,
        "versions": {name: metadata.version(name) for name in ("phaselab", "numpy", "scipy", "torch", "himalaya")},
        "code": digest_code("encoding", "encode_options", "stimuli", "study"),
        "options": job.model_dump(mode="json"),
        "layers": list(layers),
        "runs": {name: trs.stop - trs.start for name, trs in runs.items()},
        "digests": {str(path): digest_file(path) for path in dict.fromkeys(paths) if path},
        "left_out": int((voxels["note"] != "").sum()),
        "warnings": notes + said,
    }
    write_json(content, beside)
    say("\n".join([*(f"note: {note}" for note in said), summary(table, job.rows)]))
    return [job.out, beside]


def summary(table: pd.DataFrame, rows: str) -> str:
    """For the screen: means by subject and layer, of each subject's best layer where they are many; and by region."""
    known, unit = table[table["note"] == ""], ["subject", "layer"]
    numbers = {"voxels": ("r", "size"), "mean r": ("r", "mean"), "median r": ("r", "median"), "highest r": ("r", "max")}
    if known["p"].notna().any():
        numbers |= {"significant": ("significant", "sum"), "share": ("significant", "mean")}
    numbers |= {"mean r / ceiling": ("r_normalised", "mean")}
    means = known.groupby(unit, observed=True).agg(**numbers)
    best = means.loc[means.groupby("subject", observed=True)["mean r"].idxmax()]
    parts = {"": means} if len(means) <= LONG else {f"; each subject's best of {len(means)} rows": best}
    regions = known[known["roi"] != ""].groupby([*unit, "roi"], observed=True).agg(**numbers)
    if len(regions):
        parts["; by region, in each subject's best layer"] = regions[regions.reset_index("roi").index.isin(best.index)]
    what, form = f"correlation of predicted and measured responses in held-out {rows}", "{:.3f}".format
    shown = (part.dropna(axis=1, how="all").to_string(float_format=form) for part in parts.values())
    return "\n".join(f"{what}{of}\n{rows}" for of, rows in zip(parts, shown, strict=True))


def _layers(arrays: list[Array], responses: Array, job: EncodeJob) -> dict[str, tuple[Array, tuple[int, ...]]]:
    """Label of each layer -> the array, and the position in it where the array has several."""
    found: dict[str, tuple[Array, tuple[int, ...]]] = {}
    rows, how = job.rows, job.hemodynamics
    for array in arrays:
        made = array.about.get("hemodynamics", "none")
        expect("none" in (made, how), array.where, f"features with {made}, and hemodynamics: {how} once more", "none")
        fits, n = len(array.shape) in (2, 3) and array.shape[-2] == arrays[0].shape[-2], responses.shape[0]
        axes = f"with the {rows} of {arrays[0].where}"
        if n in array.shape[1:] + array.shape[:-1] and array.shape[-2] != n:
            fits, order = False, ("" if len(array.shape) == 2 else f", (LAYERS, {array.shape.index(n)}, FEATURES)")
            axes = f"beside responses of shape {responses.shape}: on another axis? numpy.transpose(X{order})"
        expect(fits, array.where, f"shape {array.shape}", f"({rows}, features) or (layers, {rows}, features), {axes}")
        prefix = "" if len(arrays) == 1 and not array.label else f"{array.name}:"
        several = array.shape[:-2]
        labels = [f"{prefix}{n}" for n in array.about.get("layers", range(*several))] if several else [array.name]
        for number, label in enumerate(labels):
            expect(label not in found, "features", f"layer {label!r} twice", "distinct names: NAME=PATH")
            found[label] = array, (number,) * len(several)
    return found


def _read_table(path: Path, *needed: str, other: str) -> pd.DataFrame:
    """A table with a value in each cell of the columns `needed`; no column is nearly called so, or as the `other`."""
    table = read_table(path)
    for name in sorted({*needed, other} - {*table}):
        plain = {str(column).strip().casefold(): str(column) for column in table if column not in needed}
        near = [plain[text] for text in plain if text[:3] == name[:3] or get_close_matches(text, [name], 1, 0.8)]
        expect(not near, str(path), f"a column {near[:1]}", f"it to be called {name!r}, if that is what it is")
    expect({*needed} <= {*table}, str(path), f"columns {', '.join(map(str, table))}", ", ".join(needed))
    full = len(table) and (table[[*needed]].notna() & (table[[*needed]] != "")).all(axis=None)
    expect(full, str(path), "an empty cell" if len(table) else "no row", f"a value in {' and '.join(needed)}")
    for name in {"n_trs", "voxel"} & {*table}:
        values = numbers(table[name], f"{path}: {name}")
        whole = (abs(values) < 2**53) & (np.floor(values) == values)
        expect(whole.all(), f"{path}: {name}", table[name].tolist()[:5], "whole numbers")
        table[name] = values.astype(int)
    return table.astype(dict.fromkeys({"run", "roi", "subject"} & {*table}, "str"))


def run_lengths(path: Path) -> dict[str, int]:
    """Run -> how many TRs it has, in order, from a table of one row per TR or one row per run."""
    table = _read_table(path, "run", other="n_trs")
    first, where = table["run"], str(path)
    if "n_trs" not in table:
        first, table = first[first != first.shift()], table.assign(n_trs=1)
    twice = first[first.duplicated()].tolist()
    expect(not twice, where, f"run {twice[:1]} in two places", "a row per run, or the rows of its TRs together")
    return {str(run): int(n) for run, n in table.groupby("run", sort=False)["n_trs"].sum().items()}


def _voxels(job: EncodeJob, subjects: dict[str, Array], runs: dict[str, slice], ceilings: list[Array]) -> pd.DataFrame:
    """A row per subject and voxel: ``roi``, ``ceiling`` (NaN: none) and ``note``, why it is left out."""
    parts = [pd.DataFrame({"subject": name, "note": _left_out(array, runs)}) for name, array in subjects.items()]
    voxels = pd.concat(parts).rename_axis("voxel").reset_index().assign(roi="", ceiling=np.nan)
    if job.rois:
        table = _read_table(job.rois, "voxel", "roi", other="subject")
        by = [name for name in ("subject", "voxel") if name in table]
        alike = len({array.shape[1] for array in subjects.values()}) == 1
        expect(alike or len(by) == 2, str(job.rois), "no column subject", "one: subjects have other numbers of voxels")
        known, named = (pd.MultiIndex.from_frame(rows[by]) for rows in (voxels, table))
        wrong = table.loc[named.duplicated() | ~named.isin(known), by].to_numpy().tolist()
        expect(not wrong, str(job.rois), f"rows {wrong[:3]}", "voxels (from 0) that are there, once")
        voxels = voxels.drop(columns="roi").merge(table[[*by, "roi"]], on=by, how="left").fillna({"roi": ""})
    for array in ceilings:
        subject = next(iter(subjects)) if len(subjects) == 1 and not array.label else array.name
        rows = voxels["subject"] == subject
        expected = f"one number per voxel, and SUBJECT=PATH for one of {', '.join(subjects)}"
        found = f"shape {array.shape} for {number_of(rows.sum(), 'voxel')} of {subject}"
        expect(array.shape == (rows.sum(),), array.where, found, expected)
        check_ceiling(values := array[...], array.where)
        expect(not np.isnan(values).all(), array.where, "NaN for every voxel", "a noise ceiling for one at least")
        voxels.loc[rows, "ceiling"] = values
    return voxels.astype({"subject": pd.CategoricalDtype(list(subjects), True), "roi": "category", "note": "category"})


def _left_out(array: Array, runs: Mapping[str, slice]) -> np.ndarray:
    """(n_voxels,) why a voxel of (n_trs, n_voxels) is left out, or an empty string; `runs` are read in pieces."""
    low, high = np.inf, -np.inf
    step = max(1, PIECE // (8 * array.shape[1]))
    for trs in runs.values():
        for start in range(trs.start, trs.stop, step):
            values = array[start : min(start + step, trs.stop)]
            low, high = np.minimum(low, values.min(axis=0)), np.maximum(high, values.max(axis=0))
    finite = np.isfinite(low) & np.isfinite(high)
    notes = np.where(finite, np.where(low == high, "constant", ""), "NaN or infinite")
    for voxel in np.flatnonzero((notes == "") & ~((high - low > 1e-36) & (high - low < 1e36)))[:1]:
        expect(False, array.where, f"voxel {voxel}: a range of {np.take(high - low, voxel):g}", "numbers of float32")
    expect((notes == "").any(), array.where, "each voxel constant, NaN or infinite", "at least one to score")
    return notes


def _cautions(job: EncodeJob, voxels: pd.DataFrame) -> list[str]:
    notes = []
    if job.runs is None and not job.independent:
        notes += ["no runs: all TRs are taken as one; delays and blocks reach over breaks of the scanner"]
    if job.folds == "contiguous" and not job.gap:
        notes += ["gap 0: training TRs touch the tested ones and resemble them; scores may be too high"]
    least = 1 / (1 + job.permutations) if job.permutations and job.null != "pooled" else 0
    if least > job.fdr / 20:
        needed = f"a layer has no significant voxel unless {min(1, least / job.fdr):.0%} of its voxels have that p"
        notes += [f"{number_of(job.permutations, 'permutation')}: no p is below {least:.2g}, and {needed}"]
    if low := len(voxels[(voxels["note"] == "") & ~(voxels["ceiling"] >= 0.1)]) * bool(job.ceiling):
        notes += [f"{number_of(low, 'voxel')} without a noise ceiling of 0.1 or more: no normalised score"]
    for (who, why), rows in voxels[voxels["note"] != ""].groupby(["subject", "note"], observed=True, sort=False):
        notes += [f"subject {who}: left out, with r = NaN and a note: {len(rows)} {why}"]
    return notes


def _table(job: EncodeJob, voxels: pd.DataFrame, layers: list[str], scores: dict[str, encoding.Scores]) -> pd.DataFrame:
    """Scores beside what is known of the voxels; subjects and layers are ordered categories."""
    parts = []
    for subject, of_subject in scores.items():
        own = voxels[voxels["subject"] == subject]
        for number, layer in enumerate(layers):
            found = {name: getattr(of_subject, name)[number] for name in ("r", "p", "alpha", "significant")}
            parts.append(own.assign(layer=layer).join(pd.DataFrame(found, own.index[own["note"] == ""])))
    table = pd.concat(parts, ignore_index=True).astype({"layer": pd.CategoricalDtype(layers, True)})
    table["significant"] = table["significant"].eq(True)  # without a score it is not
    if not job.permutations:
        table["p"] = np.float32(np.nan)
    normalised = encoding.normalise(table["r"].to_numpy(), table["ceiling"].to_numpy())
    return table.assign(r_normalised=normalised.astype(np.float32))[COLUMNS]
