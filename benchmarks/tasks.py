"""What behaviour and internal states cost: CPU time on one thread, beside what they are measured against.

    python benchmarks/tasks.py [--quick] [--json FILE] [--check]

Items: one pass of all measures (`phaselab.behaviour.score_tasks`, tokens of its requests included) over 1,000 items of
four options, against plain batched forward passes over the same tokens: each prompt with its four options once, rows of
like length together, the same batch size, nothing done with the logits. With knowing, the second pass of ``knowing``
over the first two thirds of each prompt is in both. Internal states: all measures of all layers of
a checkpoint of the study demo, against its encoding. The two of a pair take turns; the ratio is the median over turns.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
from _table import Row, arguments, finish

from phaselab import encoding, internals
from phaselab.behaviour import score_tasks
from phaselab.features import extract, to_trs
from phaselab.internals.attention import head_scores
from phaselab.results import Store
from phaselab.stages import Workbench
from phaselab.study import InternalSpec, Training, load_study
from phaselab.texts import Item, source
from phaselab.training.loop import build

BATCH = 32


def model_and_tokenizer() -> tuple[Any, Any]:
    """An untrained network of the demo's size and its tokenizer: costs do not depend on weights."""
    training = load_study("demo").models[0].train
    assert training is not None
    tokenizer = source(training, None).tokenizer
    return build(Training.model_validate(training), len(tokenizer), 0, 1, 2).eval(), tokenizer


def make_items(tokenizer: Any, n: int, words: int, seed: int) -> list[Item]:
    """Prompts of 40 to 110 words and four options of `words` words each."""
    rng = np.random.default_rng(seed)
    plain = [w for w, i in tokenizer.get_vocab().items() if i > 3]
    items = []
    for i in range(n):
        chosen = rng.choice(plain, 4 * words, replace=False).reshape(4, words)
        options = tuple(" ".join(o) for o in chosen)
        prompt = " ".join(rng.choice(plain, rng.integers(40, 111)))
        items.append(Item(f"{seed}-{i}", prompt, options, int(rng.integers(4)), "", "en"))
    return items


@torch.inference_mode()
def plain_pass(model: Any, rows: list[list[int]]) -> None:
    rows = sorted(rows, key=len)
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        ids = np.zeros((len(batch), len(batch[-1])), dtype=np.int64)
        for i, row in enumerate(batch):
            ids[i, : len(row)] = row
        model(input_ids=torch.from_numpy(ids), use_cache=False)


def cpu(run: Callable[[], Any]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def interleaved(one: Callable[[], Any], other: Callable[[], Any], turns: int) -> tuple[float, float, float]:
    """Median seconds of each, and the median ratio; a first turn is not counted."""
    pairs = [(cpu(one), cpu(other)) for _ in range(turns + 1)][1:]
    a, b = np.array(pairs).T
    return float(np.median(a)), float(np.median(b)), float(np.median(a / b))


def measure(quick: bool) -> list[Row]:
    n, turns = (200, 2) if quick else (1000, 3)
    rows: list[Row] = []

    def parts(item: Item) -> list[list[int]]:
        return [
            tokenizer(" ".join([said, *item.options]))["input_ids"] for said in (item.prompt, item.question) if said
        ]

    def row(name: str, value: float, unit: str, goal: float | None = None) -> None:
        rows.append(Row(name, value, unit, *(() if goal is None else (f"<= {goal}", value <= goal))))

    model, tokenizer = model_and_tokenizer()
    for words, kind in ((1, "one token"), (3, "three tokens")):
        listed = make_items(tokenizer, n, words, seed=words)
        both = [replace(i, question=i.prompt[: 2 * len(i.prompt) // 3].rsplit(" ", 1)[0]) for i in listed]
        for items, more in ((listed, ""), (both, " with knowing")):
            tokens = [ids for item in items for ids in parts(item)]
            asked = {kind: items}
            ours, plain, ratio = interleaved(
                lambda asked=asked: score_tasks(model, tokenizer, asked, BATCH),
                lambda tokens=tokens: plain_pass(model, tokens),
                turns,
            )
            row(f"{n} items, options of {kind}: all measures{more}", ours, "CPU s")
            row(f"{n} items, options of {kind}: plain pass{more}", plain, "CPU s")
            row(f"{n} items, options of {kind}: ratio{more}", ratio, "times", 1.3)

    study = load_study("demo")
    bench = Workbench(study, Store(Path("/nonexistent")))
    stimulus = bench.brain.stimulus
    features = extract(model, tokenizer, stimulus, study.features)
    labels = stimulus.labels.replace("unknown", "")
    full = InternalSpec(**study.internals.model_dump() | {"sparse": (1, 8), "attention": 8})

    def all_internals(spec: InternalSpec) -> None:
        internals.measure(features.layers, labels, spec)
        if spec.attention:
            head_scores(model, tokenizer, spec.attention)

    def encode() -> None:
        X = to_trs(features, stimulus, study.features)
        encoding.encode(X, bench.responses, study.encoding, seed=study.brain.seed)

    for name, spec in (("as in demo", study.internals), ("with sparse probes and attention", full)):
        ours, theirs, ratio = interleaved(lambda spec=spec: all_internals(spec), encode, turns)
        row(f"internals of a unit {name}", ours, "CPU s")
        row(f"encoding of a unit, in turns with internals {name}", theirs, "CPU s")
        row(f"internals of a unit {name}: ratio to its encoding", ratio, "times", 1.0)
    return rows


if __name__ == "__main__":
    given = arguments(__doc__ or "")
    torch.set_num_threads(1)
    finish("tasks", measure(given.quick), given, torch=torch.__version__)
