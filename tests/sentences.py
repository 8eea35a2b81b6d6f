"""What the sentences of pages say, recomputed from the tables that they are about: one check for each page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from phaselab.book import plain
from phaselab.brains import BrainData, load_brain
from phaselab.curves import brain_layer
from phaselab.phases import fit_table, triple_phase_test
from phaselab.results import amount
from phaselab.study import digest_of, load_study
from tiny import LABEL

ROOT = Path(__file__).parents[1]
NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?"


def numbers(text: str, pattern: str) -> list[float]:
    """The numbers in what `pattern` (with # for a number) finds in `text`; thousands may have commas."""
    found = re.search(pattern.replace("#", f"({NUMBER})"), " ".join(text.split()))
    assert found, f"no sentence {pattern!r} in\n{text}"
    return [float(group.rstrip(",").replace(",", "")) for group in found.groups()]


def rounded(values: Any, digits: int) -> list[Any]:
    return [pytest.approx(float(value), abs=0.51 * 10.0**-digits) for value in values]


def curves_of(folder: Path, model: str) -> pd.DataFrame:
    """The curves table, put together from the files of the stages."""
    files = sorted((folder / "results" / "tiny" / model).glob("*/*/curves.parquet"))
    return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)


def brain_of(folder: Path) -> BrainData:
    return load_brain(load_study(folder / "tiny.yaml").brain, None)


def steps_of(file: Path) -> int:
    found = re.search(r"step(\d+)", file.parts[-3])
    assert found
    return int(found[1])


def interval(values: Any) -> list[float]:
    """Mean and Student's 95 % interval of values of subjects."""
    own = np.asarray(values, dtype=float)
    half = stats.t.ppf(0.975, len(own) - 1) * own.std(ddof=1) / np.sqrt(len(own))
    return [own.mean(), own.mean() - half, own.mean() + half]


def scores(folder: Path, measure: str = "r_normalised") -> pd.DataFrame:
    """Brain scores of all voxels: mean over subjects by tokens and layer."""
    curves = curves_of(folder, "one")
    return curves[(curves["measure"] == measure) & (curves["roi"] == "all")].pivot_table(
        index="tokens", columns="layer", values="value"
    )


def five_minutes(text: str, folder: Path) -> None:
    """Sizes of the experiment, first and last score, and what was found of each phase."""
    brain, tables = brain_of(folder), [curves_of(folder, name) for name in ("one", "two")]
    texts = [text for run in brain.stimulus.runs for text in run.texts]
    # Some thousands of words, of which full stops are none.
    assert numbers(text, r"n_words: '#'") == [sum(re.search(r"\w", word) is not None for word in texts)]
    assert numbers(text, r"n_models: '# models'") == [2]
    assert numbers(text, r"n_subjects: '# simulated subjects'") == [len(brain.subjects)]
    assert numbers(text, r"minutes: #") == [round(sum(run.n_trs * run.tr for run in brain.stimulus.runs) / 60, 1)]
    assert numbers(text, r"n_checkpoints: '# checkpoints'") == [3]
    assert numbers(text, r"n_checkpoints_all: '# checkpoints'") == [6]
    tokens = tables[0]["tokens"]
    assert f"first_tokens: '{amount(tokens.min())}'" in text
    assert f"\ntokens: '{amount(tokens.max())}'" in text
    assert numbers(text, r"n_rows: '#'") == [sum(map(len, tables))]
    curve = scores(folder)[brain_layer(tables[0])]
    assert numbers(text, r" first: #") == pytest.approx([curve.iloc[0]])
    assert numbers(text, r" last: #") == pytest.approx([curve.iloc[-1]])
    verdicts = pd.concat([triple_phase_test(table, n).table for n, table in zip(("one", "two"), tables, strict=True)])
    for phase, own in verdicts.groupby("phase")["verdict"]:
        other = own[~own.isin(["found", "not found"])].value_counts().sort_index()
        also = "".join(f", {verdict} in {n}" for verdict, n in other.items())
        assert f"Phase {phase} is found in {(own == 'found').sum()} of 2 models{also}" in text


def stimuli(text: str, folder: Path) -> None:
    """The regions of highest and lowest ceiling, and the sizes of the runs."""
    brain = brain_of(folder)
    assert brain.ceiling is not None
    table = pd.concat([pd.DataFrame({"roi": brain.rois[s], "value": brain.ceiling[s]}) for s in brain.subjects])
    median = table.groupby("roi")["value"].median().sort_values()
    assert numbers(text, r"highest in .*? \(#\) and lowest in .*? \(#\)") == rounded(median.iloc[[-1, 0]], 2)
    for run in brain.stimulus.runs:
        said = numbers(text, rf"<td>{run.name}</td> <td>#</td> <td>#</td> <td>#</td>")
        assert said == [len(run.texts), run.n_trs, round(run.n_trs * run.tr / 60, 1)]


def brain_alignment(text: str, folder: Path) -> None:
    """The layer and how it compares; the point by hand; the control of the folds; differences from controls."""
    table = scores(folder)
    said = numbers(text, r"Layer # stands for the model .*? has a mean of #, and the highest one is #, of layer #\.")
    means = table.mean()
    layer = min(means.index, key=lambda k: abs(k - 2 / 3 * means.index.max()))
    assert said == [layer, *rounded([means[layer], means.max()], 4), means.idxmax()]
    curve = table[layer]
    said = numbers(text, r"Its score .*? is # at the first .*? and # at the last .*? the highest is #, after")
    assert said == rounded([curve.iloc[0], curve.iloc[-1], curve.max()], 3)
    highest = table.idxmax(axis=1).value_counts().sort_index()
    listed = ", ".join(f"layer {own} at {n}" for own, n in highest.items())
    assert f"of {len(table)}, the highest is {listed}." in " ".join(text.split())

    curves = curves_of(folder, "one")
    one = curves[(curves["measure"] == "r") & (curves["roi"] == "all") & (curves["layer"] == layer)]
    by_subject = one.pivot_table(index="subject", columns="tokens", values="value")
    trained, untrained = by_subject[one["tokens"].max()], by_subject[0]
    own = trained.iloc[0]
    for name in ("himalaya", "phaselab", "the curves table"):
        assert numbers(text, rf"<td>{name}</td> <td>#</td>")[0] == pytest.approx(own, abs=1e-3)
    given_away = [
        numbers(text, rf"<td>{folds}</td> <td>#</td>")[0] for folds in ("the folds of this study", "shuffled TRs")
    ]
    assert given_away[0] == pytest.approx(0, abs=0.05)
    assert given_away[1] > 0.2
    said = numbers(text, r"nothing is given away of .*? \(#\)\. With shuffled TRs .*? reaches #, more .*? folds \(#\)")
    assert said == rounded([*given_away, own], 3)

    (file,) = (folder / "results" / "tiny" / "one").glob("*/controls/controls.parquet")
    controls = pd.read_parquet(file).query("measure == 'r' and roi == 'all'")
    of = {name: own.groupby("subject")["value"].mean() for name, own in controls.query("layer == 0").groupby("model")}
    shuffled = controls.query("model == 'control: shuffled stimulus' and layer == @layer")
    said = numbers(text, r"shuffled stimulus the mean correlation is # \(# to #\)")
    assert said == rounded(interval(shuffled.groupby("subject")["value"].mean()), 3)
    found = r"# \(95 % interval over subjects # to #\)"
    said = numbers(text, rf"Training .* the correlation: by {found} from the untrained")
    assert said == rounded(interval(trained - untrained), 3)
    rate, aside = (of[f"control: {name}"] for name in ("word rate", "nuisance space"))
    said = numbers(text, rf"other nuisance, which alone reach #: by {found}; the untrained .*? by {found}")
    assert said == rounded([aside.mean(), *interval(trained - aside), *interval(untrained - aside)], 3)
    said = numbers(text, rf"word rate alone \(#\): by {found}")
    assert said == rounded([rate.mean(), *interval(trained - rate)], 3)
    brain = brain_of(folder)
    assert brain.ceiling is not None
    ceiling = np.mean([np.nanmean(own) for own in brain.ceiling.values()])
    said = numbers(text, r"true latents reach #% of the mean ceiling")
    assert said == rounded([100 * of["control: true latents"].mean() / ceiling], 0)


def own_model(text: str, folder: Path) -> None:
    """Rows of a checkpoint, and its mean correlation with its interval."""
    curves = curves_of(folder, "one")
    last = curves[curves["tokens"] == curves["tokens"].max()]
    rows, layer, *said = numbers(text, r"adds # rows .*? In layer # its mean .* is # \(95 % .* subjects # to #\)")
    assert rows == len(last)
    own = last[(last["measure"] == "r") & (last["roi"] == "all") & (last["layer"] == layer)]
    assert said == rounded(interval(own["value"]), 3)


def model_page(text: str, folder: Path) -> None:
    """First and last score of the layer, and its table of regions."""
    layer, *said = numbers(text, r"In layer # the brain score of `one` .*? goes from # to # over")
    curve = scores(folder)[layer]
    tokens = curve.index.max()
    assert f"over {amount(tokens)} tokens" in text
    assert said == rounded([curve.iloc[0], curve.iloc[-1]], 3)
    curves = curves_of(folder, "one")
    regions = curves[(curves["measure"] == "r_normalised") & curves["value"].notna()]
    wide = regions.pivot_table(index="roi", columns=["layer", "tokens"], values="value")
    for roi, row in wide.iterrows():
        ends = row[layer].iloc[[0, -1]]
        best = row.xs(tokens, level="tokens").idxmax()
        assert numbers(text, rf"<td>{roi}</td> <td>#</td> <td>#</td> <td>#</td>") == [*rounded(ends, 3), best]


def record(text: str, folder: Path) -> None:
    """Sizes of the data and of the curves table, its digest, and what was measured where."""
    brain = brain_of(folder)
    said = numbers(text, r"<td>texts; TRs</td> <td>#; #</td>")
    assert said == [sum(len(run.texts) for run in brain.stimulus.runs), sum(run.n_trs for run in brain.stimulus.runs)]
    assert digest_of(load_study(folder / "tiny.yaml")) in text
    assert brain.digest in text
    whole = pd.read_parquet(folder / "results" / "tiny" / "curves.parquet")
    assert numbers(text, r"has # rows from # checkpoints of # models") == [len(whole), 6, 2]
    assert digest_of(whole.round(12).to_csv(index=False)) in text
    for model, own in whole.groupby("model"):
        there = own.groupby("perspective")["tokens"].nunique()
        assert numbers(text, rf"<td>{model}</td> <td>#</td> <td>#</td> <td>#</td> <td>#</td> </tr>") == [3, *there]
    assert "each was measured at every checkpoint of every model." in text


def real_models(text: str, folder: Path) -> None:
    """Page 13: what is said of each published table, and of the falls that could be found."""
    tables = folder / "tables"
    bert_and_people(text, tables)
    ngram_order(text, tables)
    grammar_and_vision(text, tables)
    nine_tasks(text, tables)
    power = pd.DataFrame(json.loads((ROOT / "benchmarks" / "results" / "phases.json").read_text())["power"])
    shallowest = {}
    for (n, _), own in power.groupby(["checkpoints", "subjects"]):
        own = own.sort_values("depth")
        above = int(np.argmax(own["power"] >= 0.8)) if (own["power"] >= 0.8).any() else 0
        if above:  # where a straight line between the two depths passes .8
            depth = float(
                np.interp(0.8, own["power"].iloc[above - 1 : above + 1], own["depth"].iloc[above - 1 : above + 1])
            )
            shallowest[n] = min(shallowest.get(n, np.inf), depth)
    for n, depth in shallowest.items():
        assert numbers(text, rf"with {n} checkpoints #") == rounded([depth], 1)


def beyond(fitted: pd.DataFrame, kind: str) -> pd.DataFrame:
    return fitted[(fitted["kind"] == kind) & (fitted["q"] <= 0.05)]


def bert_and_people(text: str, tables: Path) -> None:
    """Falls of the eight fine-tunings, over runs and over people, and which return."""
    table = pd.read_csv(tables / "bert_fmri" / "decoding.csv")
    wide = table.pivot_table(index=["model", "step"], columns=["run", "subject"], values="value").dropna()
    for name, unit in (("4 **runs**", "run"), ("8 **people**", "subject")):
        rows = wide.T.groupby(unit).mean().T.stack().rename("value").reset_index()
        moves = fit_table(rows, "step", by=["model"], replicates=unit).moves
        falls, rises = beyond(moves, "fall"), beyond(moves, "rise")
        pairs = falls.merge(rises, on="model", suffixes=("", "_back"))
        back = pairs[pairs["onset_back"] >= pairs["midpoint"]].drop_duplicates("model")
        if falls.empty:
            near = moves[moves["kind"] == "fall"].sort_values("p").iloc[0]
            said = f"none of the 8 falls beyond chance; the closest is {near['model']} (p = {near['p']:.2g}, q = "
            assert f"With the {name} as replicates {said}" in text
            continue
        said = numbers(text, rf"the {re.escape(name)}(?: as replicates)? # of the 8 fall .*?\), and # of those return")
        assert said == [falls["model"].nunique(), len(back)]
        for row in back.itertuples():
            said = numbers(text, rf"return in part beyond chance \(.*?{row.model} by # of #")
            assert said == rounded([row.height_back, -row.height], 3)


def ngram_order(text: str, tables: Path) -> None:
    """In how many sizes the order is found, pairs in order, and falls after the peak."""
    table = pd.read_csv(tables / "ngram_seeds" / "correlations.csv")
    table = table[table["size"].isin(["14m", "31m", "70m", "160m", "410m"]) & table["measure"].str.contains("gram")]
    moves = fit_table(table.sort_values("measure"), by=["measure", "size"], replicates="seed").moves
    rises = moves[moves["kind"] == "rise"].sort_values("height").groupby(["measure", "size"]).last()
    claimed = [rises.loc[f"Pile_{n}gram"] for n in (1, 2, 3, 5)]
    right = np.array([a["end"] < b["end"] for a, b in pairwise(claimed)])  # (3, 5 sizes)
    clear = sum((a["end_high"] < b["end_low"]).sum() for a, b in pairwise(claimed))
    assert numbers(
        text, r"1, 2, 3, 5 is recovered in # of 5 sizes\. Of the # .* pairs # are .* order and # are so"
    ) == [
        right.all(axis=0).sum(),
        15,
        right.sum(),
        clear,
    ]
    mean = table.groupby(["size", "measure", "tokens"])["value"].mean().unstack().idxmax(axis=1).unstack()
    highest = mean[[f"Pile_{n}gram" for n in (1, 2, 3, 5)]].to_numpy()
    assert numbers(text, r"mean of the seeds is highest, the order holds in # of 5:") == [
        (np.diff(highest) > 0).all(axis=1).sum()
    ]
    falls = beyond(moves, "fall").groupby("measure")["size"].nunique()
    for n in range(1, 6):
        assert numbers(text, rf"beyond chance in .*?# of 5 sizes for {n}-grams") == [falls.get(f"Pile_{n}gram", 0)]


def grammar_and_vision(text: str, tables: Path) -> None:
    """The heights of BLiMP's mean, phenomena that move, and vision models whose alignment falls."""
    table = pd.read_csv(tables / "blimp_seeds" / "accuracy.csv")
    table = table.loc[table.index.repeat(table["paradigms"])]
    mean = table.groupby(["seed", "tokens"], as_index=False)["value"].mean()
    moves = fit_table(mean, replicates="seed").moves
    said = numbers(text, r"mean over paradigms rises by #, then falls by #, then rises by #; # of these # heights")
    off = np.sign(moves["height_low"]) == np.sign(moves["height_high"])
    assert said == [*rounded(moves["height"].abs(), 3), off.sum(), len(moves)]
    each = table.groupby(["phenomenon", "seed", "tokens"], as_index=False)["value"].mean()
    grammar = fit_table(each, by=["phenomenon"], replicates="seed").moves
    up, down = (set(beyond(grammar, kind)["phenomenon"]) for kind in ("rise", "fall"))
    assert numbers(text, r"By phenomenon # of # rise beyond chance and # fall") == [len(up), 12, len(down)]
    low = {
        name: min(interval(v)[2] for _, v in own.groupby("tokens")["value"]) for name, own in each.groupby("phenomenon")
    }
    wrong = [name for name in sorted(down) if low[name] < 0.5]
    assert f"In {', '.join(wrong)} the seeds' interval then lies below chance" in text.replace("\\", "")

    vision = pd.read_csv(tables / "vision_brain" / "scores.csv")
    falls = beyond(fit_table(vision, "n_samples_seen", "score", ["model_id", "region"]).moves, "fall")
    count = falls.groupby("region")["model_id"].nunique()
    said = numbers(
        text, r"falls beyond chance in V1 in #, in V2 in #, in V4 in #, in IT in #, in behaviour in # of # mod"
    )
    regions = ["V1", "V2", "V4", "IT", "Behavioral"]
    assert said == [*count.reindex(regions, fill_value=0), vision["model_id"].nunique()]


def nine_tasks(text: str, tables: Path) -> None:
    """Lift-offs of LAMBADA, what falls again, and log-probabilities."""
    table = pd.read_csv(tables / "pythia" / "zero_shot.csv")
    accuracy, step = table[table["metric"] == "acc"], 2_097_152
    fitted = fit_table(accuracy, "tokens", "value", ["model", "task"], "stderr").moves
    sizes = list(dict.fromkeys(accuracy["model"]))
    rises = fitted[(fitted["kind"] == "rise") & (fitted["task"] == "lambada_openai")]
    lift = rises.drop_duplicates("model").set_index("model")["liftoff"]
    said = numbers(text, r"between step # and step # in # of the # sizes, .*?: a factor of # in time .* of # in size")
    ends = [round(lift.min() / step), round(lift.max() / step)]
    assert said[:4] == [*ends, len(lift), len(sizes)]
    assert said[4:] == [pytest.approx(ends[1] / ends[0], abs=0.051), pytest.approx(160 / 70, abs=0.51)]
    first = fitted[fitted["kind"] == "rise"].groupby(["model", "task"])["onset"].min().rename("first")
    falls = fitted[fitted["kind"] == "fall"].join(first, on=["model", "task"])
    falls = falls[falls["onset"] > falls["first"]]
    own, sure = falls[falls["task"] == "lambada_openai"]["model"].nunique(), (falls["q"] <= 0.05).sum()
    said = numbers(text, r"fits of # of the # sizes fall again.*? Of the # falls of the table # (?:is|are) beyond")
    assert said == [own, len(sizes), len(falls), sure]

    ppl = table[(table["metric"] == "ppl") & (table["task"] == "lambada_openai")]
    smooth = fit_table(
        ppl.assign(value=-np.log(ppl["value"]), stderr=ppl["stderr"] / ppl["value"]),
        "tokens",
        "value",
        ["model"],
        "stderr",
    )
    start, end = (np.mean([smooth.fits[(size,)].values[k] for size in sizes]) for k in (0, -1))
    there = np.mean([smooth.fits[(size,)].at([lift[size]])[0] for size in sizes])
    said = numbers(text, r"starts at # nats and ends at #; when accuracy lifts off it is at #, #% of the way up")
    assert said == [*rounded([start, end, there], 1), *rounded([100 * (there - start) / (end - start)], 0)]
    steep = smooth.moves[smooth.moves["kind"] == "rise"].drop_duplicates("model")["liftoff"] / step
    assert numbers(text, r"steepest from step # to # on\.") == [round(steep.min()), round(steep.max())]


def kept(benchmark: str, start: str) -> float:
    """A value of the kept results of a benchmark."""
    rows = json.loads((ROOT / "benchmarks" / "results" / f"{benchmark}.json").read_text())["rows"]
    return float(next(row["value"] for row in rows if row["name"].startswith(start)))


def encoder(text: str, folder: Path) -> None:
    """Counts of operations by the formulas of the page's table, and times from the kept results."""
    n, p, f, m, test, t = 22_262, 4096, 4, 25, 7737, 60_000
    near = n / f  # rows of a fold; the others train
    far = n - near

    def himalaya(a: int, voxels: int) -> float:
        singular = 6 * (f + 1) * n * p**2 + 20 * (f + 1) * p**3
        matrices = 2 * m * f * far * p * (p + near)
        return (
            singular + matrices + 2 * m * f * far * near * voxels + 2 * a * n * p * (p + voxels) + 2 * test * p * voxels
        )

    plan = 6 * n * p**2 + 2 * test * p**2 + 9 * (f + 1) * p**3 + 4 * f * p**3
    subject = 2 * n * p * t + 6 * f * p**2 * t + 6 * m * f * p * t + 2 * test * p * t
    plain = " ".join(text.split())
    for superscript, digit in zip("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789", strict=True):
        plain = plain.replace(superscript, digit)
    power = r"# × 10#"
    said = numbers(
        plain, rf"alone take {power} op.* column is {power} to {power}, .* takes {power} and each subject {power}\. So"
    )
    counts = [2 * m * f * far * near * t, himalaya(1, t), himalaya(m, t), plan, subject]
    for value, exponent, count in zip(said[::2], said[1::2], counts, strict=True):
        assert value * 10.0**exponent == pytest.approx(count, rel=0.05)
    six = [6 * himalaya(a, t) / (plan + 6 * subject) for a in (1, m)]
    together = [himalaya(a, 6 * t) / (plan + 6 * subject) for a in (1, m)]
    alone = [himalaya(a, t) / (plan + subject) for a in (1, m)]
    said = numbers(plain, r"needs # to # times .*? \(# to # if .*? alone, # to # times")
    assert said == rounded([*six, *together, *alone], 0)

    for size, name in (("one", "one subject (4096 x 768 x 12000), "), ("kernel", "wide (2048 x 1536 x 8000), Kernel")):
        ratios = [kept("encoding", f"{name}RidgeCV{how}") for how in (" in batches", ": himalaya / ours")]
        assert numbers(plain, rf"{size}[a-z ]*</td> <td>#.*?</td> <td>#")[0] == rounded(ratios[:1], 1)[0]
    said = numbers(plain, r"ran at # of the rate .* took # s of processor time and # GiB at most")
    assert said[0] == pytest.approx(kept("encoding", "solving: share of it"), abs=0.0051)
    speed = [
        kept("significance", f"speed, {loop} loop, {n}") for n in ("1024", "7737") for loop in ("plain", "careful")
    ]
    said = numbers(plain, r"12,000 voxels, 1/# of .*? and 1/# of .*? at 7737 TRs 1/# and 1/#\.")
    assert said == rounded(speed, 0)


def findings(text: str, folder: Path) -> None:
    """Verdicts of each model of the study, and falls and returns of the public curves of real brains."""
    labels = {plain(model.label): model.name for model in load_study(folder / "tiny.yaml").models}
    results = {name: triple_phase_test(curves_of(folder, name), name) for name in labels.values()}
    verdicts = pd.concat([result.table for result in results.values()])
    for phase, name in ((1, "alignment"), (2, "detachment"), (3, "realignment")):
        said = re.findall(rf"^- {phase} {name} is \*\*(.*?)\*\* in (.*?)\. ", text, re.MULTILINE)
        own = verdicts[verdicts["phase"] == phase]
        # Published studies stand beside it.
        here = [(verdict, labels[label]) for verdict, label in said if label in labels]
        assert here == [*zip(own["verdict"], own["model"], strict=True)]
        assert numbers(text, rf"claim {phase} (?:is found )?in #") == [sum(verdict == "found" for verdict, _ in said)]
    rows = re.findall(r"<td>((?:(?!</?td>).)*)</td> <td>3</td> <td>2</td> <td>not known</td>", " ".join(text.split()))
    for label, result, row in zip((LABEL, f"{LABEL} 2"), results.values(), rows, strict=True):
        assert not result.brain.decided
        assert label.startswith(unescape(row).removesuffix("..."))  # pandas cuts a long one

    pattern = r"in # of 8 fine-tunings .*? in # of 8 with runs, and in # of # vision models in V1 and # of # in IT"
    counts = numbers(text, pattern)
    table = pd.read_csv(folder / "tables" / "bert_fmri" / "decoding.csv")
    wide = table.pivot_table(index=["model", "step"], columns=["run", "subject"], values="value").dropna()
    for unit, said in (("subject", counts[0]), ("run", counts[1])):
        rows = wide.T.groupby(unit).mean().T.stack().rename("value").reset_index()
        falls = beyond(fit_table(rows, "step", by=["model"], replicates=unit).moves, "fall")
        assert said == falls["model"].nunique()
    vision = pd.read_csv(folder / "tables" / "vision_brain" / "scores.csv")
    for region, said in (("V1", counts[2:4]), ("IT", counts[4:])):
        own = vision[vision["region"] == region]
        falls = beyond(fit_table(own, "n_samples_seen", "score", ["model_id"]).moves, "fall")
        assert said == [falls["model_id"].nunique(), own["model_id"].nunique()]


#: Page -> what recomputes its sentences.
def detachment(text: str, folder: Path) -> None:
    """The paired difference of the brain score over seeds, and verdict and true dates, from the published tables."""
    published = ROOT / "published" / "detachment"
    table = pd.read_parquet(published / "curves.parquet")
    train = load_study("detachment").models[0].train
    assert train
    left, back = (stage.until * train.steps * train.batch * train.context for stage in train.mixes[:2])
    assert numbers(text, "left: '# k'") == rounded([left / 1e3], 0)
    assert numbers(text, "back: '# M'") == rounded([back / 1e6], 2)
    # Two thirds of the depth of three layers is layer 2.
    rows = table[(table["measure"] == "r_normalised") & (table["roi"] == "all") & (table["layer"] == 2)]
    scores = rows.groupby(["model", "tokens"])["value"].mean().unstack("tokens")
    apart = np.array([scores.loc[f"leaves-s{seed}"] - scores.loc[f"stays-s{seed}"] for seed in range(5)])
    away = (scores.columns >= left) & (scores.columns <= back)
    inside, half = apart[:, away].mean(axis=1), stats.t.ppf(0.975, 4) / np.sqrt(5)
    mean, spread = inside.mean(), half * inside.std(ddof=1)
    assert mean + spread < 0
    assert numbers(text, "lower by # than that of those") == rounded([-mean], 3)
    said = numbers(text, r"in the off-domain stage</td> <td>#</td> <td># to #</td>")
    assert said == rounded([mean, mean - spread, mean + spread], 3)
    assert "a fall of this size does not stand out" in text or "is found without the control" in text


def alice(text: str, folder: Path) -> None:
    """What the layer adds to the nuisance regressors at the end of training, over people and over seeds."""
    table = pd.read_parquet(ROOT / "published" / "alice" / "curves.parquet")
    rows = table[(table["measure"] == "r2_unique") & (table["roi"] == "all")]
    last = rows[rows["tokens"] == rows.groupby("model")["tokens"].transform("max")]
    scores = last.pivot_table(index="subject", columns="model", values="value")
    assert len(scores) == 27

    def side(values: Any) -> str:
        _, low, high = interval(values)
        return "above zero" if low > 0 else "below zero" if high < 0 else "not told from zero"

    for name, prefix in {"GPT-NeoX, books": "neox", "Olmo2, books": "olmo2"}.items():
        own = scores.filter(like=prefix)
        assert own.shape[1] == 3
        people, seeds = own.mean(axis=1), own.mean(axis=0)
        assert f"{name}: {side(people)} over 27 people, {side(seeds)} over 3 seeds" in text.replace("\\", "")
        cells = re.findall(rf"<td>{name}</td>(.*?)</tr>", " ".join(text.split()))
        assert any(_ends(cell, people) for cell in cells)
    assert "27 people" in text


def _ends(cell: str, values: Any) -> bool:
    """Whether the last number of a row, with its interval, is that of `values`."""
    found = [float(number) for number in re.findall(NUMBER, cell)[-3:]]
    return len(found) == 3 and found == rounded(interval(values), 3)


CHECKS: dict[str, Callable[[str, Path], None]] = {
    "00_five_minutes": five_minutes,
    "01_stimuli_and_brains": stimuli,
    "03_brain_alignment": brain_alignment,
    "10_your_own_model": own_model,
    "11_model_page": model_page,
    "12_record": record,
    "13_real_models": real_models,
    "14_encoder_derived": encoder,
    "15_findings": findings,
    "16_detachment": detachment,
    "17_alice": alice,
}
