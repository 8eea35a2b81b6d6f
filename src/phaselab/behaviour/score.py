"""What a model does: multiple-choice items scored through lm-evaluation-harness.

The harness builds the tasks (from ``options.yaml`` beside this file), writes and splits their requests;
``scoring`` asks the model for the log-probability of every option; the measures are taken here, all of
them from that one pass. A model follows the instruction when its greedy continuation begins with one
of the listed options, which the pass tells for each option. Whether the answer is the option *and
nothing else* takes generating it, which the harness does where a study asks for it.

Tasks are built once a process and their requests encoded once a tokenizer, because for a small model
the harness spends more time on this than the model on its answers.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml

from phaselab.behaviour import answers
from phaselab.behaviour.files import TaskError

if TYPE_CHECKING:
    from phaselab.texts.base import Item

#: An encoded request as the harness's models take it: (context, continuation), and the tokens of both.
Encoded = tuple[tuple[str, str], list[int], list[int]]

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
    "task",
    "item",
    "kind",
    "language",
    "scored",
    "options",
    "answer",
    "answer_position",
    "chosen",
    "chosen_position",
    "greedy",
    "said",
)
#: A generated answer ends where its line ends.
STOP = ("\n",)


@dataclass(frozen=True)
class _Prepared:
    """A task's requests, item by item and option by option, and their tokens for each tokenizer met."""

    requests: list[list[tuple[str, str]]]
    encoded: dict[str, list[list[Encoded]]] = field(default_factory=dict)


def score_tasks(
    model: Any,
    tokenizer: Any,
    items: dict[str, list[Item]],
    batch_size: int = 32,
    generate: Mapping[str, int] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score a model in memory on multiple-choice items.

    Parameters
    ----------
    model, tokenizer : a causal language model of transformers and its tokenizer. Prompts are encoded
        with the special tokens that the tokenizer adds by itself, and no others.
    items : task -> its items (no tasks: empty tables). The continuation that is scored is a space
        and the option.
    batch_size : prompts a forward pass; prompts of like length go together.
    generate : task -> tokens of a greedy answer, up to the end of its line; tasks that are not in it,
        or with 0, are scored without generating.

    Returns
    -------
    rows : one row a task and measure: ``task, measure, value, stderr``; `value` is the mean over
        items, `stderr` its standard error (NaN for a single item). Measures:

        - ``instruction_following``: share of items whose greedy continuation starts with one of the
          options, all its tokens included;
        - ``accuracy``: share whose option of highest log-probability (summed over tokens) is right;
        - ``accuracy_greedy``: share whose greedy continuation is the right option;
        - ``chance_corrected_accuracy``: (accuracy - 1/k) / (1 - 1/k) for items of k options;
        - ``log_probability``: of the right option, nats;
        - ``log_probability_normalised``: the same among the options alone (chance: -log k);
        - ``brier``: squared distance of the probabilities among options from the right answer,
          summed over options, 0 to 2 (Brier 1950);
        - ``entropy``: of the probabilities among options, nats;
        - ``position_share_1``, ``_2`` ...: share of items whose most probable option is the first, the
          second ... one listed, of the items with so many options; ``position_bias``: half the sum of
          absolute differences between these and the shares of the right answers, for tasks whose items
          all have the same number of options: 0 for a model that is always right, and above 0 by
          chance with few items (no standard error);
        - of generated answers ``instruction_following_strict``: share that is one of the options and
          nothing else, ``instruction_following_lenient``: share that names one of the options
          (``phaselab.behaviour.answers``), ``accuracy_strict`` and ``accuracy_lenient``: share where that
          option is right;
        - ``chance``: 1/k, for reference (no standard error);
        - ``left_out``: share of all items that were not scored because prompt and option are longer
          than the model's context (no standard error); all other measures are without them.
    per_item : one row an item: ``task, item, kind, language, scored`` (bool), ``options`` (how
        many), ``answer``, ``chosen`` and ``greedy`` (texts of the right option, of the most probable
        one, and of the one that is the greedy continuation or an empty string), ``answer_position`` and
        ``chosen_position`` (from 0; -1 where not scored), ``said`` (the generated answer), and a column
        a measure, NaN where `scored` is false and where nothing was generated.

    Raises
    ------
    TaskError
        Naming the task, item and field of an item that is not well formed, or the task none of
        whose items fits the model's context.
    """
    from lm_eval.models.huggingface import HFLM

    from phaselab.behaviour import scoring

    tokens = {task: (generate or {}).get(task, 0) for task in items}
    with quiet():
        lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, softmax_dtype="float32")
        key = _tokenizer_digest(tokenizer)
        encoded = {task: _encode(lm, _prepare(task, tuple(items[task])), key) for task in items}
        fits = {
            task: [all(len(c) + max(len(o) - 1, tokens[task]) <= lm.max_length for _, c, o in item) for item in of_task]
            for task, of_task in encoded.items()
        }
        for task, fitting in fits.items():
            if not any(fitting):
                raise TaskError(f"{task}: no prompt fits the model's context of {lm.max_length} tokens")
        # All tasks in one call, so that batches are full.
        asked = [
            scoring.Request(tuple(item[0][1]), tuple(tuple(o) for _, _, o in item))
            for task, of_task in encoded.items()
            for item, fit in zip(of_task, fits[task], strict=True)
            if fit
        ]
        scored = iter(scoring.score(model, asked, batch_size))
        said = iter(
            _generated(
                lm,
                [
                    (item[0][0][0], tokens[task])
                    for task, of_task in encoded.items()
                    for item, fit in zip(of_task, fits[task], strict=True)
                    if fit and tokens[task]
                ],
            )
        )

    outcomes = []
    for task, of_task in items.items():
        for item, fit in zip(of_task, fits[task], strict=True):
            answer = next(said) if fit and tokens[task] else None
            outcomes.append({"task": task, **_outcome(item, next(scored) if fit else None, answer)})
    per_item = pd.DataFrame(outcomes, columns=[*ABOUT, *MEASURES.values(), *GENERATED.values()])
    return _means(per_item), per_item


def _generated(lm: Any, prompts: list[tuple[str, int]]) -> list[str]:
    """The greedy answer to each (prompt, tokens), by the harness, up to the end of its line."""
    from lm_eval.api.instance import Instance

    asked = [
        Instance(
            "generate_until",
            {},
            (prompt, {"until": list(STOP), "max_gen_toks": tokens, "do_sample": False}),
            0,
        )
        for prompt, tokens in prompts
    ]
    # The harness has no request to make of an empty list.
    return lm.generate_until(asked, disable_tqdm=True) if asked else []


def _outcome(item: Item, scores: list[tuple[float, bool]] | None, said: str | None) -> dict[str, Any]:
    """One row of the per-item table.

    `scores` are each option's (log-probability, is greedy), None if not scored; `said` is the generated
    answer, None if there is none.
    """
    k = len(item.options)
    row = {
        "item": item.id,
        "kind": item.kind,
        "language": item.language,
        "scored": scores is not None,
        "options": k,
        "answer": item.options[item.answer],
        "answer_position": item.answer,
        "said": said or "",
    }
    row |= dict.fromkeys([*MEASURES.values(), *GENERATED.values()], float("nan"))
    if scores is None:
        return row | {"chosen": "", "chosen_position": -1, "greedy": ""}
    if said is not None:
        for name, rule in (("strict", answers.strict), ("lenient", answers.lenient)):
            named = rule(said, item.options)
            row |= {
                f"follows_{name}": float(named != ""),
                f"correct_{name}": float(named == item.options[item.answer]),
            }
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
        "correct_greedy": float(greedy == item.options[item.answer]),
        "chance_corrected": (correct - 1 / k) / (1 - 1 / k),
        "log_probability": logp[item.answer],
        "log_probability_normalised": normalised[item.answer],
        "brier": float(((p - np.eye(k)[item.answer]) ** 2).sum()),
        "entropy": float(-(p * normalised).sum()),
    }


def _means(per_item: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for task, of_task in per_item.groupby("task", sort=False):
        scored = of_task[of_task["scored"]]
        for measure, column in MEASURES.items():
            rows.append((task, measure, scored[column].mean(), scored[column].sem()))
        for measure, column in GENERATED.items():
            if scored[column].notna().any():
                rows.append((task, measure, scored[column].mean(), scored[column].sem()))
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


def check_items(task: str, items: Sequence[Item]) -> None:
    """Raise TaskError for the first item that the measures are not defined for."""

    def wrong(item: Item, name: str, found: Any, expected: str) -> TaskError:
        return TaskError(f"{task}: item {item.id!r}: {name}: found {found!r}, expected {expected}")

    if not items:
        raise TaskError(f"{task}: found no items, expected at least one")
    seen = set()
    for item in items:
        if item.id in seen:
            raise wrong(item, "id", item.id, "each id once")
        seen.add(item.id)
        if not item.prompt.strip() or item.prompt != item.prompt.rstrip():
            raise wrong(item, "prompt", item.prompt[-40:], "a text that does not end in white space")
        if len(item.options) < 2 or len(set(item.options)) < len(item.options):
            raise wrong(item, "options", item.options, "at least two, all different")
        for option in item.options:
            if not option or option != option.strip():
                raise wrong(item, "options", option, "texts without white space around them")
        if not 0 <= item.answer < len(item.options):
            raise wrong(item, "answer", item.answer, f"a number from 0 to {len(item.options) - 1}")


@lru_cache(maxsize=64)
def _prepare(task: str, items: tuple[Item, ...]) -> _Prepared:
    """The harness's requests for `items`, built by its own task manager from a file of this folder."""
    from lm_eval.tasks import TaskManager

    check_items(task, items)
    with tempfile.TemporaryDirectory(prefix="phaselab-tasks-") as folder:
        data = Path(folder) / "items.jsonl"
        docs = ({"prompt": i.prompt, "options": i.options, "answer": i.answer} for i in items)
        data.write_text("".join(json.dumps(doc) + "\n" for doc in docs), encoding="utf-8")
        config = {
            "include": str(Path(__file__).with_name("options.yaml")),
            "task": task,
            "dataset_kwargs": {
                "data_files": {"test": str(data)},
                "cache_dir": str(Path(folder) / "cache"),
                "keep_in_memory": True,
            },
        }
        (Path(folder) / "task.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        built = TaskManager(include_path=folder, include_defaults=False).load(task)["tasks"][task]
        # Its progress bar has no switch of its own.
        with contextlib.redirect_stderr(io.StringIO()):
            built.build_all_requests()
    requests: list[list[tuple[str, str]]] = [[] for _ in items]
    for request in sorted(built.instances, key=lambda r: (r.doc_id, r.idx)):
        requests[request.doc_id].append(request.args)
    return _Prepared(requests)


def _encode(lm: Any, prepared: _Prepared, key: str) -> list[list[Encoded]]:
    """Tokens of all requests, split into context and continuation by the harness's own rule."""
    if key not in prepared.encoded:
        prepared.encoded[key] = [
            [((context, option), *lm._encode_pair(context, option)) for context, option in item]
            for item in prepared.requests
        ]
    return prepared.encoded[key]


def _tokenizer_digest(tokenizer: Any) -> str:
    """Digest of all that decides how a (fast) tokenizer encodes; each checkpoint loads its own copy."""
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep progress bars and the harness's warnings (it warns of each model in memory) off the screen."""
    import datasets

    logger = logging.getLogger("lm_eval")
    level = logger.level
    bars = not datasets.are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            datasets.enable_progress_bars()
