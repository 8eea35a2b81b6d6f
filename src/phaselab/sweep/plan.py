"""What of a study is there, what is to be made, and what that takes; no network is asked and nothing is begun."""

import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd

from phaselab.brains import BRAINS, DataMissing
from phaselab.checkpoints import choose, hub, manifest
from phaselab.data import SETS
from phaselab.data.download import Place
from phaselab.errors import PhaselabError, told
from phaselab.results import MANIFEST, read_json
from phaselab.stages import STAGES, Workbench
from phaselab.stages.context import hub_family
from phaselab.study import Model, Study
from phaselab.sweep.states import of_model

#: Columns of a plan: files, checkpoints or results of what, how many; NaN is not known, of hours not measured.
COUNTS, SUMS = ("of", "what", "asked", "here", "damaged"), ("bytes kept", "bytes to fetch", "cpu hours", "cuda hours")
MEMORY = "bytes of GPU memory"
#: Operations a second of one core of an AMD EPYC, and where they were measured; a test compares the two.
RATES = {
    "training on cpu": (3.514e10, "published/alice/manifest.json (hours of training)"),
    "states on cpu": (7.910e10, "benchmarks/results/features.json (long captions once each)"),
    "ridge on cpu": (7.731e10, "benchmarks/results/encoding-paper.json (CPU time)"),
}
#: What ``benchmarks/gpu.py`` writes, seen from a checkout; words and tokens of a second of speech, which are assumed.
GPU, WORDS, TOKENS = Path("benchmarks/results/gpu.json"), 3, 4
Row = dict[str, Any]


def ridge_operations(trs: int, width: int, voxels: int) -> float:
    """Multiplications and additions of one layer, in the paper's proportions: a quarter is tested, 4 folds choose."""
    n, width, folds = 0.75 * trs, min(width, round(0.75 * trs)), 4
    plan = 2 * width**2 * (3 * n + trs / 4) + width**3 * (4 * folds + 9 * (folds + 1))
    return plan + 2 * width * (trs + folds * (3 * width + 75)) * voxels


def needs(study: Study, model: Model, trs: int, voxels: int, tr: float) -> Row:
    """Operations of one result of ``train`` and ``brain`` by work, and bytes, as far as they can be known."""
    family, train, spec, found = hub_family(model), model.train, study.features, Row()
    network = dict(family.size if family else {})
    if train:
        width, inner = train.hidden_size, train.intermediate_size * (2 if train.architecture == "gpt_neox" else 3)
        network = {"layers": train.layers, "width": width, "blocks": train.layers * width * (4 * width + inner)}
        found["train"] = {"training": 6 * train.steps * train.batch * train.context * network["blocks"]}
    if network and trs * voxels:
        layers = network["layers"] + 1 if spec.layers == "all" else len(spec.layers)
        width = network["width"] * (len(spec.delays) if spec.hemodynamics == "stack" else 1)
        again = {"text": 1 + 1 / TOKENS, "words": 1 + spec.window / spec.stride, "seconds": WORDS * spec.seconds}
        states = 2 * network["blocks"] * TOKENS * trs * tr * again[spec.context]
        fits = layers * (1 if study.encoding.folds == "given" else study.encoding.n_folds)
        found["brain"] = {"states": states, "ridge": fits * ridge_operations(trs, width, voxels)}
        weights = network.get("bytes", nan) / network.get("weight", nan) * (4 if model.dtype == "float32" else 2)
        rank = min(width, trs)  # of the factorised features, whose making takes the most (``Plan``)
        found["memory"] = weights + 8 * (trs * (2 * width + rank) + rank * (width + 10 * rank))
        found["disk"] = 16 * layers * voxels
    return found


def _sets(bench: Workbench) -> tuple[list[Row], tuple[int, int, float]]:
    """A row for each data set and for copies of it; TRs, voxels and seconds of a TR of the brain's, 0: not known."""
    study, chosen, rows, size = bench.study, Row(), list[Row](), (0, 0, 0.0)
    try:
        BRAINS[study.brain.name].files(study.brain, None)
    except DataMissing as error:
        chosen = dict([error.needs or (study.brain.name, str(error))])
    texts = {getattr(part, "text", "") for part in (*study.tasks, *(model.train for model in study.models))}
    chosen |= {"books": {}} if "books" in texts | {getattr(study.brain, "corpus", "")} else {}
    for name, choice in chosen.items():
        if (of := SETS.get(name)) is None:
            rows.append({"of": name, "what": "data", "bytes kept": nan, "bytes to fetch": nan, "next": choice})
            continue
        files, place, (trs, voxels) = of.select(choice), Place(bench.data or Path("DATA"), of), of.size(choice)
        copies = {*BRAINS[study.brain.name].copied(study.brain, bench.data)}
        here = {file for file in files if bench.data and (place.fits(file) or place.path(file) in copies)}
        then = of.command(place.data, choice) if len(here) < len(files) else ""
        for stated in (True, False):  # what is known is a sum of its own
            some = {file for file in files if (file.bytes is not None) == stated}
            kept, fetch = (
                sum(nan if file.bytes is None else file.bytes for file in each) for each in (some, some - here)
            )
            row = {"of": name, "what": "files", "asked": len(some), "here": len(some & here), "bytes kept": kept}
            rows += [row | {"bytes to fetch": fetch, "next": then}] * bool(some)
        rows += [{"of": name, "what": "copies", "bytes kept": 4 * trs * voxels}] * of.copied
        size = (trs, voxels, of.tr) if of.voxels else size
    return rows, size


def _model(bench: Workbench, model: Model, one: Row, speed: Row) -> Iterator[Row]:
    """Rows of the checkpoints of a model on a hub and of each stage; `one`: what one result `needs`."""
    study, family, which, there = bench.study, hub_family(model), model.checkpoints, False
    taken, lost = choose(listed, which) if family and (listed := manifest.listing(family).checkpoints) else [], 0.0
    pinned = not family or bool(taken and all(at.commit for at in taken))  # else the hub would be asked
    with suppress(DataMissing):  # a model whose text is not here is to be trained
        there = not family and bench.there(model)
        taken = bench.checkpoints(model) if there else taken
    most = re.findall(r"^log:(\d+)", which) if isinstance(which, str) else [len(which)]
    n = len(taken) or (model.train.checkpoints if model.train else next(map(int, most), nan))
    if family:
        here, each = sum(map(hub.begun, taken)) if pinned else nan, family.size.get("bytes", nan)
        fetch, then = each * (n - here if pinned else n), "" if pinned else f"phaselab models refresh {family.name}"
        row: Row = {"what": "checkpoints", "asked": n, "here": here, "bytes kept": n * each}
        yield row | {"bytes to fetch": fetch, "next": then}
    found = dict[str, Row]()
    if pinned and any((bench.store.study(study.name) / model.name).glob(f"*/*/{MANIFEST}")):
        lost = nan
        with suppress(DataMissing):  # what cannot be judged
            found = {str(row["stage"]): {"current": 0} | row for row in of_model(bench, model)}
    asked = {name: n if of.scope == "checkpoint" else 1 for name, of in STAGES.items() if of.asked(study, model)}
    if model.train:
        asked, found["train"] = {"train": 1} | asked, {"current": int(there)}
    for stage, of in asked.items():
        of_stage, parts = found.get(stage, {"current": lost}), one.get(stage, {"": nan})
        here, damaged = of_stage["current"], of_stage.get("damaged", 0)
        row = {"what": stage, "asked": of, "here": here, "damaged": damaged, MEMORY: one.get("memory", nan)}
        row["bytes kept"] = one.get("disk", nan) * of if stage == "brain" else nan  # small, and not measured
        for device in ("cpu", "cuda"):
            seconds = sum(k / speed.get(f"{part} on {device}", (nan,))[0] for part, k in parts.items())
            if here and of_stage.get("device", "").partition(":")[0] == device:  # what is here has been measured
                seconds = 60 * of_stage["minutes"] / here
            row[f"{device} hours"] = (of - here) and (of - here) * seconds / 3600
        yield row


def plan(bench: Workbench, name: str) -> Row:
    """What a study takes that is typed `name`: a table with `COUNTS` and `SUMS`, sums, rates, and what to type next."""
    study, found, speed, (rows, size) = bench.study, read_json(GPU), dict(RATES), _sets(bench)
    if found.get("device") == "cuda" and not found["quick"]:
        speed |= {f"{work} on cuda": (rate, str(GPU)) for work, rate in found["rates"].items()}
    where = ["--data", str(bench.data or "DATA")] * any(row["what"] == "files" for row in rows)
    rows += [{"of": task, "what": "items", "bytes kept": nan, "bytes to fetch": nan} for task in bench.task_files]
    for model in study.models:
        try:
            rows += [{"of": model.name} | row for row in _model(bench, model, needs(study, model, *size), speed)]
        except (PhaselabError, OSError) as error:
            rows.append(
                dict.fromkeys(SUMS, nan)
                | {"of": model.name, "what": "checkpoints", "next": f"{model.name}: {told(error)}"}
            )
    blank = dict.fromkeys(("damaged", *SUMS), 0) | {MEMORY: nan, "next": ""}
    table = pd.DataFrame([blank | row for row in rows], columns=[*COUNTS, *SUMS, MEMORY, "next"])
    # What nothing is known of is not 0.
    sums = {of: table[of].sum() or (nan if table[of].isna().any() else 0) for of in SUMS}
    following = [*filter(None, table["next"].unique())]
    following += [shlex.join(["phaselab", do, name, *where]) for do in ("run", "book")]
    rates = [f"{of}: {rate / 1e9:,.4g} G operations a second, {source}" for of, (rate, source) in speed.items()]
    rates += [f"assumed: {WORDS} words and {TOKENS} tokens a second of speech"]
    rates += ["brain: of all published voxels, whichever are chosen; hours without permutations"]
    in_all = pd.Series(sums | {MEMORY: table[MEMORY].max()})
    return {"study": study.name, "rows": table, "sums": in_all, "rates": rates, "next": following}
