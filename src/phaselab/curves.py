"""The curves table: what all units of a study have measured, in one tidy table, and every query of it.

Figures, pages and the tests of the phases read the same curves through these functions.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from phaselab.errors import PhaselabError, expect, number_of
from phaselab.results import amount, read_curves
from phaselab.study import PhaseSpec, Study, at_depth, digest_of

__all__ = ["MEASURES", "NothingToDraw", "amount", "brain_curve", "brain_layer", "brain_measure", "chance_level"]
__all__ += ["comparison", "control_table", "families", "internal_layer", "interval_of", "interval_over", "model_curve"]
__all__ += ["number_of", "of_tasks", "select", "subjects_text"]

Names = Sequence[str] | None  #: of tasks; None: all
Tasks = Mapping[str, Sequence[str]]  #: model -> its tasks

#: What a panel says of a measure of the curves table: its name, and what the y axis counts.
MEASURES = {
    "r": ("brain score", "correlation r"),
    "r_normalised": ("brain score", "share of the ceiling"),
    "left_minus_right": ("brain score, left less right", "difference of r"),
    "instruction_following": ("instruction following", "share of items"),
    "accuracy": ("accuracy", "share of items"),
    "knowing": ("knowing (no options listed)", "share of items"),
    "knowing_log_probability": ("log-probability of the right answer, no options listed", "nats"),
    "accuracy_greedy": ("greedy accuracy", "share of items"),
    "chance_corrected_accuracy": ("accuracy above chance", "share of what is above"),
    "log_probability": ("log-probability of the right answer", "nats"),
    "log_probability_normalised": ("log-probability of the right answer among the options", "nats"),
    "brier": ("Brier score", "squared distance"),
    "entropy": ("entropy over the options", "nats"),
    "intrinsic_dimension": ("intrinsic dimension (TwoNN)", "dimensions"),
    "participation_ratio": ("participation ratio", "dimensions"),
    "effective_rank": ("effective rank", "dimensions"),
    "anisotropy": ("anisotropy", "mean cosine"),
    "norm": ("norm", "length"),
    "probe_advantage": ("probes above shuffled labels", "score"),
}


class NothingToDraw(PhaselabError):
    """The table lacks what a figure shows; the message says what was wanted and what there is."""


def gather(files: Iterable[Path]) -> pd.DataFrame:
    """The rows of `files` (Parquet, of stages), one table with ``results.CURVE_COLUMNS``, in whatever order made."""
    order = ["study", "model", "tokens", "checkpoint", "perspective", "measure", "task", "layer", "subject", "roi"]
    return read_curves(files).sort_values(order, kind="stable", ignore_index=True)


def subjects_text(n: int, simulated: bool) -> str:
    """``n = 3 subjects``, or ``n = 3 simulated subjects``."""
    return f"n = {number_of(n, 'simulated subject' if simulated else 'subject')}"


def plain(label: object) -> str:
    """A label (of a model, a task, an option ...) as Markdown that is shown as it stands, in one line."""
    return re.sub(r"([!-/:-@[-`{-~])", r"\\\1", " ".join(str(label).split()))


def each_row(frame: pd.DataFrame) -> Any:
    """The rows of a table as named tuples."""
    return frame.itertuples(index=False)


def select(curves: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    """The rows whose columns have the `wanted` values; NothingToDraw, with what there is, if none."""
    kept = np.ones(len(curves), dtype=bool)
    for column, value in wanted.items():
        before, kept = kept, kept & (curves[column] == value).to_numpy(dtype=bool)
        if not kept.any():
            there = ", ".join(map(str, sorted(curves[column][before].unique()))) or "no rows"
            raise NothingToDraw(f"curves: {column}: found {there}; expected {value!r}")
    return curves[kept]


def of_tasks(curves: pd.DataFrame, tasks: Names) -> pd.DataFrame:
    """All rows but those of the behaviour in other tasks than these; all rows for None."""
    return curves if tasks is None else curves[(curves["perspective"] != "behaviour") | curves["task"].isin(tasks)]


def chance_level(curves: pd.DataFrame, measure: str = "accuracy") -> float:
    """A measure of guessing, mean over the tasks of the table; NaN where the table, or the measure, does not say."""
    name = {"accuracy": "chance", "knowing": "knowing_chance"}.get(measure)
    return float(curves.loc[curves["measure"] == name, "value"].mean())


def brain_measure(curves: pd.DataFrame) -> str:
    """``r_normalised`` where the ceiling is known, otherwise ``r``."""
    return "r_normalised" if (curves["measure"] == "r_normalised").any() else "r"


def select_layer(rows: pd.DataFrame) -> int:
    """The layer with the highest mean over all checkpoints and subjects: one layer for the whole curve.

    A best layer chosen anew at each checkpoint would make a maximum of noise into a rise. Ties go to the lower
    layer, and the embedding (0) stands only where it is alone. `rows` has columns layer and value; -1 if it is empty.
    """
    layers = rows["layer"] >= min(1, rows["layer"].max())
    means = rows[layers & (rows["layer"] >= 0)].groupby("layer")["value"].mean().dropna()
    return int(means.index[int(means.to_numpy().argmax())]) if len(means) else -1


def brain_layer(curves: pd.DataFrame, layer: float | str | None = None, roi: str = "all", measure: str = "") -> int:
    """The layer that stands for a model: at the same relative depth in all models of a study, whatever it scores.

    layer : a relative depth as a float, 0.0 (the embedding) to 1.0 (the last), to which the nearest layer is taken; a
        layer's number; ``best`` (`select_layer`) or ``mean`` (-1). None: what the study's rule of the phases says,
        which ``Lab.curves`` puts into ``curves.attrs["layer"]``, else two thirds.
    """
    layer = curves.attrs.get("layer", PhaseSpec().layer) if layer is None else layer
    rows = select(curves, perspective="brain", measure=measure or brain_measure(curves), roi=roi)
    layers = sorted(int(i) for i in rows["layer"].unique() if i >= 0)
    if layer in ("best", "mean"):
        return select_layer(rows) if layer == "best" else -1
    if isinstance(layer, float) and 0 <= layer <= 1:
        return at_depth(layers, layer)
    expect(layer in layers, "layer", repr(layer), f"'best', 'mean', a depth 0.0 to 1.0 or one of {layers}")
    return int(layer)


class Curve(NamedTuple):
    """A curve of one model in each of its replicates: a brain score in subjects, a behaviour in tasks.

    A mean is over the same replicates all along the curve: one that lacks a value where others have one is left out as
    a whole, which `notes` say.
    """

    of: str  # the column that names replicates: subject or task
    names: tuple[str, ...]
    tokens: np.ndarray  # (n,)
    values: np.ndarray  # (replicates, n)
    errors: np.ndarray  # (replicates, n) standard errors, NaN where not known
    layer: int = -1  # of a brain score; -1: the mean over layers
    notes: tuple[str, ...] = ()

    @property
    def mean(self) -> np.ndarray:
        """(n,) mean over replicates."""
        return self.values.mean(axis=0) if self.names else np.empty(0)

    @property
    def error(self) -> np.ndarray:
        """(n,) standard error of the mean from those of the replicates, which are independent."""
        return np.asarray(np.sqrt((self.errors**2).sum(axis=0)) / max(len(self.names), 1))

    @property
    def rows(self) -> pd.DataFrame:
        """One row per replicate and checkpoint: its name (in the column `of`), tokens, value, stderr."""
        places = pd.MultiIndex.from_product([self.names, self.tokens.astype(int)], names=[self.of, "tokens"])
        return pd.DataFrame({"value": self.values.ravel(), "stderr": self.errors.ravel()}, places).reset_index()


def told_apart(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Rows with tokens that tell checkpoints apart, where their steps do; and what was done to that end."""
    places = rows[["checkpoint", "step", "tokens"]].drop_duplicates()
    if not (shared := int(places["tokens"].duplicated().sum())):
        return rows, []
    last = places.sort_values("step").iloc[-1]
    if places["step"].duplicated().any() or last["step"] <= 0:
        return rows, [f"{number_of(shared, 'checkpoint')} with the tokens of another, averaged"]
    rate = last["tokens"] / last["step"]  # names are rounded (tokens5B), steps are not
    said = f"{number_of(shared, 'checkpoint')} with the tokens of another: steps times {rate:,.0f} tokens instead"
    return rows.assign(tokens=(rows["step"] * rate).round().astype("int64")), [said]


def complete(values: pd.DataFrame, of: str) -> tuple[pd.DataFrame, list[str]]:
    """A curve in its replicates (a row each, a column per checkpoint), without those that miss some; and what is said.

    Checkpoints at which no replicate (`of`: subject, task, seed ...) has a value go first.
    """
    at = values.notna().any()
    whole = values.loc[:, at].notna().all(axis=1)
    notes = [f"{number_of((~at).sum(), 'checkpoint')} at which no {of} has a value left out"] if not at.all() else []
    if not whole.all():
        notes.append(f"{of} left out for want of a value at some checkpoints: {', '.join(values.index[~whole])}")
    return values.loc[whole, at], notes


def _curve(rows: pd.DataFrame, of: str, measure: str, layer: int = -1) -> Curve:
    rows, notes = told_apart(rows)
    means = rows.groupby([of, "tokens"])[["value", "stderr"]].mean(skipna=False)
    value, more = complete(means["value"].unstack(), of)
    if not len(value):
        raise NothingToDraw(f"curves: {measure}: found no {of} with a value at each checkpoint, expected one or more")
    names, at = value.index if value.size else value.index[:0], value.columns
    values, errors = (t.loc[names, at].to_numpy(dtype=float) for t in (value, means["stderr"].unstack()))
    return Curve(of, tuple(names), at.to_numpy(dtype=float), values, errors, layer, (*notes, *more))


def brain_by_subject(
    curves: pd.DataFrame, roi: str = "all", layer: float | str | None = None, measure: str = ""
) -> Curve:
    """The brain score of one model in each subject; by `brain_layer`, and `brain_measure` unless `measure` is given."""
    measure = measure or brain_measure(curves)
    chosen = brain_layer(curves, layer, roi, measure)
    one = {"layer": chosen} if chosen >= 0 else {}
    rows = select(curves, perspective="brain", measure=measure, roi=roi, **one)
    return _curve(rows, "subject", measure, chosen)


def behaviour_by_task(curves: pd.DataFrame, measure: str, tasks: Names = None) -> Curve:
    """A measure of the behaviour of one model in each of `tasks` that has it, as notes say; None: of all tasks."""
    every = select(curves, perspective="behaviour")
    rows = select(every, measure=measure)
    there, known = sorted(rows["task"].unique()), set(every["task"].unique())
    if absent := sorted(set(tasks or ()) - known):
        raise PhaselabError(f"tasks: found no {measure} of {', '.join(absent)}, expected some of {', '.join(there)}")
    curve = _curve(rows if tasks is None else rows[rows["task"].isin(tasks)], "task", measure)
    without = ", ".join(sorted(known.intersection(tasks or known).difference(there)))
    note = f"{measure.replace('_', ' ')} not asked in {without}"
    return curve._replace(notes=(*curve.notes, note)) if without else curve


def interval_of(rows: pd.DataFrame, by: Sequence[str] = ("tokens",), scatter: bool = False) -> pd.DataFrame:
    """Mean of ``value`` over the rows of each group with its 95 % interval: `by`, value, low, high, n, in order.

    The rows' own ``stderr`` are taken as independent (items of tasks, folds of probes). With `scatter`, where a group
    has several rows (subjects, seeds), it is Student's t interval over them.
    """
    from scipy import stats

    groups = rows.dropna(subset=["value"]).reindex(columns=[*by, "value", "stderr"]).groupby(list(by), sort=True)
    table = groups["value"].agg(value="mean", spread="sem", n="size")
    half = 1.96 * np.sqrt(groups["stderr"].agg(lambda errors: (errors**2).sum(skipna=False))) / table["n"]
    if scatter:
        half = half.where(table["n"] == 1, stats.t.ppf(0.975, table["n"] - 1) * table["spread"])
    table = table.assign(low=table["value"] - half, high=table["value"] + half).reset_index()
    return pd.DataFrame(table[[*by, "value", "low", "high", "n"]])


interval_over = partial(interval_of, scatter=True)


def brain_curve(
    curves: pd.DataFrame, roi: str = "all", layer: float | str | None = None, measure: str = ""
) -> pd.DataFrame:
    """``brain_by_subject`` by tokens: the mean over subjects with its 95 % interval."""
    return interval_over(brain_by_subject(curves, roi, layer, measure).rows)


def model_curve(curves: pd.DataFrame, measure: str) -> pd.DataFrame:
    """One curve of one model, columns of ``interval_of``; what was done to its checkpoints is in ``attrs["notes"]``.

    `measure` is ``brain`` (the study's layer, all voxels), ``probes`` (score above that for shuffled labels in
    ``internal_layer``, mean over labels; empty without probes) or a measure of behaviour (mean over tasks).
    """
    if measure == "probes":
        rows, notes = told_apart(_above_shuffled(curves))
        table = interval_of(rows[rows["layer"] == select_layer(rows)])
    else:
        curve = brain_by_subject(curves) if measure == "brain" else behaviour_by_task(curves, measure)
        table, notes = interval_of(curve.rows, scatter=measure == "brain"), [*curve.notes]
    table.attrs["notes"] = tuple(notes)
    return table


def internal_layer(curves: pd.DataFrame) -> int:
    """The layer whose probes are highest above shuffled labels over all of training; without probes ``brain_layer``."""
    rows = _above_shuffled(curves)
    return select_layer(rows) if len(rows) else brain_layer(curves)


def _above_shuffled(curves: pd.DataFrame) -> pd.DataFrame:
    """Rows of probes with what shuffled labels give taken off; standard errors added as independent."""
    keys = ["model", "checkpoint", "tokens", "layer", "task"]
    score = curves[curves["measure"].isin(["probe_accuracy", "probe_correlation"])]
    shuffled = curves[curves["measure"] == "probe_shuffled"]
    both = score.merge(shuffled[[*keys, "value", "stderr"]], on=keys, suffixes=("", "_shuffled"))
    value = both["value"] - both["value_shuffled"]
    return both.assign(value=value, stderr=np.hypot(both["stderr"], both["stderr_shuffled"]))


def control_table(
    curves: pd.DataFrame, controls: pd.DataFrame, ceiling: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """Trained and untrained model, ceiling and controls in correlation units: order, condition, subject, value.

    The layer (``brain_layer``) is the same for trained and untrained, and for the shuffled stimulus;
    shuffles are averaged. Controls of a study that has none are left out.
    """
    layer = brain_layer(curves)
    rows = select(curves, perspective="brain", measure="r", roi="all", layer=layer)
    known = controls[(controls["measure"] == "r") & (controls["roi"] == "all")]
    parts = {"noise ceiling": pd.DataFrame((ceiling or {}).items(), columns=["subject", "value"])}
    parts["true latents"] = known[known["model"] == "control: true latents"]
    parts[f"trained model, layer {layer}"] = rows[rows["tokens"] == rows["tokens"].max()]
    parts[f"untrained model, layer {layer}"] = rows[rows["tokens"] == 0]
    for name in sorted(set(known["model"].unique()) - {"control: true latents"}):
        own = known[known["model"] == name]
        parts[name.removeprefix("control: ")] = own[own["layer"] == layer] if own["layer"].nunique() > 1 else own
    means = {c: part.groupby("subject", as_index=False)["value"].mean() for c, part in parts.items() if len(part)}
    out: list[pd.DataFrame] = [mean.assign(order=order, condition=c) for order, (c, mean) in enumerate(means.items())]
    return pd.concat(out, ignore_index=True).reindex(columns=["order", "condition", "subject", "value"])


def families(study: Study) -> pd.DataFrame:
    """The models of a study and what they differ in: model, label, architecture, mix, seed, group.

    Models of one `group` differ in their seed alone; its name is their label without the seed. A model that was neither
    trained here nor is one of the seeds of a family is a group of its own.
    """
    from phaselab.checkpoints import FAMILIES  # with a library of the hub, which pages of tables do without

    rows = []
    for model in study.models:
        spec, label, family = model.train, model.label or model.name, FAMILIES.get(model.family or "")
        recipe = {field: str(getattr(spec, field, "")) for field in ("architecture", "mix", "seed")}
        key = digest_of(spec.model_dump(mode="json", exclude={"seed"})) if spec else model.name
        if family and family.seeds:
            same = model.model_dump(mode="json", exclude={"name", "label", "family"})
            recipe["seed"], key = str(family.seed), digest_of([family.run or family.name, same])
        group = re.sub(r"[\s,;(-]*seed ?\d+\)?$", "", label) if recipe["seed"] else label
        rows.append({"model": model.name, "label": label, **recipe, "key": key, "group": group})
    table = pd.DataFrame(rows)
    firsts = table.groupby("key", sort=False)[["model", "group"]].first()
    # Models, and groups, whose labels tell no difference are told apart by a model's name.
    alike = firsts["group"].duplicated() | (firsts["group"].isin(table["model"]) & (table["key"].value_counts() > 1))
    firsts["group"] = firsts["group"].mask(alike, firsts["group"] + " (" + firsts["model"] + ")")
    twice, longer = table["label"].duplicated(keep=False), table["label"] + " (" + table["model"] + ")"
    return table.assign(label=table["label"].mask(twice, longer), group=table.pop("key").map(firsts["group"]))


def comparison(curves: pd.DataFrame, models: pd.DataFrame, tasks: Tasks) -> pd.DataFrame:
    """A row per model: brain first and last, its layer, behaviour (of `tasks` by model) and probes at the end."""
    out = []
    for row in each_row(models[models["model"].isin(curves["model"])]):
        own = of_tasks(curves[curves["model"] == row.model], tasks.get(row.model))
        entry = {"model": row.label, "tokens": amount(own["tokens"].max()), "layer": brain_layer(own)}
        entry |= zip(("brain, first", "brain, last"), brain_curve(own)["value"].iloc[[0, -1]].round(3), strict=True)
        for measure in ("instruction_following", "accuracy", "probes"):
            if (own["measure"] == measure).any() or (measure == "probes" and len(_above_shuffled(own))):
                name = "probes above shuffled" if measure == "probes" else measure.replace("_", " ")
                entry[name] = round(float(model_curve(own, measure)["value"].iloc[-1]), 3)
        out.append(entry)
    return pd.DataFrame(out)
