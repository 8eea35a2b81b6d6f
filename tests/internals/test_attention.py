"""Induction of a network built by hand to induce, and of ones that have learnt nothing; n-grams."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from phaselab.errors import PhaselabError
from phaselab.internals import ngrams
from phaselab.internals.attention import head_scores
from phaselab.study import Training
from phaselab.texts import source
from phaselab.training.loop import build

VOCABULARY, POSITIONS = 60, 96


def _tokenizer() -> PreTrainedTokenizerFast:
    ids = {"<bos>": 0, "<eos>": 1, **{f"w{i}": i for i in range(2, VOCABULARY)}}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<eos>"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>")


def _inducing() -> Any:
    """Two layers: the first copies the token before, the second looks for where it was before.

    The residual stream has three parts: token, token before, position.
    """
    v, p = VOCABULARY, POSITIONS
    width = 2 * v + p
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=v, n_positions=p, n_embd=width, n_layer=2, n_head=1, n_inner=4)
    ).eval()
    token, before, position = slice(0, v), slice(v, 2 * v), slice(2 * v, width)
    sharp = 30.0
    with torch.no_grad():
        for parameter in model.transformer.h.parameters():
            parameter.zero_()
        for block in model.transformer.h:
            block.ln_1.weight.fill_(1.0)
            block.ln_2.weight.fill_(1.0)
        model.transformer.wte.weight.zero_()[:, token] = torch.eye(v)
        model.transformer.wpe.weight.zero_()[:, position] = torch.eye(p)
        first, second = (block.attn for block in model.transformer.h)
        query, key, value = (slice(i * width, (i + 1) * width) for i in range(3))
        # The position before: a key is known by the position after it.
        first.c_attn.weight[position, query][:, position] = sharp * torch.eye(p)
        first.c_attn.weight[position, key][:, position] = torch.diag(torch.ones(p - 1), 1)
        first.c_attn.weight[token, value][:, before] = torch.eye(v)
        first.c_proj.weight.copy_(torch.eye(width))
        # The token itself asks for places whose token before it was.
        second.c_attn.weight[token, query][:, token] = sharp * torch.eye(v)
        second.c_attn.weight[before, key][:, token] = torch.eye(v)
    return model


def _value(frame: pd.DataFrame, measure: str, layer: int, task: str = "head 0") -> float:
    return float(frame.query("measure == @measure and layer == @layer and task == @task")["value"].iloc[0])


def test_a_network_built_to_induce_scores_near_one() -> None:
    frame = head_scores(_inducing(), _tokenizer(), 8)
    assert _value(frame, "previous_token", 1) > 0.95
    assert _value(frame, "induction", 2) > 0.95
    assert _value(frame, "induction", 1) < 0.05
    assert _value(frame, "previous_token", 2) < 0.2
    assert _value(frame, "induction_best", 2, "") == _value(frame, "induction", 2)


@pytest.mark.parametrize("architecture", ["gpt_neox", "olmo2", "llama"])
def test_an_untrained_network_scores_near_zero(architecture: str) -> None:
    training = Training(text="world", architecture=architecture, hidden_size=32, layers=2, intermediate_size=64)
    model = build(training, VOCABULARY, 1, 0, 1).eval()
    frame = head_scores(model, _tokenizer(), 4)
    assert len(frame) == 2 * 2 * (4 + 1)
    scores = frame[frame["measure"].isin(["induction", "previous_token"])]
    assert (scores["value"] < 0.12).all()
    assert (scores["stderr"] >= 0).all()
    assert model.config._attn_implementation == "sdpa"  # as it was
    pd.testing.assert_frame_equal(frame, head_scores(model, _tokenizer(), 4))
    assert set(head_scores(model, _tokenizer(), 1)["stderr"].isna()) == {True}


def test_a_context_without_room_is_told() -> None:
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=8, n_embd=8, n_layer=1, n_head=1)
    with pytest.raises(PhaselabError, match="context of 8 tokens"):
        head_scores(AutoModelForCausalLM.from_config(config), _tokenizer(), 2)


# --- n-grams ------------------------------------------------------------------------------------------


class _Text:
    """Rows in which each token, but for noise, depends on the `order` - 1 before it."""

    def __init__(self, order: int, size: int = 7) -> None:
        self.order, self.size = order, size
        self.next = np.random.default_rng(0).permutation(size**2)

    def _rows(self, rng: np.random.Generator, batch: int, context: int) -> np.ndarray:
        rows = rng.integers(0, self.size, (batch, context))
        for t in range(2, context):
            told = {1: 0 * rows[:, t], 2: rows[:, t - 1], 3: rows[:, t - 2] * self.size + rows[:, t - 1]}
            said = self.next[told[self.order]] % self.size
            rows[:, t] = np.where(rng.random(batch) < 0.8, said, rows[:, t])
        return rows

    def batch(self, step: int, batch: int, context: int) -> np.ndarray:
        return self._rows(np.random.default_rng([1, step]), batch, context)

    def held_out(self, batch: int, context: int) -> np.ndarray:
        return self._rows(np.random.default_rng(2), batch, context)


TRAINING = Training(text="world", architecture="gpt_neox", context=32, batch=16)


def test_probabilities_are_counted_ones_and_sum_to_one() -> None:
    text: Any = _Text(2)
    counts = ngrams.count(text, TRAINING, 4, 7)
    rows = np.concatenate([text.batch(s, 16, 32) for s in range(4)])
    assert counts.of(np.array([[3, 5]]), 2)[0, 0] == ((rows[:, :-1] == 3) & (rows[:, 1:] == 5)).sum()
    assert counts.of(np.array([[6]]), 1)[0, 0] == (rows == 6).sum()
    every = np.array([[3, 5, w] for w in range(7)])
    np.testing.assert_allclose(np.exp(ngrams.log_probabilities(counts, every)).sum(1), 1, rtol=0.06)
    first = np.exp(ngrams.log_probabilities(counts, every)[0, :, 0])
    np.testing.assert_allclose(first, (np.bincount(rows.ravel(), minlength=7) + 4 / 7) / (rows.size + 4))
    unseen = ngrams.Counts(7, (pd.Series([1]),) * 4)
    assert np.isfinite(ngrams.log_probabilities(unseen, every)).all()


class _Speaks(torch.nn.Module):
    """A model that gives the probabilities of one order of n-gram."""

    device = "cpu"

    def __init__(self, counts: ngrams.Counts, order: int) -> None:
        super().__init__()
        self.counts, self.order = counts, order

    def forward(self, input_ids: torch.Tensor) -> Any:
        ids = input_ids.numpy()
        logits = np.zeros((*ids.shape, 7))
        for w in range(7):
            said = np.concatenate([ids[:, 1:], np.zeros((len(ids), 1), dtype=np.int64)], axis=1)
            for t in range(1, ids.shape[1]):
                three = np.stack([ids[:, t - 1], ids[:, t], np.full(len(said), w)], axis=1)
                logits[:, t, w] = ngrams.log_probabilities(self.counts, three)[self.order - 1, :, 0]
        return type("Output", (), {"logits": torch.from_numpy(logits).float()})()


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_model_of_one_order_correlates_with_that_order(order: int) -> None:
    text: Any = _Text(3)
    counts = ngrams.count(text, TRAINING, 8, 7)
    frame = ngrams.measure(_Speaks(counts, order), text, TRAINING, counts).set_index("measure")
    value = {n: frame["value"][f"ngram_{n}"] for n in (1, 2, 3)}
    assert value[order] > 0.99
    assert all(value[n] < 0.95 for n in value if n != order)
    assert 0 < frame["value"]["loss"] < np.log(7) + 0.3


def test_an_untrained_network_is_at_the_loss_of_guessing() -> None:
    training = Training(text="world", architecture="gpt_neox", hidden_size=32, layers=1, heads=2, intermediate_size=64)
    text = source(training, None)
    tokenizer = text.tokenizer
    model = build(training, len(tokenizer), 0, 1, 2).eval()
    counts = ngrams.count(text, training, 2, len(tokenizer))
    frame = ngrams.measure(model, text, training, counts).set_index("measure")
    assert frame["value"]["loss"] == pytest.approx(np.log(len(tokenizer)), rel=0.15)
    assert frame.loc[["ngram_1", "ngram_2", "ngram_3"], "value"].abs().max() < 0.25
    assert (frame["layer"] == -1).all()
