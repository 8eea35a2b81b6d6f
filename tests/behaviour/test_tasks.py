"""Scores through the harness against a plain loop, item by item, and against models whose answer is known."""

from __future__ import annotations

import dataclasses
import socket
import tempfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    PreTrainedTokenizerFast,
)

from phaselab.behaviour import MEASURES, score_tasks
from phaselab.errors import PhaselabError
from phaselab.texts.base import Item

WORDS = [f"w{i}" for i in range(30)]
VOCABULARY = {
    word: i for i, word in enumerate(["<pad>", "<bos>", "<eos>", "<unk>", *WORDS, "options", "answer", ":", ","])
}


def _tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )


def _model(family: str, seed: int = 0, context: int = 64) -> Any:
    torch.manual_seed(seed)
    shape = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": context,
        "initializer_range": 0.5,  # so that the options' probabilities differ
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if family == "olmo2":
        return Olmo2ForCausalLM(Olmo2Config(**shape)).eval()
    return GPTNeoXForCausalLM(GPTNeoXConfig(**shape)).eval()


def _says(word: str, lead: float) -> Any:
    """A model that gives `word` the logit `lead` and every other token 0, whatever it is shown."""
    model = _model("gpt_neox")
    with torch.no_grad():
        # A final layer norm of weight 0 leaves its bias: the same vector at every position.
        model.gpt_neox.final_layer_norm.weight.zero_()
        model.gpt_neox.final_layer_norm.bias.zero_()[0] = 1.0
        model.get_output_embeddings().weight.zero_()[VOCABULARY[word], 0] = lead
    return model


def _items(n: int, seed: int, lengths: tuple[int, int] = (3, 20), words: int = 1) -> list[Item]:
    rng = np.random.default_rng(seed)
    items = []
    for i in range(n):
        chosen = rng.permutation(WORDS)[: 4 * words].reshape(4, words)
        # Options of one word, or of one to `words` words in one item.
        options = tuple(" ".join(o[: 1 + j % words]) for j, o in enumerate(chosen))
        story = " ".join(rng.choice(WORDS, rng.integers(*lengths)))
        prompt = f"{story} options : {' , '.join(options)} answer :"
        items.append(Item(f"t-{seed}-{i}", prompt, options, int(rng.integers(4)), "kind", "en"))
    return items


def _row(rows: pd.DataFrame, task: str, measure: str, column: str = "value") -> float:
    found = rows[(rows["task"] == task) & (rows["measure"] == measure)]
    assert len(found) == 1
    return float(found[column].iloc[0])


@torch.no_grad()
def _plainly(model: Any, tokenizer: Any, item: Item) -> tuple[list[float], str]:
    """Log-probability of each option and the greedily said option, one sequence at a time, by hand."""
    prompt = tokenizer(item.prompt)["input_ids"]
    logp = []
    for option in item.options:
        tokens = tokenizer(" " + option)["input_ids"]
        scores = model(torch.tensor([prompt + tokens])).logits[0].double().log_softmax(-1)
        logp.append(sum(float(scores[len(prompt) - 1 + i, token]) for i, token in enumerate(tokens)))
    said = list(prompt)
    for _ in range(max(len(option.split()) for option in item.options)):
        said.append(int(model(torch.tensor([said])).logits[0, -1].argmax()))
    words = tokenizer.convert_ids_to_tokens(said[len(prompt) :])
    begun = [o for o in item.options if words[: len(o.split())] == o.split()]
    return logp, max(begun, key=len, default="")


@pytest.mark.parametrize("family", ["gpt_neox", "olmo2"])
@pytest.mark.parametrize("words", [1, 2])
def test_items_are_scored_as_a_plain_loop_scores_them(family: str, words: int) -> None:
    model, tokenizer = _model(family, seed=words), _tokenizer()
    items = _items(40, seed=words, words=words)
    # Make what the model would say one of the options of every other item.
    for i in range(0, 40, 2):
        ids = tokenizer(items[i].prompt)["input_ids"]
        word = tokenizer.convert_ids_to_tokens(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if word in WORDS and word not in items[i].options:
            items[i] = dataclasses.replace(items[i], options=(word, *items[i].options[1:]))
    rows, per_item = score_tasks(model, tokenizer, {"t": items}, batch_size=7)
    plain = [_plainly(model, tokenizer, item) for item in items]

    assert per_item["item"].tolist() == [item.id for item in items]
    right = [item.answer for item in items]
    logp = np.array([p for p, _ in plain])
    np.testing.assert_allclose(per_item["log_probability"], logp[np.arange(40), right], atol=2e-5)
    chosen = logp.argmax(1)
    assert per_item["chosen"].tolist() == [item.options[c] for item, c in zip(items, chosen, strict=True)]
    assert per_item["greedy"].tolist() == [said for _, said in plain]
    assert (per_item["follows"] == [said != "" for _, said in plain]).all()
    assert 10 < per_item["follows"].sum() < 40  # both outcomes are there
    p = np.exp(logp) / np.exp(logp).sum(1, keepdims=True)
    np.testing.assert_allclose(per_item["brier"], ((p - np.eye(4)[right]) ** 2).sum(1), atol=1e-5)
    np.testing.assert_allclose(per_item["entropy"], -(p * np.log(p)).sum(1), atol=1e-4)

    correct = chosen == right
    assert _row(rows, "t", "accuracy") == pytest.approx(correct.mean())
    assert _row(rows, "t", "accuracy", "stderr") == pytest.approx(correct.std(ddof=1) / np.sqrt(40))
    assert _row(rows, "t", "chance_corrected_accuracy") == pytest.approx((correct.mean() - 0.25) / 0.75)
    greedy = [said == item.options[item.answer] for item, (_, said) in zip(items, plain, strict=True)]
    assert _row(rows, "t", "accuracy_greedy") == pytest.approx(np.mean(greedy))


def test_a_model_that_always_says_one_word_follows_where_that_word_is_an_option() -> None:
    items = _items(60, seed=3)
    lead = 5.0
    rows, per_item = score_tasks(_says("w7", lead), _tokenizer(), {"t": items})
    listed = np.array(["w7" in item.options for item in items])
    right = np.array([item.options[item.answer] == "w7" for item in items])
    assert 0 < right.sum() < listed.sum() < 60
    assert _row(rows, "t", "instruction_following") == pytest.approx(listed.mean())
    assert _row(rows, "t", "accuracy_greedy") == pytest.approx(right.mean())
    total = np.exp(lead) + len(VOCABULARY) - 1
    expected = np.where(right, lead, 0) - np.log(total)
    np.testing.assert_allclose(per_item["log_probability"], expected, atol=1e-5)
    among = np.where(right, lead, 0) - np.log(np.where(listed, np.exp(lead) + 3, 4))
    np.testing.assert_allclose(per_item["log_probability_normalised"], among, atol=1e-5)


def test_a_model_without_preference_is_at_the_known_values() -> None:
    rows, per_item = score_tasks(_says("w7", 0.0), _tokenizer(), {"t": _items(30, seed=4)})
    assert _row(rows, "t", "instruction_following") == 0  # of equal tokens the first is taken, <pad>
    assert _row(rows, "t", "entropy") == pytest.approx(np.log(4), abs=1e-6)
    assert _row(rows, "t", "brier") == pytest.approx(0.75, abs=1e-6)
    assert _row(rows, "t", "log_probability_normalised") == pytest.approx(-np.log(4), abs=1e-6)
    assert _row(rows, "t", "chance") == 0.25
    assert per_item["log_probability"].to_numpy() == pytest.approx(-np.log(len(VOCABULARY)), abs=1e-5)


def test_tasks_are_scored_together_as_they_are_alone_and_again_the_same() -> None:
    model, tokenizer = _model("olmo2"), _tokenizer()
    tasks = {"short": _items(12, seed=5, lengths=(2, 5)), "long": _items(9, seed=6, lengths=(30, 40))}
    rows, per_item = score_tasks(model, tokenizer, tasks)
    assert rows["task"].unique().tolist() == ["short", "long"]
    assert set(rows["measure"]) == {
        *MEASURES,
        "chance",
        "left_out",
        "position_bias",
        *(f"position_share_{i}" for i in range(1, 5)),
    }
    for task, items in tasks.items():
        alone, _ = score_tasks(model, _tokenizer(), {task: items})
        together = rows[rows["task"] == task].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone, together, rtol=1e-5)
    again = score_tasks(model, tokenizer, tasks)
    pd.testing.assert_frame_equal(rows, again[0])
    pd.testing.assert_frame_equal(per_item, again[1])


def test_prompts_longer_than_the_context_are_counted_and_left_out() -> None:
    items = [
        *_items(6, seed=7, lengths=(2, 5)),
        *[dataclasses.replace(i, id="x" + i.id) for i in _items(2, 8, (40, 45))],
    ]
    model = _model("gpt_neox", context=32)
    rows, per_item = score_tasks(model, _tokenizer(), {"t": items})
    assert per_item["scored"].tolist() == [True] * 6 + [False] * 2
    assert _row(rows, "t", "left_out") == pytest.approx(0.25)
    short, _ = score_tasks(model, _tokenizer(), {"t": items[:6]})
    for measure in MEASURES:
        assert _row(rows, "t", measure) == pytest.approx(_row(short, "t", measure), rel=1e-6)
    with pytest.raises(PhaselabError, match="t: no prompt fits the model's context of 32 tokens"):
        score_tasks(model, _tokenizer(), {"t": items[6:]})


def test_a_tokenizer_with_neither_a_first_nor_a_last_token_scores() -> None:
    model, items = _model("gpt_neox"), _items(6, seed=12)
    plain = _tokenizer()
    bare = PreTrainedTokenizerFast(tokenizer_object=plain.backend_tokenizer, pad_token="<pad>", unk_token="<unk>")
    assert bare.bos_token_id is None
    assert bare.eos_token_id is None
    for own, usual in zip(score_tasks(model, bare, {"t": items}), score_tasks(model, plain, {"t": items}), strict=True):
        pd.testing.assert_frame_equal(own, usual)


def test_no_tasks_give_empty_tables() -> None:
    rows, per_item = score_tasks(_model("gpt_neox"), _tokenizer(), {})
    assert rows.empty
    assert per_item.empty
    assert rows.columns.tolist() == ["task", "measure", "value", "stderr"]


def test_braces_and_other_scripts_in_a_prompt_stay_as_they_are() -> None:
    items = [dataclasses.replace(i, prompt="{{ w1 }} {% w2 %} 森 " + i.prompt) for i in _items(4, seed=10)]
    model, tokenizer = _model("olmo2"), _tokenizer()
    _, per_item = score_tasks(model, tokenizer, {"t": items})
    for i, item in enumerate(items):
        logp, _ = _plainly(model, tokenizer, item)
        assert per_item["log_probability"][i] == pytest.approx(logp[item.answer], abs=2e-5)


def test_nothing_is_fetched_printed_or_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked")

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    score_tasks(_model("gpt_neox"), _tokenizer(), {"t": _items(5, seed=11)})
    assert list(tmp_path.rglob("*")) == [tmp_path / "temporary"]
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err == ""
