"""What a model does: measures of multiple-choice items, scored as lm-evaluation-harness scores them."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from phaselab.errors import PhaselabError, expect, number_of
from phaselab.texts.base import Item

#: Measure -> column of the per-item table whose mean over items it is.
MEASURES = {"instruction_following": "follows", "accuracy": "correct", "accuracy_greedy": "correct_greedy"}
MEASURES |= {"chance_corrected_accuracy": "chance_corrected"}
MEASURES |= {name: name for name in ("log_probability", "log_probability_normalised", "brier", "entropy")}
#: The same for tasks whose answers are generated.
GENERATED = {"instruction_following_strict": "follows_strict", "instruction_following_lenient": "follows_lenient"}
GENERATED |= {"accuracy_strict": "correct_strict", "accuracy_lenient": "correct_lenient"}
#: The same for items whose options can be asked for without being listed.
KNOWING = {"knowing": "knows", "knowing_log_probability": "knowing_log_probability"}
#: Columns of the per-item table that are not measures.
ABOUT = ["task", "item", "kind", "language", "scored", "options", "answer", "answer_position"]
ABOUT += ["chosen", "chosen_position", "chosen_unlisted", "greedy", "said"]
#: A capital that stands alone, and is not the article ("A dog"): before a small word only as in "A or B", "A is right".
_A = r"A(?![ \t]+(?!(?:or|and|is|was|because|since)\b)[a-z])"
_LETTER = re.compile(rf"(?<![A-Za-z0-9])(?:{_A}|[B-Z])(?![A-Za-z0-9'’])")
#: Of each option its log-probability, and whether it is greedy; None: not scored.
Scores = list[tuple[float, bool]] | None


def refuse(where: str, bad: Mapping[str, Sequence[str]], of: int, first: Mapping[str, str] | None = None) -> None:
    """Raises if there are `bad` items, rule -> those that break it, of so many; `first`: what the first one has."""
    told = []
    for rule, items in bad.items():
        named, also = ", ".join(items[:5]) + " ..." * (len(items) > 5), f"; {first[rule]}" if first else ""
        told.append(f"{len(items):,} of {number_of(of, 'item')}: {rule}: items {named}{also}")
    if told:
        raise PhaselabError(f"{where}: {'; '.join(told)}")


def score_tasks(
    model: Any, tokenizer: Any, items: dict[str, list[Item]], batch_size: int = 32, generate: Mapping[str, int] = {}
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score a model in memory on multiple-choice items, task -> items; ``scoring.requests`` tells what is encoded.

    `generate`: task -> tokens of a greedy answer, up to the end of its line. Refuses a task none of whose items fits,
    and items whose options have no tokens of their own. Gives two tables:

    rows : one row per task and measure: mean over items, and standard error (NaN for a single item). Measures:

        - ``instruction_following``: share of items whose greedy continuation starts with one of the options, all its
          tokens included (no rows where prompts ask for none); ``accuracy_greedy``: share where that option is right;
        - ``accuracy``: share whose option of highest log-probability (summed over tokens) is right;
          ``chance_corrected_accuracy``: (accuracy - 1/k) / (1 - 1/k) for items of k options;
        - ``log_probability``: of the right option, nats; ``log_probability_normalised``: the same among the options
          alone (chance: -log k); ``entropy``: of the probabilities among options, nats; ``brier``: their squared
          distance from the right answer, summed over options, 0 to 2 (Brier 1950);
        - ``position_share_1``, ``_2`` ...: share of the items with so many options whose most probable one is the
          first, the second ... listed; ``position_bias``, where all items have as many options: half the sum of
          absolute differences between these and the shares of the right answers, above 0 by chance with few items;
        - of generated answers ``instruction_following_strict`` and ``_lenient``: share that is one of the options and
          nothing else, or names one (`lenient`); ``accuracy_strict`` and ``_lenient``: where that option is right;
        - ``knowing``: accuracy after the item's ``question`` alone, no options listed, among what they say;
          ``knowing_log_probability``: of the right one among them, nats; ``knowing_chance``: 1/k;
          ``knowing_left_out``: share of items where it is not known (no question, or the same tokens), which
          ``rows.attrs["notes"]`` counts. A task where it is not known at all has no such rows;
        - ``chance``: 1/k; ``left_out``: share of all items that were not scored, being longer than the model's context;
          all other measures are without them. These two, ``position_bias`` and the last two of knowing have no stderr.
    per_item : one row an item: texts of the right option (``answer``), of the most probable one (``chosen``,
        ``chosen_unlisted`` after the question alone) and of the greedy one, their positions from 0 (-1: not scored),
        how many ``options``, what was ``said``, and a column per measure, NaN where it is not known.
    """
    from phaselab.behaviour import scoring

    tokens = dict.fromkeys(items, 0) | dict(generate)
    listed = [(task, item) for task, of_task in items.items() for item in of_task]
    alone = [k for k, (_, item) in enumerate(listed) if item.question]
    pairs = [(item.prompt, item.options, tokens[task]) for task, item in listed]
    pairs += [(item.question, item.choices or item.options, 0) for _, item in (listed[k] for k in alone)]
    encoded = scoring.requests(model, tokenizer, pairs)
    for task in items:
        faults = [(item.id, r.fault) for (of, item), r in zip(listed, encoded, strict=False) if of == task]
        if all(fault.startswith(scoring.LONG) for _, fault in faults):
            raise PhaselabError(f"{task}: no prompt fits{faults[0][1].removeprefix(scoring.LONG) if faults else ''}")
        wrong = [(name, fault) for name, fault in faults if fault and not fault.startswith(scoring.LONG)]
        refuse(task, {fault: [name for name, of in wrong if of == fault] for _, fault in wrong}, len(faults))
    usable = [None if request.fault else request for request in encoded]
    unlisted = dict(zip(alone, usable[len(listed) :], strict=True))
    # All in one call, so that batches are full; what is asked twice is asked once.
    requests = list(dict.fromkeys(filter(None, usable)))
    scores: dict[Any, Any] = dict(zip(requests, scoring.score(model, requests, batch_size), strict=True))
    generated = {k: (r.prompt, n) for k, (r, (*_, n)) in enumerate(zip(usable, pairs, strict=True)) if r and n}
    expect(not generated or model.can_generate(), "generate", type(model).__name__, "a network that can generate")
    said = scoring.continuations(model, tokenizer, list(generated.values()), batch_size)
    answered = dict(zip(generated, said, strict=True))
    outcomes = []
    for k, (task, item) in enumerate(listed):
        found = scores.get(usable[k]), scores.get(unlisted.get(k)), answered.get(k)
        outcomes.append({"task": task} | _outcome(item, *found))
    per_item = pd.DataFrame(outcomes, columns=[*ABOUT, *(MEASURES | GENERATED | KNOWING).values()])
    rows = _means(per_item)
    unknown = per_item.loc[per_item["scored"] & per_item["knows"].isna(), "task"].value_counts(sort=False)
    rows.attrs["notes"] = {"knowing_left_out": {str(task): int(n) for task, n in unknown.items()}}
    return rows, per_item


def _outcome(item: Item, scores: Scores, unlisted: Scores, said: str | None) -> dict[str, Any]:
    """A row of the per-item table: from the options' `scores`, those after the question alone, and what was `said`."""
    k, right = len(item.options), item.options[item.answer]
    row = {"item": item.id, "kind": item.kind, "language": item.language, "scored": scores is not None, "options": k}
    row |= {"answer": right, "answer_position": item.answer, "said": said or "", "chosen_unlisted": ""}
    if scores is None:
        return row | {"chosen": "", "chosen_position": -1, "greedy": ""}
    if unlisted is not None:
        logp = np.array([score for score, _ in unlisted])  # (k,)
        best, knowing = int(logp.argmax()), (logp - np.logaddexp.reduce(logp))[item.answer]
        row |= {"chosen_unlisted": (item.choices or item.options)[best]}
        row |= {"knows": float(best == item.answer), "knowing_log_probability": knowing}
    if said is not None:
        for name, rule in (("strict", strict), ("lenient", lenient)):
            named = rule(said, item.options)
            row |= {f"follows_{name}": float(named != ""), f"correct_{name}": float(named == right)}
    logp = np.array([score for score, _ in scores])  # (k,)
    normalised, chosen = logp - np.logaddexp.reduce(logp), int(logp.argmax())
    p, correct = np.exp(normalised), float(chosen == item.answer)
    # When one option begins with another both can be greedy; the longer one is what would be said.
    greedy = max((o for o, (_, is_greedy) in zip(item.options, scores, strict=True) if is_greedy), key=len, default="")
    row |= {"chosen": item.options[chosen], "chosen_position": chosen, "greedy": greedy}
    row |= {"follows": float(greedy != "") if item.form else np.nan, "correct_greedy": float(greedy == right)}
    row |= {"correct": correct, "chance_corrected": (correct - 1 / k) / (1 - 1 / k)}
    row["log_probability"] = logp[item.answer]
    row |= {"log_probability_normalised": normalised[item.answer], "entropy": float(-(p * normalised).sum())}
    return row | {"brier": float(((p - np.eye(k)[item.answer]) ** 2).sum())}


def _means(per_item: pd.DataFrame) -> pd.DataFrame:
    rows, none = list[tuple[Any, ...]](), float("nan")
    for task, of_task in per_item.groupby("task", sort=False):
        scored = of_task[of_task["scored"]]
        some = {name: of for name, of in (MEASURES | GENERATED | KNOWING).items() if scored[of].notna().any()}
        rows += [(task, name, scored[of].mean(), scored[of].sem()) for name, of in some.items()]
        apart = 0.0  # how often each position is chosen from how often it is right
        for position in range(int(scored["options"].max())):
            of = scored[scored["options"] > position]
            chosen = (of["chosen_position"] == position).astype(float)
            rows.append((task, f"position_share_{position + 1}", float(chosen.mean()), float(chosen.sem())))  # type: ignore[arg-type]
            apart += abs(chosen.mean() - (of["answer_position"] == position).mean())
        if scored["options"].nunique() == 1:
            rows.append((task, "position_bias", apart / 2, none))
        rows.append((task, "chance", (1 / scored["options"]).mean(), none))
        rows.append((task, "left_out", 1 - of_task["scored"].mean(), none))
        if (known := scored["knows"].notna()).any():
            rows.append((task, "knowing_chance", (1 / scored.loc[known, "options"]).mean(), none))
            rows.append((task, "knowing_left_out", 1 - known.mean(), none))
    return pd.DataFrame(rows, columns=["task", "measure", "value", "stderr"])


def strict(said: str, options: Sequence[str]) -> str:
    """The option that `said` is, white space around it apart, or an empty string: for B, nothing but "B" or " B"."""
    return said.strip() if said.strip() in options else ""


def lenient(said: str, options: Sequence[str]) -> str:
    """The one option that `said` names, whatever stands around it ("The answer is B."), or an empty string ("A or B").

    Single capitals may be said in small where nothing but punctuation is beside them; in a sentence only a capital that
    stands alone counts, and one that names two letters, or one that is no option, names none. Other options are looked
    for as whole words, whatever the case; of two, one in the other, the longer is meant.
    """
    said = unicodedata.normalize("NFKC", said).strip()
    if said in options:
        return said
    if all(len(o) == 1 and "A" <= o <= "Z" for o in options):
        bare = said.strip(" \t.,:;!?()[]{}\"'*`")
        if len(bare) == 1:
            return bare.upper() if bare.upper() in options else ""
        named = set(_LETTER.findall(said))
        if "I" not in options:
            named.discard("I")  # the pronoun
        return named.pop() if len(named) == 1 and named <= set(options) else ""
    found = [o for o in options if re.search(rf"(?<!\w){re.escape(o)}(?!\w)", said, re.IGNORECASE)]
    found = [o for o in found if not any(o != other and o.lower() in other.lower() for other in found)]
    return found[0] if len(found) == 1 else ""
