"""The ridge solver against himalaya: time, agreement, memory, and what the whole study would take.

    python benchmarks/encoding.py [--quick] [--json benchmarks/results/encoding.json] [--check]
    python benchmarks/encoding.py --device cuda --json benchmarks/results/encoding-NAME.json
    python benchmarks/encoding.py --scale --json benchmarks/results/encoding-scale.json
    python benchmarks/encoding.py --paper --json benchmarks/results/encoding-paper.json

Both fit and score the same arrays in one process in turn, on the same threads; speed is a ratio of
process CPU time (of wall time on a GPU), the median over rounds, with the smallest and the largest beside it.
himalaya runs twice: in batches chosen by hand, which need less memory and are its fastest, and with its
defaults. Features have a power-law spectrum and responses autocorrelated noise. ``--scale`` runs
``encode`` on six subjects with 90,000 voxels each, responses on disk, and measures its memory; ``--paper`` solves one
layer and subject of the paper's own size.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from _table import Row, arguments, finish
from himalaya.backend import set_backend
from himalaya.kernel_ridge import KernelRidgeCV
from himalaya.ridge import RidgeCV
from himalaya.scoring import correlation_score
from scipy.signal import lfilter
from significance import speed as permutation_speed

from phaselab.encoding import encode
from phaselab.encoding import folds as cv
from phaselab.encoding.ridge import ALPHAS, Plan, Splits, Targets, solve
from phaselab.lazy import View
from phaselab.study import EncodingSpec

#: Training TRs, features, targets, test TRs. The replica has the paper's proportions at 1/5.4.
REPLICA, WIDE = (4096, 768, 12_000, 1024), (2048, 1536, 8_000, 512)
PAPER = (22_262, 4096, 60_000, 7737)
#: Runs, TRs of a run, features, subjects, voxels of each.
SCALE, SCALE_QUICK = (4, 300, 512, 6, 90_000), (4, 150, 64, 3, 2_000)
QUICK = {REPLICA: (1024, 192, 1500, 256), WIDE: (512, 384, 1000, 128)}
N_FOLDS = 4
#: The whole study: models x checkpoints x layers (embedding included), each for six subjects.
LAYERS, SUBJECTS = 4 * 20 * 33, 6
GIB = 1 << 30
#: An H100 (SXM): float32 and float64 outside the tensor cores, dense, from its data sheet; no measurement.
H100 = {"float32": 67e12, "float64": 34e12}
#: Share of those rates that matrix products reach, and that an eigendecomposition reaches: assumed.
SHARE = {"product": 0.7, "eigen": 0.05}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def world(n: int, p: int, t: int, n_test: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """X, Y, X_test, Y_test: smooth features with a power-law spectrum, responses mostly noise."""
    rng = np.random.default_rng(seed)
    rows = n + n_test
    X = rng.standard_normal((rows, p), dtype=np.float32) * (np.arange(1, p + 1) ** -0.75).astype(np.float32)
    X = lfilter([1], [1, -0.6], X, axis=0).astype(np.float32)
    X = X @ np.linalg.qr(rng.standard_normal((p, p)))[0].astype(np.float32)
    Y = X[:, :64] @ rng.standard_normal((min(p, 64), t), dtype=np.float32)
    Y *= rng.uniform(0, 0.6, t).astype(np.float32) / Y.std(0)
    Y += lfilter([0.8], [1, -0.6], rng.standard_normal((rows, t), dtype=np.float32), axis=0).astype(np.float32)
    return X[:n], Y[:n], X[n:], Y[n:]


class Clock:
    """Process CPU time; wall time where the work is done by a GPU."""

    def __init__(self, device: str) -> None:
        self.cuda = device.startswith("cuda")

    def __call__(self, work: Callable[[], object]) -> float:
        if self.cuda:
            torch.cuda.synchronize()
            began = time.perf_counter()
            work()
            torch.cuda.synchronize()
            return time.perf_counter() - began
        began = time.process_time()
        work()
        return time.process_time() - began


def ours(X, Y, X_test, Y_test, folds, device="cpu", subjects=1):
    """Fits of as many subjects, all of them with the same responses, from one plan."""
    splits = Splits(len(X), tuple(folds))
    plan = Plan(X, splits, ALPHAS, X_test, device=device)
    return [solve(plan, Targets.survey(Y, splits, Y_test=Y_test)) for _ in range(subjects)]


def himalaya(X, Y, X_test, Y_test, folds, device="cpu", kernel=False, dtype="float32", batches=True):
    """Alphas, CV scores and test scores of himalaya."""
    set_backend("torch_cuda" if device.startswith("cuda") else "torch")
    size = {"n_targets_batch": 1000 if kernel else 2000, "n_alphas_batch": 2 if kernel else 5} if batches else {}
    params = {"score_func": correlation_score, **size}
    with warnings.catch_warnings():
        # Of the kernel on a shape where it is not the fastest: the comparison that was asked for.
        warnings.simplefilter("ignore")
        model = (KernelRidgeCV if kernel else RidgeCV)(
            np.array(ALPHAS), fit_intercept=True, cv=folds, solver_params=params
        )
        model.fit(X.astype(dtype), Y.astype(dtype))
        predicted = model.predict(X_test.astype(dtype))
    scores = correlation_score(torch.as_tensor(Y_test.astype(dtype)), predicted.cpu())
    return model.best_alphas_.cpu().numpy(), model.cv_scores_.cpu().numpy(), scores.cpu().numpy()


def ratio(name: str, theirs: list[float], mine: list[float], goal: float | None, times: float = 1.0) -> list[Row]:
    each = [a * times / b for a, b in zip(theirs, mine, strict=True)]
    value = median(theirs) * times / median(mine)
    spread = f", rounds {min(each):.1f} to {max(each):.1f}" if len(each) > 1 else ""
    return [
        Row(
            f"{name}: himalaya / ours{spread}",
            value,
            "times",
            f">= {goal:g}" if goal else "",
            value >= goal if goal else None,
        )
    ]


def speed(quick: bool, device: str) -> list[Row]:
    # The goals are for the full shapes: smaller ones spend their time elsewhere.
    goals = {"one": 15.0, "six": 15.0} if device.startswith("cuda") else {"one": 18.0, "six": 25.0, "wide": 4.0}
    return one_and_six(quick, device, {} if quick else goals) + wide(quick, device, {} if quick else goals)


def one_and_six(quick: bool, device: str, goals: dict[str, float]) -> list[Row]:
    clock, shape, rounds = Clock(device), QUICK[REPLICA] if quick else REPLICA, 1 if quick else 3
    data, folds = world(*shape), cv.contiguous(shape[0], N_FOLDS)
    ours(*data, folds, device)
    mine, six, hand = [], [], []
    for number in range(rounds):
        say(f"one subject and six: round {number + 1} of {rounds}")
        mine.append(clock(lambda: ours(*data, folds, device)))
        hand.append(clock(lambda: himalaya(*data, folds, device)))
        six.append(clock(lambda: ours(*data, folds, device, SUBJECTS)))
    default = [clock(lambda: himalaya(*data, folds, device, batches=False))]
    text = f"one subject ({' x '.join(map(str, shape[:3]))})"
    rows = ratio(f"{text}, RidgeCV in batches", hand, mine, goals.get("one"))
    rows += ratio(f"{text}, RidgeCV", default, [median(mine)], None)
    rows += ratio("six subjects with one plan, RidgeCV in batches", hand, six, goals.get("six"), SUBJECTS)
    rows += [Row(f"{text}: ours", median(mine), "s"), Row(f"{text}: himalaya in batches", median(hand), "s")]
    return rows + rates(data, folds, device)


def wide(quick: bool, device: str, goals: dict[str, float]) -> list[Row]:
    clock, shape, rounds = Clock(device), QUICK[WIDE] if quick else WIDE, 1 if quick else 3
    data, folds = world(*shape), cv.contiguous(shape[0], N_FOLDS)
    ours(*data, folds, device)
    mine, hand, default = [], [], []
    for number in range(rounds):
        say(f"wide: round {number + 1} of {rounds}")
        mine.append(clock(lambda: ours(*data, folds, device)))
        hand.append(clock(lambda: himalaya(*data, folds, device, kernel=True)))
        default.append(clock(lambda: himalaya(*data, folds, device, kernel=True, batches=False)))
    text = f"wide ({' x '.join(map(str, shape[:3]))})"
    rows = ratio(f"{text}, KernelRidgeCV", default, mine, goals.get("wide"))
    rows += ratio(f"{text}, KernelRidgeCV in batches", hand, mine, None)
    rows += [Row(f"{text}: ours", median(mine), "s"), Row(f"{text}: himalaya in batches", median(hand), "s")]
    return rows


def products(plan: Plan) -> float:
    """Multiplications and additions of a target, in the products of `solve`."""
    sizes = [plan.U.numel(), plan.F.numel()]
    for fold in plan.folds:
        steep = [side.steep[1] for side in (fold.z, fold.w) if side.steep is not None]
        parts = [fold.z.matrix, fold.w.matrix, fold.K, fold.numerator, fold.denominator, *steep]
        sizes += [part.numel() for part in (*parts, *(block for _, _, block in fold.near))]
    return 2.0 * sum(sizes)


def peak(dtype: torch.dtype, device: str = "cpu", size: int = 2048) -> float:
    """FLOP a second of CPU time (of wall time on a GPU) of a square product; the best of five."""
    clock, a = Clock(device), torch.randn(size, size, dtype=dtype, device=device)
    times = [clock(lambda: [a @ a for _ in range(4)]) for _ in range(6)]
    return 4 * 2 * size**3 / min(times[1:])


def rates(data, folds, device: str = "cpu") -> list[Row]:
    """How fast the parts are, against a plain matrix product."""
    clock = Clock(device)
    X, Y, X_test, Y_test = data
    splits = Splits(len(X), tuple(folds))
    plans, targets = [], []
    planning = clock(lambda: plans.append(Plan(X, splits, ALPHAS, X_test, device=device)))
    survey = clock(lambda: targets.append(Targets.survey(Y, splits, Y_test=Y_test)))
    solving = clock(lambda: solve(plans[0], targets[0]))
    rate, best = products(plans[0]) * Y.shape[1] / solving / 1e9, peak(torch.float32, device) / 1e9
    return [
        Row("factorising the features", planning, "s"),
        Row("looking through the responses", survey, "s"),
        Row("solving", solving, "s"),
        Row("solving: products", rate, "GFLOP/s"),
        Row("a plain float32 product", best, "GFLOP/s"),
        Row("solving: share of it", rate / best, ""),
    ]


def agreement(quick: bool, device: str) -> list[Row]:
    """Against himalaya in float64, over some of the replica's targets."""
    n, p, _, n_test = QUICK[REPLICA] if quick else REPLICA
    rows = []
    for kind in ("power law", "massive dimensions", "duplicate and constant columns"):
        say(f"agreement: {kind}")
        X, Y, X_test, Y_test = world(n, p, 200, n_test, seed=1)
        for part in (X, X_test):
            if kind == "massive dimensions":
                part[:, :3] *= 3000
            if kind == "duplicate and constant columns":
                part[:, p // 2 :] = part[:, : p - p // 2]
                part[:, 0] = 0.5
        folds = cv.contiguous(n, N_FOLDS)
        alphas, cv_scores, test = himalaya(X, Y, X_test, Y_test, folds, dtype="float64")
        (fit,) = ours(X, Y, X_test, Y_test, folds, device)
        other = ~np.isclose(fit.alpha, alphas)
        # CV scores of both picks, from the float64 solver.
        gap = np.zeros(len(alphas))
        splits = Splits(n, tuple(folds))
        for alpha in {*fit.alpha[other], *alphas[other]}:
            plan = Plan(X, splits, [alpha], None, "float64")
            score = solve(plan, Targets.survey(Y, splits)).cv_score
            gap += np.where(other & (alphas == alpha), score, 0) - np.where(other & (fit.alpha == alpha), score, 0)
        far = np.abs(fit.test_score - test) > 1e-4
        error = float(np.abs(fit.cv_score - cv_scores).max())
        wrong = float((far & (np.abs(gap) > 1e-5)).mean())
        rows += [
            Row(f"{kind}: largest error of a CV score", error, "", "<= 1e-5", error <= 1e-5),
            Row(f"{kind}: targets with another r though one alpha is better", wrong, "", "0", wrong == 0),
            Row(f"{kind}: targets with another alpha that is as good", float(other.mean()), ""),
        ]
    return rows


def memory(quick: bool) -> list[Row]:
    """Memory above the data, each solver in a process of its own."""
    n, p, t = (1024, 192, 1000) if quick else (4096, 768, 4000)
    found = {}
    for name in ("ours", "himalaya"):
        done = subprocess.run(
            [sys.executable, __file__, "--peak", f"{name},{n},{p},{t}"],
            capture_output=True,
            text=True,
            check=True,
        )
        found[name] = float(done.stdout)
    return [
        Row(f"memory above the data at {n} x {p} x {t}: himalaya in batches", found["himalaya"], "MiB"),
        Row(
            "the same: ours",
            found["ours"],
            "MiB",
            "<= himalaya's",
            found["ours"] <= found["himalaya"],
        ),
    ]


def resident(key: str = "VmRSS") -> float:
    """MiB of this process: ``VmRSS`` now, ``VmHWM`` at most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


def measure_peak(what: str) -> None:
    """Print by how many MiB a solver's memory grew beyond its data. A small problem first: libraries load."""
    name, *numbers = what.split(",")
    n, p, t = map(int, numbers)
    solver = ours if name == "ours" else himalaya
    solver(*world(256, 32, 100, 64), cv.contiguous(256, N_FOLDS))
    data, folds = world(n, p, t, n // 4), cv.contiguous(n, N_FOLDS)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident()
    solver(*data, folds)
    print(resident("VmHWM") - before)


def on_paper(float32: float, float64: float, eigen: float, where: str) -> list[Row]:
    """The study's hours at given rates (FLOP a second): one layer's plan and solve, times all of them."""
    n, p, t, n_test = PAPER
    # Gram, U, Grams of the folds and of a fold's validation set, test features; products with responses as
    # in `products`; an eigendecomposition is about 9 p^3.
    plan = (2 * n * p**2 * 3 + N_FOLDS * 4 * p**3 + 2 * n_test * p**2) / float64
    plan += (N_FOLDS + 1) * 9 * p**3 / eigen
    solving = 2 * p * (n + n_test + N_FOLDS * (3 * p + 75)) * t / float32
    hours = LAYERS * (plan + SUBJECTS * solving) / 3600
    return [
        Row(f"paper, one layer, {where}: plan", plan, "s"),
        Row(f"paper, one layer and subject, {where}: solve", solving, "s"),
        Row(f"paper, {LAYERS} layers x {SUBJECTS} subjects, {where}", hours, "h"),
    ]


def extrapolated(device: str) -> list[Row]:
    """From the rates of this machine, measured now; without a GPU also of an H100, from its data sheet."""
    say("rates of this machine")
    size = 1024
    gram = torch.randn(size, 2 * size, dtype=torch.float64, device=device)
    gram = gram @ gram.T
    clock = Clock(device)
    eigen = 9 * size**3 / min(clock(lambda: torch.linalg.eigh(gram)) for _ in range(3))
    rows = on_paper(
        0.9 * peak(torch.float32, device),
        peak(torch.float64, device),
        eigen,
        f"this machine, {device}, a core" if device == "cpu" else "this GPU",
    )
    if device == "cpu":
        f32, f64 = H100["float32"] * SHARE["product"], H100["float64"] * SHARE["product"]
        rows += on_paper(f32, f64, H100["float64"] * SHARE["eigen"], "H100, on paper")
    return rows


def scale(quick: bool) -> list[Row]:
    """One layer of six subjects through ``encode``, responses in files, in a process of its own."""
    n_runs, n_trs, p, n_subjects, n_voxels = SCALE_QUICK if quick else SCALE
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_runs, n_trs, p), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        say("writing responses")
        np.save(f"{folder}/X.npy", X)
        for subject in range(n_subjects):
            weights = rng.standard_normal((8, n_voxels), dtype=np.float32) / 8
            for run in range(n_runs):
                Y = rng.standard_normal((n_trs, n_voxels), dtype=np.float32) + X[run, :, :8] @ weights
                np.save(f"{folder}/{subject}-{run}.npy", Y)
        del Y
        say("encoding")
        command = [sys.executable, __file__, "--peak", f"encode,{folder},{n_subjects}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    grown, plans, seconds, cpu, r = map(float, done.stdout.split())
    shape = f"{n_subjects} subjects x {n_voxels} voxels x {n_runs * n_trs} TRs in {n_runs} runs, {p} features"
    return [
        Row(f"encode, one layer, {shape}: all of it, one thread", seconds, "s"),
        Row("the same: CPU time", cpu, "s"),
        Row("responses on disk", 4 * n_subjects * n_voxels * n_runs * n_trs / GIB, "GiB"),
        Row("plans of all folds", plans, "GiB"),
        Row("most memory in use, above the plans", grown - plans, "GiB", "<= 8", grown - plans <= 8),
        Row("r, mean of all voxels", r, ""),
    ]


def measure_encode(folder: str, n_subjects: int) -> None:
    """Print by how many GiB memory grows, the plans' GiB, seconds, CPU seconds, mean r. A small problem first."""
    torch.set_num_threads(1)  # as a study does
    X = np.load(f"{folder}/X.npy")
    runs, spec = [f"run-{i}" for i in range(len(X))], EncodingSpec(permutations=0)
    encode(
        {0: dict(zip(runs, X[:, :, :4], strict=True))}, {"s": {run: X[i, :, :4] for i, run in enumerate(runs)}}, spec
    )
    Y = {
        f"sub-{s}": {run: np.load(f"{folder}/{s}-{i}.npy", mmap_mode="r") for i, run in enumerate(runs)}
        for s in range(n_subjects)
    }
    Path("/proc/self/clear_refs").write_text("5")
    before, began, cpu = resident(), time.perf_counter(), time.process_time()
    scores = encode({0: dict(zip(runs, X, strict=True))}, Y, spec)
    done, cpu, grown = time.perf_counter() - began, time.process_time() - cpu, resident("VmHWM") - before
    flat, number, plans = np.concatenate(X), np.repeat(np.arange(len(X)), X.shape[1]), 0
    for train, test in cv.outer_folds(number, spec):
        splits = Splits(len(train), tuple(cv.inner_folds(train, number, spec)))
        plans += Plan(flat[train], splits, np.logspace(*spec.log10_alphas), flat[test]).bytes
    print(grown / 1024, plans / GIB, done, cpu, np.mean([score.r.mean() for score in scores.values()]))


def paper(quick: bool) -> list[Row]:
    """One layer of the paper's size, responses in a file."""
    n, p, t, n_test = (2048, 512, 4000, 512) if quick else PAPER
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        say("writing features and responses")
        X, _, X_test, _ = world(n, p, 1, n_test)
        Y = np.lib.format.open_memmap(f"{folder}/Y.npy", "w+", np.float32, (n + n_test, t))
        for start in range(0, len(Y), 1000):
            rows = X[start : start + 1000] if start + 1000 <= n else np.concatenate([X, X_test])[start : start + 1000]
            part = rng.standard_normal((len(Y[start : start + 1000]), t), dtype=np.float32)
            Y[start : start + 1000] = part + 0.3 * np.tile(rows[:, :8] / X[:, :8].std(0), (1, t // 8 + 1))[:, :t]
        Y.flush()
        del Y
        Y = np.load(f"{folder}/Y.npy", mmap_mode="r")
        splits = Splits(n, tuple(cv.contiguous(n, N_FOLDS)))
        Path("/proc/self/clear_refs").write_text("5")
        began, cpu = time.perf_counter(), time.process_time()
        say("looking through the responses")
        targets = Targets.survey(View(Y, slice(n)), splits, View(Y, slice(n, n + n_test)))
        surveyed = time.perf_counter()
        say(f"factorising ({surveyed - began:.0f} s)")
        plan = Plan(X, splits, ALPHAS, X_test)
        planned = time.perf_counter()
        say(f"solving ({planned - began:.0f} s)")
        fit = solve(plan, targets)
        done, cpu = time.perf_counter(), time.process_time() - cpu
    high = resident("VmHWM") / 1024
    shape = f"{n} x {p}, {t} voxels"
    assert np.isfinite(fit.test_score).all()
    return [
        Row(f"one layer, {shape}: all of it, two cores", done - began, "s"),
        Row("the same: CPU time", cpu, "s"),
        Row("of that: looking through the responses, once a sweep", surveyed - began, "s"),
        Row("of that: factorising the features", planned - surveyed, "s"),
        Row("of that: solving", done - planned, "s"),
        Row("most memory in use", high, "GiB", "<= 24", high <= 24),
        Row("plan", plan.bytes / GIB, "GiB"),
        Row("test r, median of the voxels", float(np.median(fit.test_score)), ""),
        Row(
            f"{LAYERS} layers x {SUBJECTS} subjects at this rate",
            LAYERS * (planned - surveyed + SUBJECTS * (done - planned)) / 3600,
            "h",
        ),
    ]


def main() -> None:
    options = arguments(
        __doc__,
        device={"default": "cpu", "help": "cpu or cuda"},
        scale={"action": "store_true", "help": "six subjects with 90,000 voxels through encode instead"},
        paper={"action": "store_true", "help": "one layer of the paper's size instead"},
        peak={"default": "", "help": "for this program itself: SOLVER,N,P,T or encode,FOLDER,SUBJECTS"},
    )
    if options.peak.startswith("encode,"):
        _, folder, n_subjects = options.peak.split(",")
        measure_encode(folder, int(n_subjects))
        return
    if options.peak:
        measure_peak(options.peak)
        return
    if options.scale:
        finish("encoding-scale", scale(options.quick), options)
        return
    if options.paper:
        finish("encoding-paper", paper(options.quick), options)
        return
    rows = speed(options.quick, options.device)
    rows += agreement(options.quick, options.device)
    if options.device == "cpu":
        rows += memory(options.quick) + permutation_speed("replica", options.quick)
    else:
        torch.backends.cuda.matmul.allow_tf32 = True
        shape = QUICK[REPLICA] if options.quick else REPLICA
        data, folds = world(*shape), cv.contiguous(shape[0], N_FOLDS)
        clock = Clock(options.device)
        loose = [clock(lambda: himalaya(*data, folds, options.device)) for _ in range(3)]
        torch.backends.cuda.matmul.allow_tf32 = False
        strict = [clock(lambda: ours(*data, folds, options.device)) for _ in range(3)]
        rows += ratio("one subject, RidgeCV with TF32 allowed", loose, strict, None)
    rows += extrapolated(options.device)
    name = torch.cuda.get_device_name(0) if options.device.startswith("cuda") else "cpu"
    finish("encoding", rows, options, device=name)


if __name__ == "__main__":
    main()
