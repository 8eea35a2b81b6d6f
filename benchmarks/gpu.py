"""What a GPU does: ridge, hidden states of a 7B network, permutations, and whether its results are those of a CPU.

    python benchmarks/gpu.py [--json benchmarks/results/gpu.json] [--check] [--quick]
    python benchmarks/gpu.py --device cpu --quick

It has not been run on CUDA yet: the machines that it was written on have none. Without a GPU it says so, measures
nothing and ends with 0; ``--device cpu --quick`` runs every part of it in tiny sizes, to see that they work. That
every tensor is on the device where it has to be is tested on one that is none (tests/stand_in.py).

Each part is a process of its own within a time of its own, 8 minutes at most for all on an H100; what it had measured
when the time was over is kept. ``ridge``: one subject, and six with one plan, against himalaya on the same device, in
float32 and with TF32 allowed, and whether the answers are those of float64; ``layer``: one layer at the paper's size,
22,262 x 4,096 for 60,000 voxels; ``states``: OLMo-2 7B's own architecture with random weights in bfloat16 reads
captions, once each and three times, against one text at a time, and against the rate of a large product;
``permutations``: of the paper's test set; ``study``: a toy study on the device and on the CPU. ``phaselab plan`` reads
``rates`` (operations a second) of the file, unless it is of a quick run or of a CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
from _table import Row, arguments, finish

#: Part -> seconds that it has.
BOXES = {"ridge": 120, "layer": 110, "states": 130, "permutations": 40, "study": 70}
#: Differences that are taken for the same: of r between devices; of hidden states, relative, by number format.
SAME_R, SAME_STATES = 1e-3, {torch.float32: 1e-5, torch.bfloat16: 0.05}
#: Training TRs, features, targets, test TRs.
RIDGE = {False: (4096, 768, 12_000, 1024), True: (256, 48, 96, 64)}
LAYER = {False: (22_262, 4096, 60_000, 7737), True: (256, 48, 96, 64)}
#: Layers, width, width of the feed-forward part, heads, vocabulary: OLMo-2 7B's; captions in all, and read by the loop.
NETWORK = {False: (32, 4096, 11_008, 32, 100_352), True: (2, 64, 96, 4, 5000)}
CAPTIONS = {False: (6000, 200), True: (12, 4)}
#: Test TRs, voxels, permutations; voxels that the CPU counts too.
PERMUTED = {False: (7737, 60_000, 200, 512), True: (200, 64, 20, 16)}
#: A row, or the name of a work that ``phaselab plan`` knows and operations a second.
Found = Iterator["Row | tuple[str, float]"]


class Clock:
    """Wall time; of a GPU, when all that was asked of it is done."""

    def __init__(self, device: str) -> None:
        self.wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None

    def __call__(self, work: Callable[[], Any]) -> tuple[float, Any]:
        self.wait()
        began = time.perf_counter()
        found = work()
        self.wait()
        return time.perf_counter() - began, found


def memory(device: str) -> list[Row]:
    """The most memory of the GPU so far."""
    most = torch.cuda.max_memory_allocated() / 1e9 if device.startswith("cuda") else None
    return [] if most is None else [Row("most memory of the GPU", most, "GB")]


def ridge(device: str, quick: bool) -> Found:
    from encoding import N_FOLDS, SUBJECTS, himalaya, ours, world
    from phaselab.encoding import folds as cv

    clock, shape = Clock(device), RIDGE[quick]
    data, folds = world(*shape), cv.contiguous(shape[0], N_FOLDS)
    few = [part[:, :200] if at % 2 else part for at, part in enumerate(data)]
    (fit,) = ours(*few, folds, device)  # the first of everything is slow
    _, exact, exact_test = himalaya(*few, folds, device, dtype="float64")
    error = float(np.abs(fit.cv_score - exact).max())
    yield Row("ridge: largest error of a CV score against himalaya in float64", error, "", "<= 1e-5", error <= 1e-5)
    far = float((np.abs(fit.test_score - exact_test) > 1e-4).mean())
    yield Row("ridge: targets with another test r, ties included", far, "")
    one, six = (min(clock(lambda n=n: ours(*data, folds, device, n))[0] for _ in range(2)) for n in (1, SUBJECTS))
    size = " x ".join(map(str, shape[:3]))
    yield Row(f"ridge {size}: ours", one, "s")
    yield Row(f"ridge {size}: ours, six subjects", six, "s")
    for tf32, name in ((False, "in float32"), (True, "with TF32")):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        theirs = min(clock(lambda: himalaya(*data, folds, device))[0] for _ in range(1 if quick else 2))
        _, scores, _ = himalaya(*few, folds, device)
        (allowed,) = ours(*few, folds, device)
        torch.backends.cuda.matmul.allow_tf32 = False
        yield Row(f"ridge {size}: himalaya {name}", theirs, "s")
        yield Row(f"ridge: largest error of a CV score, himalaya {name}", float(np.abs(scores - exact).max()), "")
        if tf32:
            yield Row(
                "ridge: largest error of a CV score, ours with TF32", float(np.abs(allowed.cv_score - exact).max()), ""
            )
        for who, ratio in (("one subject", theirs / one), ("six subjects", SUBJECTS * theirs / six)):
            goal = () if quick or tf32 else (">= 15", ratio >= 15)
            yield Row(f"ridge, {who}: himalaya {name} / ours in float32", ratio, "times", *goal)
    yield from memory(device)


def layer(device: str, quick: bool) -> Found:
    from encoding import ALPHAS, N_FOLDS, Plan, Splits, Targets, solve, world
    from phaselab.encoding import folds as cv
    from phaselab.sweep.plan import ridge_operations

    clock, (n, p, t, n_test) = Clock(device), LAYER[quick]
    X, some, X_test, some_test = world(n, p, t // 12, n_test)
    Y, Y_test = (np.tile(part, (1, 12)) for part in (some, some_test))  # time does not depend on what they are
    splits = Splits(n, tuple(cv.contiguous(n, N_FOLDS)))
    survey, targets = clock(lambda: Targets.survey(Y, splits, Y_test=Y_test))
    size = f"layer {n} x {p}, {t} voxels"
    yield Row(f"{size}: looking through the responses, once a sweep", survey, "s")
    planning, plan = clock(lambda: Plan(X, splits, ALPHAS, X_test, device=device))
    yield Row(f"{size}: factorising the features", planning, "s")
    solving, fit = clock(lambda: solve(plan, targets))
    yield Row(f"{size}: solving", solving, "s")
    assert np.isfinite(fit.test_score).all()
    yield "ridge", ridge_operations(n + n_test, p, t) / (survey + planning + solving)
    yield from memory(device)


def network(shape: tuple[int, ...], device: str, dtype: torch.dtype) -> Any:
    """Olmo2 with random weights, made where it stays."""
    from transformers import Olmo2Config, Olmo2ForCausalLM

    layers, width, inner, heads, vocabulary = shape
    special = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": inner}
    config = Olmo2Config(vocab_size=vocabulary, num_attention_heads=heads, **sizes, **special)
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return Olmo2ForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


def states(device: str, quick: bool) -> Found:
    import features as texts

    clock, dtype = Clock(device), torch.bfloat16 if device.startswith("cuda") else torch.float32
    model, tokens, (n, sample) = network(NETWORK[quick], device, dtype), texts.tokenizer(), CAPTIONS[quick]
    blocks = sum(p.numel() for p in model.base_model.layers.parameters())
    yield Row("states: parameters of the blocks", blocks / 1e9, "G")
    side = 256 if quick else 8192
    a = torch.randn(side, side, device=device, dtype=dtype)
    peak = 2 * side**3 / min(clock(lambda: a @ a)[0] for _ in range(6))
    yield Row(f"states: a {str(dtype).removeprefix('torch.')} product of {side} x {side}", peak / 1e12, "TFLOP/s")
    texts.extract(model, tokens, texts.captions(8, texts.LONG, 1), texts.SPEC)  # the first of everything is slow
    for times in (1, texts.REPEATS):
        stimulus = texts.captions(n, texts.LONG, times)
        read = stimulus.runs[0].texts
        seconds, found = clock(lambda stimulus=stimulus: texts.extract(model, tokens, stimulus, texts.SPEC))
        name = f"states, captions {'three times' if times > 1 else 'once'} each"
        yield Row(f"{name}: texts", n / seconds, "texts/s")
        if times == 1:
            speed = found.notes["tokens"] / seconds
            yield Row(f"{name}: tokens", speed, "tokens/s")
            yield Row(f"{name}: share of the product's rate", speed * 2 * blocks / peak, "")
            yield "states", speed * 2 * blocks
        at = sorted({read.index(text) for text in read[:: max(1, n // sample)]})
        loop, expected = clock(
            lambda read=read, at=at: texts.plain(model, tokens, tuple(read[k] for k in at), head=True)
        )
        yield Row(f"{name}: plain loop / extract", loop * n / len(at) / seconds, "times")
        error = max(
            float(np.abs(found.layers[layer][at] - there).max() / np.abs(there).max())
            for layer, there in zip(found.layers, expected, strict=True)
        )
        most = SAME_STATES[dtype]
        yield Row(f"{name}: largest error of a layer", error, "relative", f"<= {most:g}", error <= most)
    yield from memory(device)


def permutations(device: str, quick: bool) -> Found:
    from phaselab.encoding.significance import Permutations

    clock, (n, voxels, number, few) = Clock(device), PERMUTED[quick]
    drawn = Permutations([np.zeros(n)], 10, number, 0, "block")
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(n, min(voxels, 8192), device=device, generator=generator) for _ in range(2))

    def count() -> np.ndarray:
        batches = [min(8192, voxels - start) for start in range(0, voxels, 8192)]
        return np.concatenate([drawn.count([a[:, :width]], [b[:, :width]]) for width in batches], axis=1)

    drawn.count([a[:, :few]], [b[:, :few]])
    seconds, counts = clock(count)
    yield Row(f"permutations: {number} of {n} TRs x {voxels} voxels", seconds, "s")

    def plainly(of: int) -> torch.Tensor:
        """Correlations of as many permutations, one after another."""
        rows = np.arange(n // 10 * 10).reshape(-1, 10)
        orders = [rows[np.random.default_rng(k).permutation(len(rows))].ravel() for k in range(of)]
        one, other = ((v[: rows.size] - v[: rows.size].mean(0)) / v[: rows.size].std(0) for v in (a, b))
        return torch.stack([(one * other[order]).mean(0) for order in orders])

    loop, _ = clock(lambda: plainly(8))
    loop *= number / 8 * voxels / a.shape[1]
    yield Row("permutations: plain loop on the device / ours", loop / seconds, "times")
    exact = drawn.count([a[:, :few].cpu().numpy()], [b[:, :few].cpu().numpy()])[2]
    off = float(np.abs(counts[2, :few] - exact).max())
    yield Row("permutations: largest difference of a count from the CPU's", off, f"of {number}", "<= 1", off <= 1)


def study(device: str, quick: bool) -> Found:
    import pandas as pd

    from phaselab import curves
    from phaselab.results import Store
    from phaselab.stages import Workbench
    from phaselab.study import Study
    from sweep import STUDY, TRAIN

    model = {"name": "toy", "train": TRAIN | ({} if quick else {"steps": 50, "warmup": 5, "hidden_size": 64})}
    # All that a study may ask of a device.
    more = {"unique": True, "similarity": ["rsa", "cka"]}, {"attention": 4, "ngrams": 2, "compare": True}
    asked = {of: {**STUDY[of], **and_} for of, and_ in zip(("encoding", "internals"), more, strict=True)}
    toy, tables = Study.model_validate({**STUDY, **asked, "name": "toy", "models": [model]}), []
    with tempfile.TemporaryDirectory() as folder:
        for number, of in enumerate(("cpu", device)):
            store = Store(Path(folder, str(number)))
            if number:
                shutil.copytree(Path(folder, "0", "trained"), store.root / "trained")
            bench = Workbench(toy, store, device=of)
            bench.folder(toy.models[0])
            seconds, files = Clock(of)(lambda bench=bench: bench.tables(toy.models[0]))
            tables.append(curves.gather(files))
            yield Row(f"study: on {of}", seconds, "s")
    keys = [name for name in tables[0] if name not in ("value", "stderr")]
    both = pd.merge(*tables, on=keys, how="outer", validate="1:1")
    difference = (both["value_x"] - both["value_y"]).abs()
    assert len(both) == len(tables[0])
    assert difference.notna().any()
    r = float(difference[both["measure"] == "r"].max())
    yield Row("study: largest difference of r between the devices", r, "", f"<= {SAME_R:g}", r <= SAME_R)
    for perspective in ("brain", "behaviour", "internal"):
        off = float(difference[both["perspective"] == perspective].max())
        yield Row(f"study: largest difference of any measure, {perspective}", off, "")


PARTS: dict[str, Callable[[str, bool], Found]] = {
    "ridge": ridge,
    "layer": layer,
    "states": states,
    "permutations": permutations,
    "study": study,
}


def in_its_box(part: str, device: str, quick: bool, seconds: float) -> tuple[list[Row], dict[str, float]]:
    """Rows and rates of a part, run in a process that is ended after `seconds`."""
    command = [sys.executable, __file__, "--part", part, "--device", device, *["--quick"] * quick]
    began, wrong = time.perf_counter(), ""
    with tempfile.TemporaryFile("w+") as said:
        try:
            done = subprocess.run(command, stdout=said, stderr=subprocess.PIPE, text=True, timeout=seconds)
            wrong = (done.stderr.strip().splitlines() or ["ended without a word"])[-1] if done.returncode else ""
        except subprocess.TimeoutExpired:
            wrong = f"not done after {seconds:g} s"
        took = time.perf_counter() - began
        said.seek(0)
        lines = [json.loads(line) for line in said if line.startswith(("{", "["))]
    rows = [Row(**line) for line in lines if isinstance(line, dict)]
    whole = Row(f"{part}: all of it" + f" ({wrong})" * bool(wrong), took, "s", f"<= {seconds:g}, whole", not wrong)
    return [*rows, whole], dict(line for line in lines if isinstance(line, list))


def main() -> None:
    hidden = {"choices": [*PARTS], "help": argparse.SUPPRESS}
    options = arguments(__doc__ or "", device={"default": "cuda", "help": "cuda, cuda:N, or cpu"}, part=hidden)
    cuda = options.device.startswith("cuda")
    options.quick |= not cuda
    if cuda and not torch.cuda.is_available():
        print("gpu: no CUDA device is here, so nothing was measured; --device cpu --quick tries the parts out")
        return
    if cuda:
        torch.cuda.set_device(torch.device(options.device))
    if options.part:
        for found in PARTS[options.part](options.device, options.quick):
            print(json.dumps(asdict(found) if isinstance(found, Row) else found), flush=True)
        return
    rows, rates = list[Row](), dict[str, float]()
    for part, seconds in BOXES.items():
        seconds *= 1 if cuda else 5  # where it is only tried out
        print(f"{part}: {seconds} s at most", file=sys.stderr, flush=True)
        more, of = in_its_box(part, options.device, options.quick, seconds)
        rows, rates = rows + more, rates | of
    name = torch.cuda.get_device_name(torch.device(options.device)) if cuda else "none"
    about = {"device": options.device.partition(":")[0], "gpu": name, "torch": torch.__version__, "rates": rates}
    finish("gpu", rows, options, **about)


if __name__ == "__main__":
    main()
