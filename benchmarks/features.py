"""Hidden states: against one text at a time with all layers, and what a 7B model would cost.

    python benchmarks/features.py [--quick] [--json FILE] [--check] [--device cuda]

A random OLMo2 of 8 layers of 512 features, with the vocabulary of OLMo-2, reads captions, one a second, each for three
seconds in a row or for one. `phaselab.features.extract` takes turns with the plain loop: one text at a time through the
model, after BOS, hidden states of all layers, their means over the text's tokens. The loop reads a sample of the
captions, evenly spaced by length, and its time per token counts. It is measured a second time without the model's head,
which no feature needs: a wide vocabulary on a narrow network makes more of it than there is at 7B. Ratios are of CPU
time (of wall time on CUDA), medians over turns. Peak memory is that of processes of their own, which read n and 4n
seconds.

"At most" is the ratio if the products with the blocks' matrices ran at the peak of a large product and all else took no
time: nothing that computes these numbers in this precision can be faster. It leaves little to gain on long captions.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pandas as pd
import torch
from _table import Row, arguments, finish
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import Olmo2Config, Olmo2ForCausalLM, PreTrainedTokenizerFast

from phaselab import features as extraction
from phaselab.features import Features, extract
from phaselab.stimuli import Run, Stimulus
from phaselab.study import FeatureSpec as Spec

LAYERS, WIDTH, INNER, VOCABULARY = 8, 512, 2048, 100_278
#: Tokens of a caption, from and to: a line of speech; a description of a scene.
SHORT, LONG = (4, 12), (15, 35)
REPEATS = 3
#: How many times faster than the plain loop: captions that often in a row, and once.
GOALS = (15, 6)
SPEC = Spec(context="text", pooling="mean")

#: OLMo-2 7B, and the text of ds005531: what "on paper" is about.
PARAMETERS, HIDDEN_7B, LAYERS_7B, DISK_7B = 6.9e9, 4096, 33, 29e9
CHECKPOINTS, SECONDS, TOKENS_A_TEXT = 20, 31_913, 25
H100_PEAK, H100_SHARE, READ_A_SECOND = 989e12, 0.4, 1e9


def build(layers: int, width: int, inner: int, vocabulary: int, device: str) -> Any:
    torch.manual_seed(0)
    shape = {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": inner}
    special = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    config = Olmo2Config(vocab_size=vocabulary, num_attention_heads=width // 64, **shape, **special)
    return Olmo2ForCausalLM(config).eval().to(device)


def words() -> list[str]:
    return [f"word{i}" for i in range(4000)]


def tokenizer() -> PreTrainedTokenizerFast:
    inner = Tokenizer(WordLevel({w: i for i, w in enumerate(["<unk>", "<s>", *words()])}, "<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>")


def captions(seconds: int, lengths: tuple[int, int], repeats: int) -> Stimulus:
    """One text a second, each `repeats` times in a row."""
    rng = np.random.default_rng(0)
    different = [" ".join(rng.choice(words(), size)) for size in rng.integers(lengths[0], lengths[1] + 1, seconds)]
    texts = [text for text in different for _ in range(repeats)][:seconds]
    onsets, starts = np.arange(seconds, dtype=float), np.arange(seconds) == 0
    run = Run("all", tuple(texts), onsets, onsets + 1, 1.0, seconds, pd.DataFrame({"text": texts}), starts)
    return Stimulus("captions", (run,))


@torch.inference_mode()
def plain(model: Any, tokens: Any, texts: tuple[str, ...], head: bool) -> np.ndarray:
    """(n_layers, n_texts, p) by one text at a time."""
    read = model if head else model.base_model
    means = []
    for text in texts:
        ids = torch.tensor([[tokens.bos_token_id, *tokens(text)["input_ids"]]], device=model.device)
        states = read(input_ids=ids, output_hidden_states=True).hidden_states
        means.append(np.stack([layer[0, 1:].mean(dim=0).float().cpu().numpy() for layer in states]))
    return np.stack(means, axis=1)


def ours(model: Any, tokens: Any, stimulus: Stimulus) -> tuple[Features, np.ndarray]:
    found = extract(model, tokens, stimulus, SPEC)
    return found, np.stack([found.layers[layer] for layer in found.layers])


def timed(run: Callable[[], Any], device: str) -> tuple[float, Any]:
    clock = time.process_time if device == "cpu" else time.perf_counter
    began = clock()
    result = run()
    return clock() - began, result


def against_loop(model: Any, device: str, quick: bool, flop: float, peak: float) -> tuple[list[Row], float]:
    """Rows of speed, and tokens a second without repeats."""
    tokens = tokenizer()
    turns, parts = (1, 3) if quick else (3, 1)
    rows, speed = [], 0.0
    ours(model, tokens, captions(100, SHORT, 1))  # the first passes of a process are slower
    for kind, seconds, lengths in (("captions", 600, SHORT), ("long captions", 240, LONG)):
        stimuli = {n: captions(seconds // parts, lengths, n) for n in (REPEATS, 1)}
        different = sorted(stimuli[1].runs[0].texts, key=lambda text: len(text.split()))
        sample = tuple(different[:: max(1, len(different) // (20 if quick else 60))])
        times: dict[int, list[tuple[float, ...]]] = {n: [] for n in stimuli}
        errors, n_tokens = dict.fromkeys(stimuli, 0.0), dict.fromkeys(stimuli, 0)
        for _ in range(turns):
            loop, expected = timed(lambda t=sample: plain(model, tokens, t, head=True), device)
            found = {n: timed(lambda s=stimulus: ours(model, tokens, s), device) for n, stimulus in stimuli.items()}
            headless, _ = timed(lambda t=sample: plain(model, tokens, t, head=False), device)
            for n, (own, (features, values)) in found.items():
                texts = stimuli[n].runs[0].texts
                n_tokens[n] = features.notes["tokens"]
                more = sum(1 + len(text.split()) for text in texts) / sum(1 + len(text.split()) for text in sample)
                most = loop * more * peak / (n_tokens[n] * flop)
                times[n].append((loop * more / own, headless * more / own, own, most))
                at = [(texts.index(text), k) for k, text in enumerate(sample) if text in texts]
                here, there = (list(numbers) for numbers in zip(*at, strict=True))
                error = np.abs(values[:, here] - expected[:, there]).max(axis=(1, 2)) / np.abs(expected).max(
                    axis=(1, 2)
                )
                errors[n] = max(errors[n], float(error.max()))
        for n, goal in zip(stimuli, GOALS, strict=True):
            name = f"{kind} {'three times' if n > 1 else 'once'} each"
            ratio, without_head, own, most = np.median(times[n], axis=0)
            speed = n_tokens[n] / own
            rows += [
                Row(f"{name}: plain loop over extract", ratio, "times", f">= {goal}", bool(ratio >= goal)),
                Row(f"{name}: at most", most, "times"),
                Row(f"{name}: plain loop without head over extract", without_head, "times"),
                Row(f"{name}: extract", speed, "tokens/s"),
                Row(f"{name}: largest error of a layer", errors[n], "relative", "<= 1e-5", errors[n] <= 1e-5),
            ]
    return rows, speed


def matmul_peak(device: str) -> float:
    """FLOP/s of a float32 product as large as those of a batch; the best of several."""
    a, b = torch.randn(2048, 2048, device=device), torch.randn(2048, 2048, device=device)

    def multiply() -> None:
        torch.mm(a, b)
        if device != "cpu":
            torch.cuda.synchronize()

    multiply()
    return 2 * 2048**3 / min(timed(multiply, device)[0] for _ in range(15))


def read_for_memory(seconds: int, large: bool) -> None:
    """Extract in this process and print the most memory that it held, in bytes."""
    model = build(8, 256, 512, 8192, "cpu")
    stimulus = captions(seconds, SHORT, 1)
    extraction.IN_MEMORY = 0 if large else 1 << 40
    with tempfile.TemporaryDirectory() as folder:
        extract(model, tokenizer(), stimulus, SPEC, scratch=Path(folder))
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024
    print(peak)


def memory(quick: bool) -> list[Row]:
    seconds = 1000 if quick else 3000

    def peak(n: int, kind: str) -> float:
        command = [sys.executable, __file__, "--read", str(n), kind]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return int(said.splitlines()[-1]) / 1e6

    short, long = (peak(n, "file") for n in (seconds, 4 * seconds))
    rows = [
        Row(f"peak memory, {seconds} s of text", short, "MB"),
        Row(f"peak memory, {4 * seconds} s of text", long, "MB"),
        Row("peak memory, four times the seconds", long / short, "times", "<= 1.1", long / short <= 1.1),
    ]
    if quick:
        return rows
    return [
        *rows,
        Row(f"peak memory, {4 * seconds} s of text, without a file", peak(4 * seconds, "memory"), "MB"),
        Row(f"result of {4 * seconds} s of text", 9 * 4 * 256 * 4 * seconds / 1e6, "MB"),
    ]


def on_paper(speed: float, flops: float) -> list[Row]:
    """OLMo-2 7B over its checkpoints, from what was measured here and what is stated above."""
    work = 2 * PARAMETERS * SECONDS * TOKENS_A_TEXT  # FLOP a checkpoint, no caption twice
    day = 86_400
    cpu = CHECKPOINTS * work / flops
    h100 = CHECKPOINTS * work / (H100_PEAK * H100_SHARE)
    pooled = 4 * LAYERS_7B * SECONDS * HIDDEN_7B
    print(
        f"""
On paper: OLMo-2 7B, {CHECKPOINTS} checkpoints, {SECONDS:,} seconds of text, one text a second of
{TOKENS_A_TEXT} tokens, 2 x {PARAMETERS:.3g} FLOP a token.
This CPU: the {flops / 1e9:.3g} GFLOP/s of extract above (float32).
H100: {H100_SHARE:.0%} of {H100_PEAK / 1e12:.0f} TFLOP/s (dense bf16), assumed and not measured.
{DISK_7B / 1e9:.0f} GB a checkpoint, read at {READ_A_SECOND / 1e9:.0f} GB/s (assumed). Without encoding.
"""
    )
    return [
        Row("on paper: this CPU, no caption twice", cpu / day, "days"),
        Row("on paper: this CPU, captions three times each", cpu / REPEATS / day, "days"),
        Row("on paper: one H100, no caption twice", h100 / 60, "minutes"),
        Row("on paper: one H100, captions three times each", h100 / REPEATS / 60, "minutes"),
        Row("on paper: reading the checkpoints", CHECKPOINTS * DISK_7B / READ_A_SECOND / 60, "minutes"),
        Row("on paper: checkpoints on disk, all kept", CHECKPOINTS * DISK_7B / 1e9, "GB"),
        Row("on paper: checkpoints on disk, one at a time", DISK_7B / 1e9, "GB"),
        Row("on paper: hidden states of a checkpoint, all layers", pooled / 1e9, "GB"),
        Row("on paper: hidden states of all checkpoints, if kept", CHECKPOINTS * pooled / 1e9, "GB"),
    ]


def main() -> None:
    if sys.argv[1:2] == ["--read"]:
        read_for_memory(int(sys.argv[2]), sys.argv[3] == "file")
        return
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--device", default="cpu")
    given, rest = own.parse_known_args()
    sys.argv[1:] = rest
    options = arguments(__doc__ or "")
    model = build(LAYERS, WIDTH, INNER, VOCABULARY, given.device)
    # A token goes through the blocks' matrices; attention adds little to so short texts.
    flop = 2 * sum(p.numel() for p in model.base_model.layers.parameters())
    peak = matmul_peak(given.device)
    rows, speed = against_loop(model, given.device, options.quick, flop, peak)
    rows += [
        Row("matrix product of 2048 x 2048, float32", peak / 1e9, "GFLOP/s"),
        Row("share of it in extract, long captions once each", speed * flop / peak, ""),
    ]
    rows += memory(options.quick)
    rows += on_paper(speed, speed * flop)
    more = {"threads": torch.get_num_threads(), "device": given.device, "torch": torch.__version__}
    finish("features", rows, options, **more, load=[round(x, 2) for x in os.getloadavg()])


if __name__ == "__main__":
    main()
