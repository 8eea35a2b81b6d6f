"""What a model does: multiple-choice items, scored as lm-evaluation-harness scores them.

The harness divides prompt and option into tokens; ``scoring`` asks the model for the log-probability of every option;
the measures are taken here, all of them from that one pass. Whether an answer is an option *and nothing else* takes
generating it, which the harness does where a study asks for it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from phaselab.behaviour import answers
from phaselab.errors import PhaselabError
from phaselab.texts.base import Item

logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of each model in memory

#: Measure -> column of the per-item table whose mean over items it is.
MEASURES = {
    "instruction_following": "follows",
    "accuracy": "correct",
    "accuracy_greedy": "correct_greedy",
    "chance_corrected_accuracy": "chance_corrected",
    "log_probability": "log_probability",
    "log_probability_normalised": "log_probability_normalised",
    "brier": "brier",
    "entropy": "entropy",
}
#: The same for tasks whose answers are generated.
GENERATED = {
    "instruction_following_strict": "follows_strict",
    "instruction_following_lenient": "follows_lenient",
    "accuracy_strict": "correct_strict",
    "accuracy_lenient": "correct_lenient",
}
#: Columns of the per-item table that are not measures.
ABOUT = (
    *("task", "item", "kind", "language", "scored", "options"),
    *("answer", "answer_position", "chosen", "chosen_position", "greedy", "said"),
)


class TaskError(PhaselabError):
    """A task that cannot be scored; the message names the file and line, or the task and the items."""


def score_tasks(
    model: Any,
    tokenizer: Any,
    items: dict[str, list[Item]],
    batch_size: int = 32,
    generate: Mapping[str, int] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score a model in memory on multiple-choice items, task -> items; TaskError for a task none of whose items fits.

    Prompts are encoded with the special tokens that the tokenizer adds by itself, and no others; the continuation that
    is scored is a space and the option. `generate`: task -> tokens of a greedy answer, up to the end of its line.

    Returns
    -------
    rows : one row per task and measure: mean over items, and standard error (NaN for a single item). Measures:

        - ``instruction_following``: share of items whose greedy continuation starts with one of the options, all its
          tokens included; ``accuracy_greedy``: share where that option is right;
        - ``accuracy``: share whose option of highest log-probability (summed over tokens) is right;
          ``chance_corrected_accuracy``: (accuracy - 1/k) / (1 - 1/k) for items of k options;
        - ``log_probability``: of the right option, nats; ``log_probability_normalised``: the same among the options
          alone (chance: -log k);
        - ``brier``: squared distance of the probabilities among options from the right answer, summed over options, 0
          to 2 (Brier 1950); ``entropy``: of these probabilities, nats;
        - ``position_share_1``, ``_2`` ...: share of items whose most probable option is the first, the second ... one
          listed, of the items with so many options; ``position_bias``: half the sum of absolute differences between
          these and the shares of the right answers, for tasks whose items all have the same number of options: 0 for
          a model that is always right, and above 0 by chance with few items;
        - of generated answers ``instruction_following_strict``: share that is one of the options and nothing else,
          ``instruction_following_lenient``: share that names one of the options (``phaselab.behaviour.answers``),
          ``accuracy_strict`` and ``accuracy_lenient``: share where that option is right;
        - ``chance``: 1/k, for reference; ``left_out``: share of all items that were not scored because prompt and
          option are longer than the model's context; all other measures are without them. These two and
          ``position_bias`` have no standard error.
    per_item : one row an item: ``options`` (how many), ``answer``, ``chosen`` and ``greedy`` (texts of the right
        option, of the most probable one, and of the one that is the greedy continuation or an empty string),
        ``answer_position`` and ``chosen_position`` (from 0; -1 where not scored), ``said`` (the generated answer), and
        a column per measure, NaN where it is not known.
    """
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from phaselab.behaviour import scoring

    tokens = dict.fromkeys(items, 0) | dict(generate or {})
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, softmax_dtype="float32")
    listed = [(task, item) for task, of_task in items.items() for item in of_task]
    requests = scoring.requests(lm, [(item.prompt, item.options) for _, item in listed])
    asked = [(*one, request) for one, request in zip(listed, requests, strict=True)]
    room = lm.max_length
    fits = [len(r.prompt) + max(*(len(o) - 1 for o in r.options), tokens[t]) <= room for t, _, r in asked]
    for task in items:
        if not any(fit for (t, _, _), fit in zip(asked, fits, strict=True) if t == task):
            raise TaskError(f"{task}: no prompt fits the model's context of {room} tokens")
    # All tasks in one call, so that batches are full.
    fitting = [one for one, fit in zip(asked, fits, strict=True) if fit]
    scored = iter(scoring.score(model, [request for _, _, request in fitting], batch_size))
    how = {"until": ["\n"], "do_sample": False}  # up to the end of its line
    written = [(i.prompt, how | {"max_gen_toks": tokens[task]}) for task, i, _ in fitting if tokens[task]]
    to_write = [Instance("generate_until", {}, arguments, 0) for arguments in written]
    # The harness has no request to make of an empty list.
    said = iter(lm.generate_until(to_write, disable_tqdm=True) if to_write else [])
    outcomes = [
        {"task": task} | _outcome(item, next(scored) if fit else None, next(said) if fit and tokens[task] else None)
        for (task, item, _), fit in zip(asked, fits, strict=True)
    ]
    per_item = pd.DataFrame(outcomes, columns=[*ABOUT, *MEASURES.values(), *GENERATED.values()])
    return _means(per_item), per_item


def _outcome(item: Item, scores: list[tuple[float, bool]] | None, said: str | None) -> dict[str, Any]:
    """One row of the per-item table; what is not there is NaN in it.

    `scores` are each option's (log-probability, is greedy), None if not scored; `said` is the generated answer, None
    if there is none.
    """
    k, right = len(item.options), item.options[item.answer]
    row = {"item": item.id, "kind": item.kind, "language": item.language, "scored": scores is not None, "options": k}
    row |= {"answer": right, "answer_position": item.answer, "said": said or ""}
    if scores is None:
        return row | {"chosen": "", "chosen_position": -1, "greedy": ""}
    if said is not None:
        for name, rule in (("strict", answers.strict), ("lenient", answers.lenient)):
            named = rule(said, item.options)
            row |= {f"follows_{name}": float(named != ""), f"correct_{name}": float(named == right)}
    logp = np.array([score for score, _ in scores])  # (k,)
    normalised = logp - np.logaddexp.reduce(logp)
    p = np.exp(normalised)
    chosen = int(logp.argmax())
    # When one option begins with another both can be greedy; the longer one is what would be said.
    greedy = max((o for o, (_, is_greedy) in zip(item.options, scores, strict=True) if is_greedy), key=len, default="")
    correct = float(chosen == item.answer)
    return row | {
        "chosen": item.options[chosen],
        "chosen_position": chosen,
        "greedy": greedy,
        "follows": float(greedy != ""),
        "correct": correct,
        "correct_greedy": float(greedy == right),
        "chance_corrected": (correct - 1 / k) / (1 - 1 / k),
        "log_probability": logp[item.answer],
        "log_probability_normalised": normalised[item.answer],
        "brier": float(((p - np.eye(k)[item.answer]) ** 2).sum()),
        "entropy": float(-(p * normalised).sum()),
    }


def _means(per_item: pd.DataFrame) -> pd.DataFrame:
    rows: list[tuple[Any, ...]] = []
    for task, of_task in per_item.groupby("task", sort=False):
        scored = of_task[of_task["scored"]]
        said = {name: column for name, column in GENERATED.items() if scored[column].notna().any()}
        rows += [(task, name, scored[of].mean(), scored[of].sem()) for name, of in (MEASURES | said).items()]
        rows += [(task, *row) for row in _positions(scored)]
        rows.append((task, "chance", (1 / scored["options"]).mean(), float("nan")))
        rows.append((task, "left_out", 1 - of_task["scored"].mean(), float("nan")))
    return pd.DataFrame(rows, columns=["task", "measure", "value", "stderr"])


def _positions(scored: pd.DataFrame) -> list[tuple[str, float, float]]:
    """How often each position is chosen, and how far that is from how often it is right."""
    rows: list[tuple[str, float, float]] = []
    apart = 0.0
    for position in range(int(scored["options"].max())):
        of = scored[scored["options"] > position]
        chosen = (of["chosen_position"] == position).to_numpy(float)
        stderr = float(chosen.std(ddof=1) / np.sqrt(len(chosen))) if len(chosen) > 1 else float("nan")
        rows.append((f"position_share_{position + 1}", float(chosen.mean()), stderr))
        apart += abs(float(chosen.mean()) - float((of["answer_position"] == position).mean()))
    if scored["options"].nunique() == 1:
        rows.append(("position_bias", apart / 2, float("nan")))
    return rows
