"""Hidden states: attention sinks, networks that see the future, and what odd networks and tokenizers do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers as T
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from phaselab import features
from phaselab.checkpoints import Checkpoint, load
from phaselab.checkpoints.load import FORESIGHT, foresight
from phaselab.encoding import similarity
from phaselab.errors import PhaselabError
from phaselab.features import Features, blocks_of, extract, to_trs
from phaselab.internals import geometry
from phaselab.internals.attention import head_scores
from phaselab.stimuli import Run, Stimulus, carried
from phaselab.study import FeatureSpec as Spec

WORDS = [f"w{i}" for i in range(80)]
SHAPE = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
SHAPE |= {"intermediate_size": 64, "max_position_embeddings": 256}


def tokenizer(own: bool = False, **special: str) -> Any:
    """A token a word; with `own` BOS is put before each text by the tokenizer itself."""
    ids = {word: i for i, word in enumerate(["<unk>", *special.values(), *WORDS])}
    inner = Tokenizer(models.WordLevel(ids, "<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if own:
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", ids["<s>"])])
    return T.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", **special)


TOKENIZERS = {
    "puts BOS itself": lambda: tokenizer(own=True, bos_token="<s>"),
    "has BOS and EOS": lambda: tokenizer(bos_token="<s>", eos_token="</s>"),
    "has EOS": lambda: tokenizer(eos_token="</s>"),
    "has neither": tokenizer,
}


def network(config: Any, seed: int = 1) -> Any:
    torch.manual_seed(seed)
    auto: Any = T.AutoModelForCausalLM
    return auto.from_config(config).eval()


def llama(**other: Any) -> Any:
    return network(T.LlamaConfig(**SHAPE, **other, initializer_range=0.2, pad_token_id=None))


def with_sink(model: Any, layer: int = 2) -> Any:
    """The token at position 0 has 100 times its norm in one layer."""

    def grow(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = args[0].clone()
        hidden[:, 0] *= 100
        return hidden, *args[1:]

    blocks_of(model)[layer].register_forward_pre_hook(grow)
    return model


def stimulus(texts: list[str], starts: tuple[int, ...] = (0,)) -> Stimulus:
    onsets = np.arange(len(texts)) * 0.5
    begins, labels = np.isin(np.arange(len(texts)), starts), pd.DataFrame({"word": texts})
    return Stimulus("s", (Run("a", tuple(texts), onsets, onsets + 0.4, 2.0, len(texts) // 4, labels, begins),))


def story(n: int, seed: int = 0) -> list[str]:
    return [str(word) for word in np.random.default_rng(seed).choice(WORDS, n)]


HEARD = {
    "words": stimulus(story(400), starts=(0, 90, 91, 200)),
    "text": stimulus([" ".join(story(2 + n % 5, n)) for n in range(400)]),
    "seconds": stimulus([" ".join(story(2 + n % 3, n)) for n in range(400)], starts=(0, 90)),
}


def read(model: Any, name: str, context: str, **other: Any) -> Features:
    spec = Spec(context=context, pooling="mean", window=12, stride=6, seconds=2, **other)
    return extract(model, TOKENIZERS[name](), HEARD[context], spec)


@pytest.mark.parametrize("context", HEARD)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_planted_sink_moves_neither_states_nor_measures(name: str, context: str) -> None:
    plain, sunk = (read(model, name, context).layers[2] for model in (llama(), with_sink(llama())))
    np.testing.assert_array_equal(sunk, plain)
    there = read(llama(), name, context).there
    # The first words of four narratives, where no other token can begin the pass.
    assert (~there).sum() == (4 if (name, context) == ("has neither", "words") else 0)
    rng = np.random.default_rng(0)
    rois, Y = {"s": np.array(["r"] * 5)}, {"s": {"a": rng.standard_normal((100, 5))}}
    found = [read(model, name, context) for model in (llama(), with_sink(llama()))]
    measures = [geometry(one.layers[2][one.there].astype(float)) for one in found]
    assert measures[0] == measures[1]
    grids = [{2: to_trs(one, HEARD[context], Spec(trim=0))[2]} for one in found]
    tables = [similarity.summarise(grid, Y, rois, ("rsa", "cka")) for grid in grids]
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.parametrize("context", HEARD)
def test_a_sink_that_is_kept_is_said_and_is_what_the_measures_then_see(context: str) -> None:
    said: list[str] = []
    model, names = with_sink(llama()), TOKENIZERS["has BOS and EOS"]()
    spec = Spec(context=context, pooling="mean", window=12, stride=6, seconds=2, first_token="keep")
    kept = extract(model, names, HEARD[context], spec, say=said.append)
    assert (
        "no token begins a pass but the text's own first one, which is pooled, and may be an attention sink" in said[0]
    )
    assert kept.notes["opening"] == []
    dropped = read(model, "has BOS and EOS", context)
    assert dropped.notes["opening"] == ["<s>"]
    with_it, without = (geometry(one.layers[2].astype(float)) for one in (kept, dropped))
    if context == "words":  # at the beginning of four narratives
        assert with_it["massive_ratio"][0] > 10 * without["massive_ratio"][0]
        assert with_it["participation_ratio"][0] < 4 < 10 < without["participation_ratio"][0]
    elif context == "text":  # in each text
        assert with_it["norm"][0] > 10 * without["norm"][0]
    # What the tokenizer itself puts first is never pooled.
    own = extract(model, TOKENIZERS["puts BOS itself"](), HEARD[context], spec)
    np.testing.assert_array_equal(own.layers[2], read(model, "puts BOS itself", context).layers[2])


def test_without_any_first_token_what_is_lost_is_said_and_can_be_carried() -> None:
    said: list[str] = []
    words = stimulus(story(20), starts=(0, 5))
    found = extract(llama(), tokenizer(), words, Spec(empty="carry"), say=said.append)
    assert "first one, which is not pooled: 2 of 20 texts without a state (features.empty: carry)" in said[0]
    assert found.notes["empty"] == 2
    assert np.flatnonzero(~found.there).tolist() == [0, 5]


# ------------------------------------------------------------------------------------------------- causality

CAUSAL = {
    "bert": T.BertConfig(**SHAPE, is_decoder=True),
    "megatron-bert": T.MegatronBertConfig(**SHAPE, is_decoder=True),
    "gpt2": T.GPT2Config(vocab_size=100, n_embd=32, n_layer=3, n_head=2),
    "gpt_neo": T.GPTNeoConfig(
        vocab_size=100,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global", "local"], 1]],
        window_size=4,
    ),
    "gpt_neox": T.GPTNeoXConfig(**SHAPE),
    "gptj": T.GPTJConfig(vocab_size=100, n_embd=32, n_layer=3, n_head=2, rotary_dim=8),
    "opt": T.OPTConfig(**SHAPE, ffn_dim=64, word_embed_proj_dim=32),
    "bloom": T.BloomConfig(vocab_size=100, hidden_size=32, n_layer=3, n_head=2),
    "mpt": T.MptConfig(vocab_size=100, d_model=32, n_layers=3, n_heads=2, max_seq_len=64),
    "falcon": T.FalconConfig(**SHAPE),
    "phi": T.PhiConfig(**SHAPE),
    "qwen2": T.Qwen2Config(**SHAPE, num_key_value_heads=1),
    "gemma2": T.Gemma2Config(**SHAPE, num_key_value_heads=1, head_dim=16, sliding_window=4),
    "mistral": T.MistralConfig(**SHAPE, num_key_value_heads=1, sliding_window=4),
    "mixtral": T.MixtralConfig(**SHAPE, num_key_value_heads=1, num_local_experts=4),
    "xglm": T.XGLMConfig(vocab_size=100, d_model=32, ffn_dim=64, num_layers=3, attention_heads=2),
    "biogpt": T.BioGptConfig(**SHAPE),
    "ctrl": T.CTRLConfig(vocab_size=100, n_embd=32, dff=64, n_layer=3, n_head=2),
    "rwkv": T.RwkvConfig(vocab_size=100, hidden_size=32, num_hidden_layers=3, context_length=64),
    "mamba": T.MambaConfig(vocab_size=100, hidden_size=32, num_hidden_layers=3, state_size=8),
    "mamba2": T.Mamba2Config(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=3,
        state_size=8,
        num_heads=8,
        head_dim=8,
        n_groups=1,
        chunk_size=4,
    ),
}
SEEING = {
    "bert": T.BertConfig(**SHAPE),
    "roberta": T.RobertaConfig(**SHAPE),
    "xlm-roberta": T.XLMRobertaConfig(**SHAPE),
    "electra": T.ElectraConfig(**SHAPE),
    "camembert": T.CamembertConfig(**SHAPE),
    "xlm": T.XLMConfig(vocab_size=100, emb_dim=32, n_layers=2, n_heads=2),
    "xlnet": T.XLNetConfig(vocab_size=100, d_model=32, n_layer=2, n_head=2, d_inner=64),
}


@pytest.mark.parametrize("kind", CAUSAL)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_causal_network_sees_nothing_of_what_is_to_come(kind: str, dtype: str) -> None:
    assert foresight(network(CAUSAL[kind]).to(getattr(torch, dtype))) <= FORESIGHT


@pytest.mark.parametrize("kind", SEEING)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_network_that_sees_the_future_is_refused_in_a_sentence(kind: str, dtype: str, tmp_path: Path) -> None:
    folder = tmp_path / "step1-tokens1"
    network(SEEING[kind]).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    said = "found a network that is not causal: .*expected a causal"
    if (kind, dtype) == ("xlnet", "bfloat16"):
        said = "cannot be loaded as a causal language model: expected scalar type"  # transformers cannot run it
    with pytest.raises(PhaselabError, match=f"step1-tokens1: {said}") as e:
        load(Checkpoint(folder.name, 1, 1, folder), dtype=dtype)
    assert "\n" not in str(e.value)


def test_broken_weights_are_not_taken_for_foresight() -> None:
    model = llama()
    torch.nn.init.constant_(model.model.embed_tokens.weight, torch.nan)
    assert not foresight(model) > FORESIGHT


@pytest.mark.parametrize("kind", CAUSAL)
def test_padding_and_company_move_no_state_of_any_architecture(kind: str) -> None:
    model, names = network(CAUSAL[kind]), tokenizer(bos_token="<s>", eos_token="</s>")
    texts = [" ".join(story(n, n)) for n in (3, 11, 1, 6, 20, 5, 5)]
    spec = Spec(context="text", pooling="mean")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "MAX_TOKENS", {"cpu": 1})
        alone = extract(model, names, stimulus(texts), spec)
    together = extract(model, names, stimulus([*texts, *(" ".join(story(9, n)) for n in range(40, 60))]), spec)
    ids = torch.tensor([[1, *names(texts[1])["input_ids"]]])
    with torch.inference_mode():
        states = model(ids, output_hidden_states=True).hidden_states
    for layer, values in alone.layers.items():
        size = np.abs(values).max()
        np.testing.assert_allclose(together.layers[layer][: len(texts)], values, atol=1e-5 * size, rtol=0)
        if kind not in (
            "rwkv",
            "mamba",
            "mamba2",
        ):  # whose lists leave the embeddings out; and as transformers gives it
            np.testing.assert_allclose(values[1], states[layer][0, 1:].mean(0), atol=1e-5 * size, rtol=0)


# ------------------------------------------------------------------------------------- networks and tokenizers


def test_a_last_layer_of_another_width_is_a_sentence_and_the_others_are_read() -> None:
    model = network(T.OPTConfig(**SHAPE, ffn_dim=64, word_embed_proj_dim=16))
    model.name_or_path = "opt-350m"
    words = stimulus(story(20))
    said = "opt-350m: features.layers: found a last layer of 16 numbers, where others have 32, expected some of 0 to 2"
    with pytest.raises(PhaselabError, match=said):
        extract(model, tokenizer(eos_token="</s>"), words, Spec())
    assert list(extract(model, tokenizer(eos_token="</s>"), words, Spec(layers=(0, 1, 2))).layers) == [0, 1, 2]


@pytest.mark.parametrize("special", [{}, {"bos_token": "<s>"}])
def test_a_vocabulary_larger_than_the_embedding_is_told_when_a_text_needs_it(special: dict[str, str]) -> None:
    model, names, known = llama(), tokenizer(**special), tokenizer(**special).convert_tokens_to_ids("w70")
    model.resize_token_embeddings(known)
    model.name_or_path = "small"
    extract(model, names, stimulus(["w1 w2", "w69", "w3", "w4"]), Spec(context="text"))
    with pytest.raises(PhaselabError, match=f"small: tokenizer: found token {known + 5} .'w75'.*below {known}"):
        extract(model, names, stimulus(["w1 w2", "w70", "w3 w75", "w4"]), Spec(context="text"))


@pytest.mark.parametrize("kind", ["rwkv", "mamba", "mamba2"])
def test_heads_of_a_network_without_attention_are_a_sentence(kind: str) -> None:
    with pytest.raises(PhaselabError, match="found no attention weights, expected .*internals.attention: 0"):
        head_scores(network(CAUSAL[kind]), tokenizer(), 2)


def test_heads_are_asked_for_no_token_that_the_network_does_not_know() -> None:
    model = llama()
    model.resize_token_embeddings(20)
    assert len(head_scores(model, tokenizer(eos_token="</s>"), 2))


def test_the_context_of_mpt_is_known() -> None:
    model = network(CAUSAL["mpt"])
    found = extract(
        model, tokenizer(bos_token="<s>"), stimulus([" ".join(story(100)), "w1", "w2", "w3"]), Spec(context="text")
    )
    assert found.notes["truncated"] == 1


# -------------------------------------------------------------------------------------------------------- trim


def test_trim_knows_how_long_the_first_tr_is_carried() -> None:
    assert carried(2.0, Spec(hemodynamics="stack", delays=(2, 4))) == 5
    assert carried(2.0, Spec(hemodynamics="none", trim=0)) == 0
    long = carried(2.0, Spec())
    assert 10 <= long <= 13
    assert carried(1.0, Spec()) == pytest.approx(2 * long, abs=2)
    words, said = stimulus(story(200)), list[str]()
    found = extract(llama(), tokenizer(bos_token="<s>"), words, Spec(layers=(1,)))
    to_trs(found, words, Spec(layers=(1,), trim=long), said.append)
    assert said == []
    to_trs(found, words, Spec(layers=(1,), trim=5), said.append)
    assert said == [
        f"note: a run's first TRs feel what came before it, for {long} TRs of 2 s by hemodynamics: hrf; "
        "features.trim drops 5 of them"
    ]
