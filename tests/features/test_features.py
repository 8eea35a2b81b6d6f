"""Features: equal to plain loops over transformers' own hidden states, whatever the batching."""

from __future__ import annotations

import weakref
from dataclasses import replace
from itertools import chain, pairwise

import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BambaConfig,
    BambaForCausalLM,
    ByT5Tokenizer,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Olmo3Config,
    Olmo3ForCausalLM,
    OlmoConfig,
    OlmoForCausalLM,
    PreTrainedTokenizerFast,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from phaselab import features, stimuli
from phaselab.encoding import encode
from phaselab.errors import PhaselabError
from phaselab.features import Features, extract, read_features, to_trs, write_features
from phaselab.lazy import Lazy
from phaselab.stimuli import Run, Stimulus
from phaselab.study import EncodingSpec
from phaselab.study import FeatureSpec as Spec

TEXT = (
    "the old captain said that she would never leave the island again but in the morning a boat "
    "came over the water and nobody knew who was in it “Who’s there ?” cried Ana naïvely"
)
WORDS = TEXT.split()


def in_batches(tokens, *args, **how):
    """What ``extract`` gives with batches of so many tokens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "MAX_TOKENS", {"cpu": tokens})
        return extract(*args, **how)


#: Sliding windows shorter than the texts; a third layer without positions, so that they are tested.
KINDS = {
    "gpt_neox": (GPTNeoXForCausalLM, GPTNeoXConfig, {}),
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "olmo": (OlmoForCausalLM, OlmoConfig, {}),
    "olmo2": (Olmo2ForCausalLM, Olmo2Config, {}),
    "olmo3": (Olmo3ForCausalLM, Olmo3Config, {"sliding_window": 6}),
    "smollm3": (
        SmolLM3ForCausalLM,
        SmolLM3Config,
        {"num_key_value_heads": 2, "no_rope_layer_interval": 3},
    ),
    "mamba": (MambaForCausalLM, MambaConfig, {"state_size": 8}),
    "bamba": (
        BambaForCausalLM,
        BambaConfig,
        {
            "mamba_n_heads": 8,
            "mamba_d_head": 8,
            "mamba_d_state": 8,
            "mamba_n_groups": 1,
            "mamba_chunk_size": 4,
            "attn_layer_indices": [1],
            "num_key_value_heads": 2,
        },
    ),
}


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
    architecture, config, own = KINDS[kind]
    torch.manual_seed(1)
    special = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    return architecture(config(**shape, **special, **own)).eval()


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


def word_level(**special: str) -> PreTrainedTokenizerFast:
    pieces = ["<unk>", *special.values(), *dict.fromkeys(WORDS)]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(pieces)}, "<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", **special)


TOKENIZERS = {
    "bytes": byte_level,
    "bytes+bos": lambda: byte_level(bos=True),
    "metaspace": metaspace,
    "words": word_level,
    "words+eos": lambda: word_level(eos_token="</s>"),
}
#: What begins each pass: BOS, EOS where there is none, nothing where there is neither.
OPENING = {"bytes": [0], "bytes+bos": [0], "metaspace": [], "words": [], "words+eos": [1]}


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
        if isinstance(model, MambaForCausalLM):
            # Its own list leaves the embedding output out and has the last layer without the norm as well.
            states = (model.backbone.embeddings(torch.tensor([ids])), *states[:-2], states[-1])
    return torch.cat(states).numpy()


def pooled(states: np.ndarray, pooling: str) -> np.ndarray:
    return {"mean": states.mean(1), "last": states[:, -1], "max": states.max(1)}[pooling]


def stacked(found: Features) -> np.ndarray:
    return np.stack([found.layers[layer] for layer in sorted(found.layers)])


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pooling", ["mean", "last", "max"])
def test_text_equals_one_text_at_a_time(kind, pooling):
    model, texts = network(kind), [" ".join(story(n, n)) for n in (1, 7, 30, 2, 7, 12)]
    stimulus = Stimulus("s", (run("a", texts[:3]), run("b", texts[3:])))
    found = []
    # By side of padding, and one text a batch, a mixture of lengths in one, and all texts in one.
    for side, budget in (("left", 1), ("right", 100), ("left", 5000)):
        tokenizer = byte_level(bos=True)
        tokenizer.pad_token, tokenizer.padding_side = "</s>", side
        spec = Spec(context="text", pooling=pooling)
        found.append(in_batches(budget, model, tokenizer, stimulus, spec))
    assert list(found[0].layers) == [0, 1, 2, 3]
    assert found[0].runs.tolist() == ["a"] * 3 + ["b"] * 3
    for i, text in enumerate(texts):
        ids = tokenizer(text)["input_ids"]
        assert (ids[0], ids[-1]) == (0, 1)
        # BOS is read but not pooled; what the tokenizer puts behind the text is not read.
        expected = pooled(hidden_states(model, ids[:-1])[:, 1:], pooling)
        for one in found:
            for layer, values in one.layers.items():
                assert_close(values[i], expected[layer])


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_sliding_window_equals_word_by_word(name, pooling):
    model, tokenizer = network("olmo2"), TOKENIZERS[name]()
    spec = Spec(context="words", pooling=pooling, window=5, stride=3)
    runs = (run("a", story(31), starts=(0, 9, 10, 14)), run("b", story(8, 1), starts=()))
    taken = in_batches(100, model, tokenizer, Stimulus("s", runs), spec)
    found, row = stacked(taken), 0
    assert taken.notes["opening"] == tokenizer.convert_ids_to_tokens(OPENING[name])
    assert taken.notes["empty"] == (~taken.there).sum() == (5 if name == "words" else 0)
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
                ids = [*OPENING[name], *chain(*pieces[start : i + 1])]
                # Never the token at position 0.
                own = hidden_states(model, ids)[:, max(1, len(ids) - len(pieces[i])) :]
                if taken.there[row]:
                    assert_close(found[:, row], pooled(own, pooling))
                else:
                    assert (own.shape[1], found[:, row].any()) == (0, False)
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
        plain = stacked(in_batches(1, model, tokenizer, stimulus, spec))
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
    with pytest.raises(
        PhaselabError, match=r"somewhere/step8-tokens9: layers .2.*: found hidden states that are not finite"
    ):
        extract(model, tokenizer, Stimulus("s", (run("a", WORDS[:6]),)), Spec(window=2, stride=1))
    # A failure leaves no hook behind.
    assert not any(block._forward_pre_hooks for block in model.model.layers)


def timed(name: str, texts: list[str], onsets: list[float], starts: tuple[int, ...] = (0,)) -> Run:
    at = np.array(onsets, dtype=float)
    begins = np.isin(np.arange(len(texts)), starts)
    return Run(name, tuple(texts), at, at + 1, 1.0, int(at[-1]) + 1, pd.DataFrame({"word": texts}), begins)


@pytest.mark.parametrize("pooling", ["mean", "last", "max"])
def test_seconds_read_the_texts_of_the_last_seconds_of_their_narrative(pooling):
    model, tokenizer = network("olmo2"), byte_level(bos=True)
    texts = [" ".join(story(4, n)) for n in range(9)]
    texts[3] = ""
    # Two annotators at second 2; a narrative begins at the seventh text; and another run.
    onsets = [0, 1, 2, 2, 3, 4, 5, 6, 7.5]
    texts[2:4] = [texts[2], texts[8]]
    stimulus = Stimulus("s", (timed("a", texts, onsets, starts=(0, 7)), timed("b", texts[:2], [0, 1], ())))
    spec = Spec(context="seconds", seconds=3, pooling=pooling)
    found = stacked(extract(model, tokenizer, stimulus, spec))
    contexts = [[], [0], [0, 1], [0, 1], [1, 2, 3], [2, 3, 4], [4, 5], [], [7], [], [0]]
    for i, context in enumerate(contexts):
        own = (texts + texts[:2])[i]
        before = "".join(texts[j] + " " for j in context)
        ids = tokenizer(before + own, add_special_tokens=False)["input_ids"]
        n = len(ids) - len(tokenizer(before.rstrip(), add_special_tokens=False)["input_ids"]) * bool(before)
        expected = hidden_states(model, [0, *ids])[:, -n:]
        assert_close(found[:, i], pooled(expected, pooling))


def test_seconds_of_one_are_the_text_alone_and_long_ones_are_cut_on_the_left():
    model, tokenizer = network("gpt_neox", context=10), word_level()
    texts = [" ".join(story(4, n)) for n in range(5)]
    stimulus = Stimulus("s", (timed("a", texts, [0, 1, 2, 3, 4]),))
    alone = extract(model, tokenizer, stimulus, Spec(context="text"))
    one = extract(model, tokenizer, stimulus, Spec(context="seconds", seconds=1))
    assert_close(stacked(one), stacked(alone))
    said = []
    four = extract(model, tokenizer, stimulus, Spec(context="seconds", seconds=4), say=said.append)
    assert four.notes["truncated"] == 3
    ids = tokenizer(" ".join(texts[1:]))["input_ids"][-10:]
    assert_close(stacked(four)[:, 4], hidden_states(model, ids)[:, -1])
    assert "less context than asked for in 3 of 5 texts: the model reads 10 tokens at once" in said[0]


@pytest.mark.parametrize("context", ["text", "seconds", "words"])
def test_an_empty_text_carries_the_one_before_it_but_not_over_a_border(context):
    model, tokenizer = network("llama"), byte_level()
    a = timed("a", ["", "who was", " ", "", "cried Ana", "", "in it", ""], [*range(8)], starts=(0, 5))
    b = timed("b", ["", "again"], [0, 1])
    stimulus = Stimulus("s", (a, b))
    zero = extract(model, tokenizer, stimulus, Spec(context=context, seconds=2))
    carry = extract(model, tokenizer, stimulus, Spec(context=context, seconds=2, empty="carry"))
    assert zero.notes == carry.notes
    assert zero.notes["empty"] == 6
    for layer, values in zero.layers.items():
        assert not values[[0, 2, 3, 5, 7, 8]].any()
        assert np.array_equal(carry.layers[layer], values[[0, 1, 1, 1, 4, 5, 6, 6, 8, 9]])


def test_weights_of_half_precision_are_pooled_in_float32():
    tokenizer = byte_level()
    texts = [" ".join(story(40, n)) for n in range(3)]
    stimulus, spec = Stimulus("s", (run("a", texts),)), Spec(context="text", pooling="mean")
    half = extract(network("llama").to(torch.bfloat16), tokenizer, stimulus, spec)
    full = stacked(extract(network("llama"), tokenizer, stimulus, spec))
    assert half.layers[0].dtype == np.float32
    # The embeddings are rounded once and then averaged; a mean in half precision would be rounded again.
    ids = [tokenizer(text)["input_ids"] for text in texts]
    rounded = network("llama").get_input_embeddings().weight.detach().to(torch.bfloat16).float().numpy()
    assert_close(half.layers[0], np.stack([rounded[one].mean(axis=0) for one in ids]))
    assert np.abs(stacked(half) - full).max() < 0.05 * np.abs(full).max()


def test_layers_can_be_chosen():
    model, tokenizer = network("olmo3"), byte_level()
    stimulus = Stimulus("s", (run("a", story(12)),))
    every = extract(model, tokenizer, stimulus, Spec())
    some = extract(model, tokenizer, stimulus, Spec(layers=(-1, 1)))
    assert list(some.layers) == [1, 3]
    for layer in some.layers:
        assert np.array_equal(some.layers[layer], every.layers[layer])
    with pytest.raises(KeyError):
        some.layers[2]
    only = extract(model, tokenizer, stimulus, Spec(layers=(0,)))
    assert np.array_equal(only.layers[0], every.layers[0])
    with pytest.raises(PhaselabError, match=r"features.layers: found 4, expected 0 to 3 \(or -1"):
        extract(model, tokenizer, stimulus, Spec(layers=(0, 4)))


def limited(model, most: int, error: type[Exception], text: str):
    """The model runs out of memory on more than `most` tokens; returns the sizes that were tried."""
    tried = []

    def refuse(_, args, kwargs):
        tried.append(kwargs["input_ids"].numel())
        if tried[-1] > most:
            raise error(text)

    model.base_model.register_forward_pre_hook(refuse, with_kwargs=True)
    return tried


CPU_ALLOCATOR = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (torch.OutOfMemoryError, "CUDA out of memory."),
        (RuntimeError, CPU_ALLOCATOR),
        (RuntimeError, "not enough memory: you tried to allocate"),
        (MemoryError, ""),
    ],
)
def test_out_of_memory_halves_the_batches_and_says_so(error, text):
    tokenizer = word_level()
    texts = [" ".join(story(n, i)) for i, n in enumerate([20] * 12 + [3] * 12)]
    stimulus = Stimulus("s", (run("a", texts),))
    whole = in_batches(200, network("gpt_neox"), tokenizer, stimulus, Spec(context="text"))
    model, said = network("gpt_neox"), []
    tried = limited(model, 50, error, text)
    found = in_batches(200, model, tokenizer, stimulus, Spec(context="text"), say=said.append)
    assert_close(stacked(found), stacked(whole))
    assert found.notes["batch_tokens"] <= 50
    # Halved until it fits, and not tried again with more.
    assert tried == [200, 100, 40, 40, 40, 40, 40, 40, 36]
    assert len(said) == 3
    assert "no token begins a pass" in said.pop()
    assert "memory ran out on cpu; now at most" in said[0]

    model = network("gpt_neox")
    limited(model, 15, error, text)
    with pytest.raises(PhaselabError, match="no memory on cpu for 20 tokens"):
        in_batches(200, model, tokenizer, stimulus, Spec(context="text"))


def test_another_error_of_the_network_is_not_taken_for_missing_memory():
    model = network("gpt_neox")
    limited(model, 0, RuntimeError, "shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        extract(model, word_level(), Stimulus("s", (run("a", WORDS),)), Spec())


def test_a_slow_tokenizer_serves_where_no_offsets_are_needed():
    model, tokenizer = network("llama"), ByT5Tokenizer()
    texts = ["naïvely", "", "a boat came"]
    stimulus = Stimulus("s", (run("a", texts),))
    found = extract(model, tokenizer, stimulus, Spec(context="text", pooling="mean"))
    for i in (0, 2):
        ids = tokenizer(texts[i], add_special_tokens=False)["input_ids"]
        # It puts </s> behind a text and nothing before it.
        assert_close(stacked(found)[:, i], hidden_states(model, [1, *ids])[:, 1:].mean(axis=1))
    with pytest.raises(PhaselabError, match=r"ByT5Tokenizer: found no character offsets .*context: text"):
        extract(model, tokenizer, stimulus, Spec(context="seconds"))


def test_large_results_lie_in_a_file_and_are_the_same(tmp_path, monkeypatch):
    model, tokenizer = network("olmo"), byte_level()
    stimulus = Stimulus("s", (run("a", [*story(9), ""]), run("b", story(5, 1))))
    memory = in_batches(20, model, tokenizer, stimulus, Spec(context="text"), scratch=tmp_path)
    monkeypatch.setattr(features, "IN_MEMORY", 100)
    file = in_batches(20, model, tokenizer, stimulus, Spec(context="text"), scratch=tmp_path / "new")
    for layer in (2, 0, 3, 1, 2):
        assert np.array_equal(memory.layers[layer], file.layers[layer])
    assert list(tmp_path.rglob("*.*")) == []  # it has no name
    monkeypatch.setattr(features.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(PhaselabError, match=r"0\.0 GB free, expected .* hidden states of 4 layers"):
        extract(model, tokenizer, stimulus, Spec(context="text"), scratch=tmp_path)


def test_features_are_written_and_read_again(tmp_path):
    model, tokenizer = network("smollm3"), byte_level()
    stimulus = Stimulus("s", (run("a", story(8)), run("b", story(5, 1))))
    spec = Spec(layers=(1, 3), trim=1)
    found = extract(model, tokenizer, stimulus, spec)
    write_features(found, stimulus, tmp_path / "features.zarr", checkpoint="step8")
    group = zarr.open_group(tmp_path / "features.zarr", mode="r")
    assert (group["states"].shape, group["states"].chunks) == ((2, 13, 32), (1, 13, 32))
    assert group.attrs["checkpoint"] == "step8"
    assert np.array_equal(group["onsets"], np.concatenate([r.onsets for r in stimulus.runs]))
    again = read_features(tmp_path / "features.zarr")
    assert again.notes == found.notes
    assert np.array_equal(again.there, found.there)
    assert group["states"].attrs["phaselab"]["layers"] == [1, 3]
    for layer, of_run in to_trs(again, stimulus, spec).items():
        for name, values in of_run.items():
            assert np.array_equal(values, to_trs(found, stimulus, spec)[layer][name])


def test_the_encoder_holds_one_layer_at_a_time():
    rng, made = np.random.default_rng(0), []

    def make(layer):
        assert sum(of_run() is not None for of_run in made) <= 2, "a layer and the one before it"
        values = {name: np.full((40, 3), layer) + rng.standard_normal((40, 3)) for name in ("a", "b")}
        made.extend(weakref.ref(of_run) for of_run in values.values())
        return values

    responses = {"s": {name: rng.standard_normal((40, 2)) for name in ("a", "b")}}
    scores = encode(Lazy(range(4), make), responses, EncodingSpec(permutations=0))
    assert scores["s"].layers == (0, 1, 2, 3)
    # Each layer once, and the first one for its runs as well.
    assert len(made) == 2 * (4 + 1)


@pytest.mark.parametrize("context", ["text", "seconds", "words"])
@pytest.mark.parametrize("empty", ["zero", "carry"])
def test_another_text_in_one_run_changes_nothing_in_the_others(context, empty):
    model, tokenizer = network("llama"), byte_level()
    middle, words = story(9, 1), [*story(6), "", ""]
    others = ["Ana", *["naïvely"] * 7, ""]
    for resample in ("mean", "sum", "lanczos"):
        for hemodynamics in ("hrf", "average", "stack"):
            spec = Spec(
                context=context,
                empty=empty,
                resample=resample,
                hemodynamics=hemodynamics,
                trim=0,
                layers=(0, -1),
                seconds=1,
                window=3,
                stride=2,
            )
            grids = []
            for texts in (middle, others):
                runs = (run("a", words, n_trs=5), run("b", texts, n_trs=5), run("c", ["", *words], n_trs=5))
                stimulus = Stimulus("s", runs)
                grids.append(to_trs(extract(model, tokenizer, stimulus, spec), stimulus, spec))
            for layer in (0, 3):
                for name in ("a", "c"):
                    assert_close(grids[0][layer][name], grids[1][layer][name])
                assert np.abs(grids[0][layer]["b"] - grids[1][layer]["b"]).max() > 1e-3


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
    with pytest.raises(PhaselabError, match="run a: trim: found 12, expected fewer than its 12 TRs"):
        to_trs(found, stimulus, spec.model_copy(update={"trim": 12}))
    with pytest.raises(PhaselabError, match="features: found other texts by run, expected those of stimulus s"):
        to_trs(replace(found, runs=found.runs[1:]), stimulus, spec)
