"""Features: equal to plain loops over transformers' own hidden states, whatever the batching."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    PreTrainedTokenizerFast,
)

from phaselab import features, stimuli
from phaselab.features import FeatureError, extract, to_trs
from phaselab.stimuli import Run, Stimulus
from phaselab.study import Features as Spec

TEXT = (
    "the old captain said that she would never leave the island again but in the morning a boat "
    "came over the water and nobody knew who was in it “Who’s there ?” cried Ana naïvely"
)
WORDS = TEXT.split()


def network(kind: str, layers: int = 3, context: int = 512) -> torch.nn.Module:
    shape = {
        "vocab_size": 400,
        "hidden_size": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": context,
        # Larger than usual, so that hidden states depend on context well above rounding.
        "initializer_range": 0.2,
    }
    configs = {
        "gpt_neox": (GPTNeoXForCausalLM, GPTNeoXConfig),
        "olmo2": (Olmo2ForCausalLM, Olmo2Config),
        "llama": (LlamaForCausalLM, LlamaConfig),
    }
    architecture, config = configs[kind]
    torch.manual_seed(1)
    return architecture(config(**shape, pad_token_id=None, bos_token_id=None, eos_token_id=None)).eval()


def byte_level(bos: bool = False) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.train_from_iterator(
        [TEXT],
        trainers.BpeTrainer(
            vocab_size=290,
            show_progress=False,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    if bos:
        inner.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


def metaspace() -> PreTrainedTokenizerFast:
    """Llama-like: spaces become a mark that is also put before the text, rare characters become bytes."""
    pieces = [
        "<unk>",
        *(f"<0x{b:02X}>" for b in range(256)),
        "▁",
        *sorted({c for w in WORDS[:20] for c in w}),
    ]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")


def word_level() -> PreTrainedTokenizerFast:
    inner = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(["<unk>", *dict.fromkeys(WORDS)])}, "<unk>")
    )
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")


TOKENIZERS = {
    "bytes": byte_level,
    "bytes+bos": lambda: byte_level(bos=True),
    "metaspace": metaspace,
    "words": word_level,
}


def run(name: str, texts: list[str], starts: tuple[int, ...] = (0,), n_trs: int = 30) -> Run:
    onsets = np.arange(len(texts)) * 0.5
    begins = np.isin(np.arange(len(texts)), starts)
    labels = pd.DataFrame({"word": texts})
    return Run(name, tuple(texts), onsets, onsets + 0.4, 2.0, n_trs, labels, begins)


def story(n: int, seed: int = 0) -> list[str]:
    return [WORDS[i] for i in np.random.default_rng(seed).integers(0, len(WORDS), n)]


def hidden_states(model, ids: list[int]) -> np.ndarray:
    """(n_layers + 1, n_tokens, p) of one sequence, by transformers itself."""
    with torch.no_grad():
        states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    return torch.cat(states).numpy()


def pooled(states: np.ndarray, pooling: str) -> np.ndarray:
    return {"mean": states.mean(1), "last": states[:, -1], "max": states.max(1)}[pooling]


def stacked(found: features.Features) -> np.ndarray:
    return np.stack([found.layers[layer] for layer in sorted(found.layers)])


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("kind", ["gpt_neox", "olmo2", "llama"])
@pytest.mark.parametrize("pooling", ["mean", "last", "max"])
def test_text_equals_one_text_at_a_time(kind, pooling):
    model, tokenizer = network(kind), byte_level(bos=True)
    texts = [" ".join(story(n, n)) for n in (1, 7, 30, 2, 7, 12)]
    stimulus = Stimulus("s", (run("a", texts[:3]), run("b", texts[3:])))
    found = extract(model, tokenizer, stimulus, Spec(context="text", pooling=pooling), max_tokens=64)
    assert sorted(found.layers) == [0, 1, 2, 3]
    assert found.runs.tolist() == ["a"] * 3 + ["b"] * 3
    for i, text in enumerate(texts):
        ids = tokenizer(text)["input_ids"]
        assert (ids[0], ids[-1]) == (0, 1)
        # BOS is read but not pooled; what the tokenizer puts behind the text is not read.
        assert_close(stacked(found)[:, i], pooled(hidden_states(model, ids[:-1])[:, 1:], pooling))


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_sliding_window_equals_word_by_word(name, pooling):
    model, tokenizer = network("olmo2"), TOKENIZERS[name]()
    spec = Spec(context="words", pooling=pooling, window=5, stride=3)
    runs = (run("a", story(31), starts=(0, 9, 10, 14)), run("b", story(8, 1), starts=()))
    found = stacked(extract(model, tokenizer, Stimulus("s", runs), spec, max_tokens=100))
    row = 0
    for one in runs:
        bounds = [*sorted({0, *np.flatnonzero(one.starts)}), len(one.texts)]
        for begin, end in pairwise(bounds):
            words = one.texts[begin:end]
            # Tokens of each word alone: byte-level BPE sees its leading space, Metaspace puts its own mark.
            space = " " if name.startswith("bytes") else ""
            alone = [w if i == 0 else space + w for i, w in enumerate(words)]
            pieces = tokenizer(alone, add_special_tokens=False)["input_ids"]
            assert [*chain(*pieces)] == tokenizer(" ".join(words), add_special_tokens=False)["input_ids"]
            for i in range(len(words)):
                new = 0 if i < spec.window + spec.stride else i - (i - spec.window) % spec.stride
                start = max(0, new - spec.window)
                ids = [*([0] if name == "bytes+bos" else []), *chain(*pieces[start : i + 1])]
                expected = pooled(hidden_states(model, ids)[:, len(ids) - len(pieces[i]) :], pooling)
                assert_close(found[:, row], expected)
                row += 1
    assert row == found.shape[1]


def test_one_narrative_one_pass_and_nothing_crosses_a_start():
    model, tokenizer = network("gpt_neox"), word_level()
    spec = Spec(context="words", window=20, stride=4)
    first, second = story(20), story(20, 1)
    both = Stimulus("s", (run("a", first + second, starts=(0, 20)),))
    alone = Stimulus("s", (run("a", second),))
    joined = Stimulus("s", (run("a", first + second),))
    found = extract(model, tokenizer, both, spec)
    assert found.notes["tokens"] == 40  # each word is read once: no pass was split
    assert_close(found.layers[3][20:], extract(model, tokenizer, alone, spec).layers[3])
    crossed = extract(model, tokenizer, joined, spec).layers[3][20:]
    assert np.abs(crossed - found.layers[3][20:]).max() > 1e-2
    # Neither does it cross from run to run, marked as a start or not.
    runs = Stimulus("s", (run("a", first), run("b", second, starts=())))
    assert_close(extract(model, tokenizer, runs, spec).layers[3], found.layers[3])


def test_batching_padding_side_and_pad_token_do_not_matter():
    model, tokenizer = network("llama"), byte_level()
    assert tokenizer.pad_token is None
    texts = [" ".join(story(n, n)) for n in (3, 11, 1, 6, 20)]
    stimulus = Stimulus("s", (run("a", texts),))
    for spec in (Spec(context="text", pooling="mean"), Spec(context="words", window=2, stride=1)):
        plain = stacked(extract(model, tokenizer, stimulus, spec, max_tokens=1))
        for side in ("left", "right"):
            other = byte_level()
            other.pad_token, other.padding_side = "</s>", side
            assert_close(stacked(extract(model, other, stimulus, spec)), plain)


def test_identical_texts_are_encoded_once():
    model, tokenizer = network("gpt_neox"), word_level()
    texts = ["the old captain", "nobody knew", "the old captain", " the old captain "]
    found = extract(model, tokenizer, Stimulus("s", (run("a", texts), run("b", texts))), Spec(context="text"))
    assert (found.notes["texts"], found.notes["documents"], found.notes["tokens"]) == (8, 2, 5)
    assert np.array_equal(found.layers[2][0], found.layers[2][6])
    assert not np.array_equal(found.layers[2][0], found.layers[2][1])


def test_empty_texts_are_zero_and_leave_their_neighbours_alone():
    model, tokenizer = network("olmo2"), byte_level()
    words = story(9)
    holes = [*words[:4], "", "  ", *words[4:]]
    for spec in (Spec(context="text"), Spec(context="words", window=3, stride=2)):
        found = extract(model, tokenizer, Stimulus("s", (run("a", holes),)), spec)
        assert found.notes["empty"] == 2
        assert not found.layers[3][4:6].any()
        whole = extract(model, tokenizer, Stimulus("s", (run("a", words),)), spec)
        assert_close(np.delete(found.layers[3], [4, 5], axis=0), whole.layers[3])
    nothing = extract(model, tokenizer, Stimulus("s", (run("a", ["", ""]), run("b", []))), Spec())
    assert nothing.layers[0].shape == (2, 32)
    assert nothing.notes["empty"] == 2


def test_short_model_context_cuts_on_the_left_and_counts():
    model, tokenizer = network("gpt_neox", context=10), word_level()
    text = story(25)
    found = extract(model, tokenizer, Stimulus("s", (run("a", [" ".join(text)]),)), Spec(context="text"))
    assert found.notes["truncated"] == 1
    ids = tokenizer(" ".join(text[-10:]))["input_ids"]
    assert_close(stacked(found)[:, 0], hidden_states(model, ids)[:, -1])

    # Ten words fill the context; then at most five new ones a pass, with five before them.
    words = extract(model, tokenizer, Stimulus("s", (run("a", text),)), Spec(window=30, stride=20))
    assert words.notes["truncated"] == 15
    for i in (3, 9, 10, 14, 15, 24):
        start = 0 if i < 10 else i - i % 5 - 5
        ids = tokenizer(" ".join(text[start : i + 1]))["input_ids"]
        assert_close(stacked(words)[:, i], hidden_states(model, ids)[:, -1])


def test_broken_weights_are_refused_with_layer_and_model():
    model, tokenizer = network("llama"), word_level()
    model.name_or_path = "somewhere/step8-tokens9"
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = torch.inf
    with pytest.raises(FeatureError, match=r"somewhere/step8-tokens9: layer 2: .*not finite for 6 of 6"):
        extract(model, tokenizer, Stimulus("s", (run("a", WORDS[:6]),)), Spec(window=2, stride=1))
    # A failure leaves no hook behind.
    assert not any(block._forward_pre_hooks for block in model.model.layers)


def test_constant_columns_are_counted():
    model, tokenizer = network("gpt_neox"), word_level()
    with torch.no_grad():
        model.gpt_neox.embed_in.weight[:, :7] = 0.5
    found = extract(model, tokenizer, Stimulus("s", (run("a", WORDS),)), Spec())
    assert found.constant_columns == {0: 7, 1: 0, 2: 0, 3: 0}


def test_extraction_is_reproducible_to_the_bit():
    model, tokenizer = network("olmo2"), byte_level()
    stimulus = Stimulus("s", (run("a", story(40)),))
    spec = Spec(pooling="mean", window=8, stride=4)
    assert np.array_equal(
        stacked(extract(model, tokenizer, stimulus, spec)), stacked(extract(model, tokenizer, stimulus, spec))
    )


@pytest.mark.parametrize("haemodynamics", ["hrf", "average", "stack"])
def test_features_reach_the_tr_grid_run_by_run(haemodynamics):
    model, tokenizer = network("llama"), word_level()
    spec = Spec(hemodynamics=haemodynamics, trim=4)
    stimulus = Stimulus("s", (run("a", story(20), n_trs=12), run("b", story(30, 1), n_trs=17)))
    found = extract(model, tokenizer, stimulus, spec)
    grid = to_trs(found, stimulus, spec)
    lengths = [{name: len(x) for name, x in grid[layer].items()} for layer in sorted(grid)]
    assert lengths == [{"a": 8, "b": 13}] * 4
    expected = stimuli.align(found.layers[2][20:], stimulus.runs[1], spec)[4:]
    assert np.array_equal(grid[2]["b"], expected)
    assert grid[2]["b"].dtype == np.float32
    with pytest.raises(FeatureError, match="run a: trim: found 12, expected fewer than its 12 TRs"):
        to_trs(found, stimulus, spec.model_copy(update={"trim": 12}))
    with pytest.raises(FeatureError, match="features of 49 texts in runs a, b, expected 50 texts"):
        to_trs(replace(found, runs=found.runs[1:]), stimulus, spec)
