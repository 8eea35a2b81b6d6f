"""Task files through the harness on local data in the published columns; form of answers; shared prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PreTrainedTokenizerFast,
)
from typer.testing import CliRunner

from phaselab.behaviour import digest, files, library, load_items, score_tasks, scoring
from phaselab.behaviour import score as answers
from phaselab.cli import app
from phaselab.errors import PhaselabError
from phaselab.texts.base import Item

# --- Form of answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "strict", "lenient"),
    [
        ("B", "B", "B"),
        (" B", "B", "B"),
        ("B)", "", "B"),
        ("(B)", "", "B"),
        ("B. Paris", "", "B"),
        ("The answer is B", "", "B"),
        ("The answer is B, since A dog barks", "", "B"),
        ("b", "", "B"),
        ("Ｂ", "", "B"),
        ("答えはBです", "", "B"),
        ("E", "", ""),
        ("", "", ""),
        ("A or B", "", ""),
        ("B or E", "", ""),
        ("A dog", "", ""),
        ("A is right", "", "A"),
        ("BB", "", ""),
        ("I think it is C.", "", "C"),
        ("a dog and b", "", ""),
    ],
)
def test_rules_on_a_table_of_answers(said: str, strict: str, lenient: str) -> None:
    assert answers.strict(said, ("A", "B", "C", "D")) == strict
    assert answers.lenient(said, ("A", "B", "C", "D")) == lenient


def test_options_in_words_are_found_whole() -> None:
    options = ("mill", "old mill", "tower")
    assert answers.strict(" old mill", options) == "old mill"
    assert answers.lenient("It was the Old Mill.", options) == "old mill"
    assert answers.lenient("the windmill", options) == ""
    assert answers.lenient("the mill or the tower", options) == ""


# --- Scores with shared prompts -----------------------------------------------------------------------


def _network(family: str, vocabulary: int = 50, context: int = 128) -> Any:
    torch.manual_seed(1)
    shape = {
        "vocab_size": vocabulary,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": context,
        "initializer_range": 0.5,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    # Learned places (OPT, GPT-2), a bias for distance (BLOOM), turns (the others).
    own = {"opt": {"ffn_dim": 32, "word_embed_proj_dim": 16}, "bloom": {"n_layer": 2, "n_head": 2}}
    config = AutoConfig.for_model(family, **shape, **own.get(family, {}))
    return AutoModelForCausalLM.from_config(config).eval()


@torch.no_grad()
def _plainly(model: Any, request: scoring.Request) -> list[tuple[float, bool]]:
    found = []
    for option in request.options:
        logp = model(torch.tensor([request.prompt + option])).logits[0].double().log_softmax(-1)
        logp = logp[len(request.prompt) - 1 : -1]
        of = logp[torch.arange(len(option)), torch.tensor(option)]
        found.append((float(of.sum()), logp.argmax(-1).tolist() == list(option)))
    return found


@pytest.mark.parametrize("family", ["gpt_neox", "olmo2", "opt", "gpt2", "bloom"])
@pytest.mark.parametrize("shared", [0, 30])
@pytest.mark.parametrize("longest", [1, 3])
def test_shared_prompts_score_as_each_alone(family: str, shared: int, longest: int) -> None:
    rng = np.random.default_rng(shared + longest)
    model = _network(family)
    begin = tuple(rng.integers(3, 50, shared).tolist())
    requests = []
    for i in range(23):
        # One prompt is nothing but the beginning, or a single token.
        prompt = begin + tuple(rng.integers(3, 50, 0 if i == 5 and shared else rng.integers(1, 9)).tolist())
        options = [tuple(rng.integers(3, 50, rng.integers(1, longest + 1)).tolist()) for _ in range(2 + i % 3)]
        with torch.no_grad():
            options[0] = (int(model(torch.tensor([prompt])).logits[0, -1].argmax()), *options[0][1:])
        requests.append(scoring.Request(prompt, tuple(options)))
    found = scoring.score(model, requests, batch_size=6)
    greedy = 0
    for request, scores in zip(requests, found, strict=True):
        plain = _plainly(model, request)
        np.testing.assert_allclose([p for p, _ in scores], [p for p, _ in plain], atol=5e-5)
        assert [g for _, g in scores] == [g for _, g in plain]
        greedy += sum(g for _, g in scores)
    assert greedy > 5


def test_a_short_prompt_that_alone_has_a_longer_option_does_not_see_what_filled_it_up() -> None:
    model, rng = _network("gpt_neox"), np.random.default_rng(0)
    prompts = [tuple(rng.integers(3, 50, n).tolist()) for n in (20, 5, 12)]
    requests = [scoring.Request(prompt, ((7,), (9, 8) if len(prompt) == 5 else (9,))) for prompt in prompts]
    for request, scores in zip(requests, scoring.score(model, requests, batch_size=6), strict=True):
        np.testing.assert_allclose([p for p, _ in scores], [p for p, _ in _plainly(model, request)], atol=5e-5)


# --- Generated answers --------------------------------------------------------------------------------


def _letters() -> PreTrainedTokenizerFast:
    """One token a byte, so that every text is its letters."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {t: i for i, t in enumerate(["<pad>", "<bos>", "<eos>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")


def _chain(tokenizer: Any, after: dict[str, str]) -> Any:
    """A model that says, after a token, the one that `after` gives; each token is a text of one letter."""
    model = _network("gpt_neox", len(tokenizer), 512)
    size = len(tokenizer)
    config = model.config
    config.hidden_size = size
    ids = {a: tokenizer.encode(a)[0] for a in {*after, *after.values()}}
    with torch.no_grad():
        network = GPTNeoXForCausalLM(
            GPTNeoXConfig(
                vocab_size=size,
                hidden_size=size + size % 2,
                intermediate_size=8,
                num_hidden_layers=1,
                num_attention_heads=1,
                max_position_embeddings=512,
                eos_token_id=2,
                pad_token_id=0,
            )
        ).eval()
        for parameter in network.gpt_neox.layers.parameters():
            parameter.zero_()
        network.gpt_neox.embed_in.weight.zero_()[:, :size] = torch.eye(size)
        head = network.get_output_embeddings().weight.zero_()
        for a, b in after.items():
            head[ids[b], ids[a]] = 1.0
    return network


@pytest.mark.parametrize(
    ("after", "said", "strict", "lenient"),
    [
        ({":": " ", " ": "B", "B": "\n"}, " B", 1.0, 1.0),
        ({":": " ", " ": "B", "B": ")", ")": "\n"}, " B)", 0.0, 1.0),
        ({":": "E", "E": "\n"}, "E", 0.0, 0.0),
    ],
)
def test_generated_answers_are_judged_by_both_rules(
    after: dict[str, str], said: str, strict: float, lenient: float
) -> None:
    tokenizer = _letters()
    items = [Item(f"i{i}", f"{'x' * i}?\nAnswer:", ("A", "B", "C"), i % 2, "", "en") for i in range(1, 5)]
    rows, per_item = score_tasks(_chain(tokenizer, after), tokenizer, {"t": items}, generate={"t": 5})
    assert per_item["said"].tolist() == [said] * 4
    value = rows.set_index("measure")["value"]
    assert value["instruction_following_strict"] == strict
    assert value["instruction_following_lenient"] == lenient
    assert value["accuracy_lenient"] == lenient / 2
    without, _ = score_tasks(_chain(tokenizer, after), tokenizer, {"t": items})
    assert "instruction_following_strict" not in set(without["measure"])


def test_a_letter_habit_is_told_from_skill() -> None:
    tokenizer = _letters()
    model = _chain(tokenizer, {":": " ", " ": "B", "B": "\n"})
    items = [Item(f"i{i}", f"{'x' * (i + 1)}?\nAnswer:", ("A", "B", "C", "D"), i % 4, "", "en") for i in range(8)]
    rows, per_item = score_tasks(model, tokenizer, {"t": items})
    value = rows.set_index("measure")["value"]
    assert value["position_share_2"] == 1
    assert value["position_bias"] == pytest.approx(0.75)
    assert value["accuracy"] == 0.25
    assert per_item["chosen_position"].tolist() == [1] * 8


# --- Files of the library, on the columns in which the data are published -------------------------------

PUBLISHED: dict[str, dict[str, Any]] = {
    "mmlu": {
        "question": "Which is a prime? ",
        "subject": "mathematics",
        "choices": ["4", "6", "7", "9"],
        "answer": 2,
    },
    "commonsenseqa": {
        "id": "1",
        "question": "Where is hay?",
        "question_concept": "hay",
        "choices": {"label": ["A", "B", "C", "D", "E"], "text": ["sea", "sky", "barn", "well", "bank"]},
        "answerKey": "C",
    },
    "arc_easy": {
        "id": "1",
        "question": "What melts?",
        "choices": {"text": ["rock", "ice"], "label": ["1", "2"]},
        "answerKey": "2",
    },
    "arc_challenge": {
        "id": "1",
        "question": "What melts?",
        "choices": {"text": ["ore", "log", "ice"], "label": ["A", "B", "C"]},
        "answerKey": "C",
    },
    "hellaswag": {
        "ind": 1,
        "activity_label": "Cooking",
        "ctx_a": "He peels.",
        "ctx_b": "he",
        "ctx": "He peels. he",
        "endings": ["flies.", "cuts it.", "sings.", "swims."],
        "label": "1",
    },
    "piqa": {"goal": "Open a jar", "sol1": "Eat it.", "sol2": "Turn the lid.", "label": 1},
    "winogrande": {
        "sentence": "Ann paid Bob as _ was owed.",
        "option1": "Ann",
        "option2": "Bob",
        "answer": "2",
    },
    "jcommonsenseqa": {
        "q_id": 1,
        "question": "海にいるのは？",
        "choice0": "馬",
        "choice1": "魚",
        "choice2": "牛",
        "choice3": "犬",
        "choice4": "猫",
        "label": 1,
    },
    "jmmlu": {"question": "素数はどれ？", "choices": ["4", "6", "7", "9"], "answer": 2},
    "blimp": {
        "sentence_good": "Who should Derek hug after shocking Richard?",
        "sentence_bad": "Who should Derek hug Richard after shocking?",
        "field": "syntax",
        "linguistics_term": "island_effects",
        "UID": "adjunct_island",
        "simple_LM_method": True,
        "one_prefix_method": False,
        "two_prefix_method": False,
        "lexically_identical": True,
        "pair_id": 0,
    },
    "jblimp": {
        "type": "sentence",
        "phenomenon": "argument structure",
        "good_sentence": "太郎が本を読んだ。",
        "bad_sentence": "太郎が本に読んだ。",
    },
}
#: Tasks of two sentences, of which none is asked for.
PAIRS = ("blimp", "jblimp")
RIGHT = {
    "mmlu": "7",
    "commonsenseqa": "barn",
    "arc_easy": "ice",
    "arc_challenge": "ice",
    "hellaswag": "cuts it.",
    "piqa": "Turn the lid.",
    "winogrande": "Bob",
    "jcommonsenseqa": "魚",
    "jmmlu": "7",
    "blimp": "Who should Derek hug after shocking Richard?",
    "jblimp": "太郎が本を読んだ。",
}


def _write(path: Path, docs: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(d, ensure_ascii=False) + "\n" for d in docs), encoding="utf-8")
    return path


def _split(name: str) -> str:
    text = library()[name].read_text(encoding="utf-8")
    return "test" if "test_split: test" in text else "validation"


def test_every_task_of_the_library_is_tested() -> None:
    assert set(PUBLISHED) == set(RIGHT) == set(library())


@pytest.mark.parametrize("name", sorted({*PUBLISHED} - {*PAIRS}))
def test_published_columns_become_lettered_items(name: str, tmp_path: Path) -> None:
    data = {_split(name): _write(tmp_path / "docs.jsonl", [PUBLISHED[name]] * 3)}
    items = load_items(library()[name], data=data)
    assert [item.id for item in items] == [f"{name}-{i}" for i in range(3)]
    item = items[0]
    assert item.options == tuple("ABCDE"[: len(item.options)])
    assert f"\n{item.options[item.answer]}. {RIGHT[name]}\n" in item.prompt
    assert item.prompt.endswith("答え:" if name.startswith("j") else "Answer:")
    assert item.language == ("ja" if name.startswith("j") else "en")
    assert item.kind == PUBLISHED[name].get("subject", "")


@pytest.mark.parametrize("name", PAIRS)
def test_minimal_pairs_are_two_sentences_and_no_question(name: str, tmp_path: Path) -> None:
    other = PUBLISHED[name] | {"phenomenon": "z", "linguistics_term": "z"}
    if name == "jblimp":  # as the columns have been called since
        other |= {f"sentence_{kind}": other.pop(f"{kind}_sentence") for kind in ("good", "bad")}
    turned = {key: value for key, value in other.items() if "good" not in key and "bad" not in key}
    turned |= {"sentence_good": "b A. ", "sentence_bad": "A a."}
    for docs in ([PUBLISHED[name]], [other, turned]):
        items = load_items(library()[name], data={"train": _write(tmp_path / "docs.jsonl", docs)})
        assert items[0].options[items[0].answer] == RIGHT[name]
        assert {*items[0].options} == {value for key, value in docs[0].items() if "good" in key or "bad" in key}
        assert [(item.prompt, item.question, item.form) for item in items] == [("", "", False)] * len(docs)
    assert items[1].options == ("A a.", "b A.")
    assert (items[1].answer, items[1].kind) == (1, "z")
    with pytest.raises(PhaselabError, match="'sentence_good' is undefined|'good_sentence' is undefined"):
        load_items(library()[name], data={"train": _write(tmp_path / "docs.jsonl", [{"sentence_bad": "a", "x": "b"}])})
    assert items[0].language == ("ja" if name == "jblimp" else "en")


def test_each_task_of_the_library_is_scored_and_following_is_apart_from_accuracy(tmp_path: Path) -> None:
    split = {name: "train" if name in PAIRS else _split(name) for name in PUBLISHED}
    items = {
        name: load_items(library()[name], data={split[name]: _write(tmp_path / name, [doc] * 2)})
        for name, doc in PUBLISHED.items()
    }
    says = _chain(_letters(), {":": " ", " ": "C", "C": "\n"})  # always the third option, whatever is asked
    rows, _ = score_tasks(says, _letters(), items)
    value = rows.set_index(["task", "measure"])["value"]
    follows = value.xs("instruction_following", level="measure").to_dict()
    assert follows == dict.fromkeys({*PUBLISHED} - {*PAIRS}, 1.0) | {"piqa": 0.0, "winogrande": 0.0, "arc_easy": 0.0}
    right = value.xs("accuracy", level="measure")
    assert {name for name in {*follows} if follows[name] and right[name]} == {
        "mmlu", "jmmlu", "arc_challenge", "commonsenseqa",
    }  # fmt: skip
    assert {*right.index} == {*PUBLISHED}


@pytest.mark.parametrize(("choices", "answer"), [("xyz", "B"), ("xy", 1), ("vwxyz", "E"), ("vwxyz", 4)])
def test_mmlu_has_any_number_of_choices(choices: str, answer: str | int, tmp_path: Path) -> None:
    doc = {"question": "Which?", "choices": [*choices], "answer": answer} | dict.fromkeys("ABCD", "another column")
    (item,) = load_items(library()["mmlu"], data={"test": _write(tmp_path / "docs.jsonl", [doc])})
    assert len(item.options) == len(choices)
    assert item.options[item.answer] == (answer if isinstance(answer, str) else "ABCDE"[answer])


def test_order_of_choices_is_drawn_for_each_item_and_keeps_the_right_one(tmp_path: Path) -> None:
    docs = [PUBLISHED["mmlu"] | {"question": f"Which of {i}?"} for i in range(40)]
    data = {"test": _write(tmp_path / "docs.jsonl", docs)}
    items = load_items(library()["mmlu"], permute=True, seed=3, data=data)
    assert items == load_items(library()["mmlu"], permute=True, seed=3, data=data)
    assert items != load_items(library()["mmlu"], permute=True, seed=4, data=data)
    assert all(f"\n{i.options[i.answer]}. 7\n" in i.prompt for i in items)
    assert {i.answer for i in items} == {0, 1, 2, 3}
    some = load_items(library()["mmlu"], n=10, permute=True, seed=3, data=data)
    assert len(some) == 10
    assert set(some) < set(items)  # an item's order does not depend on which others are drawn


@pytest.mark.parametrize("shots", [0, 1, 5])
def test_examples_come_before_each_question_with_their_answers(shots: int, tmp_path: Path) -> None:
    docs = [PUBLISHED["mmlu"] | {"question": f"Which of {i}?"} for i in range(3)]
    examples = [PUBLISHED["mmlu"] | {"question": f"Example {i}?"} for i in range(5)]
    data = {"test": _write(tmp_path / "t.jsonl", docs), "dev": _write(tmp_path / "d.jsonl", examples)}
    items = load_items(library()["mmlu"], shots=shots, data=data)
    assert len(items) == 3
    for i, item in enumerate(items):
        assert item.prompt.count("Answer: C\n\n") == shots
        assert [f"Example {k}?" in item.prompt for k in range(5)] == [k < shots for k in range(5)]
        assert f"Which of {i}?" in item.prompt.split("\n\n")[-1]


def test_without_examples_of_its_own_a_task_does_not_ask_what_it_shows(tmp_path: Path) -> None:
    docs = [PUBLISHED["jmmlu"] | {"question": f"問{i}?"} for i in range(6)]
    items = load_items(library()["jmmlu"], shots=2, data={"test": _write(tmp_path / "t.jsonl", docs)})
    assert [i.id for i in items] == [f"jmmlu-{i}" for i in range(2, 6)]
    assert all(i.prompt.count("答え: C\n\n") == 2 and "問0?" in i.prompt for i in items)
    for shots in (-1, 6):
        with pytest.raises(PhaselabError, match=f"jmmlu.yaml: shots: found {shots}, expected 0 to 5"):
            load_items(library()["jmmlu"], shots=shots, data={"test": tmp_path / "t.jsonl"})


# --- Files of one's own ---------------------------------------------------------------------------------

OWN = """task: mine
dataset_path: json
dataset_kwargs: {data_files: {test: questions.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: answer
"""
SPLITS = ("test", "dev")
DOC = {"question": "Where is hay?", "choices": ["sea", "barn"], "answer": 1}


def _own(folder: Path, text: str = OWN, docs: list[dict[str, Any]] | None = None) -> Path:
    _write(folder / "questions.jsonl", docs or [DOC] * 2)
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    return folder / "mine.yaml"


def test_a_file_of_ones_own_is_read_and_scored(tmp_path: Path) -> None:
    items = load_items(_own(tmp_path))
    prompt = "Where is hay?\nAnswer:"
    assert items[0] == Item("mine-0", prompt, ("sea", "barn"), 1, "", "en", question=prompt)
    rows, _ = score_tasks(_network("olmo2", 300), _letters(), {"mine": items})
    assert rows["value"].notna().all()
    done = CliRunner().invoke(app, ["tasks", "validate", str(tmp_path / "mine.yaml")])
    assert done.exit_code == 0, done.output
    assert "2 items, all of them can be asked, 2 without listing options (knowing)" in done.output
    assert "mmlu: cais/mmlu" in CliRunner().invoke(app, ["tasks", "list"]).output


def test_examples_of_a_file_of_ones_own_are_its_first_questions(tmp_path: Path) -> None:
    items = load_items(_own(tmp_path, docs=[DOC | {"question": f"Which {i}?"} for i in range(5)]), shots=2)
    shown = "Which 0?\nAnswer: barn\n\nWhich 1?\nAnswer: barn\n\n"
    assert [item.prompt for item in items] == [f"{shown}Which {i}?\nAnswer:" for i in (2, 3, 4)]


def test_scores_are_those_of_the_harness_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    monkeypatch.chdir(tmp_path)  # where the harness looks for the data
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    choices = ("sea", "barn", "the barn", "a")
    docs = [{"question": f"Where is{' hay' * i}?", "choices": choices[: 2 + i % 3], "answer": i % 2} for i in range(9)]
    items = load_items(_own(tmp_path, docs=docs))
    model, tokenizer = _network("olmo2", 300), _letters()
    _, per_item = score_tasks(model, tokenizer, {"mine": items}, batch_size=4)

    task = TaskManager(include_path=str(tmp_path), include_defaults=False).load("mine")["tasks"]["mine"]
    task.build_all_requests()
    requests = sorted(task.instances, key=lambda request: (request.doc_id, request.idx))
    assert [r.args for r in requests] == [(item.prompt, f" {option}") for item in items for option in item.options]
    told = iter(HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4).loglikelihood(requests, disable_tqdm=True))
    for item, row in zip(items, per_item.itertuples(), strict=True):
        logp, greedy = zip(*(next(told) for _ in item.options), strict=True)
        assert row.log_probability == pytest.approx(logp[item.answer], abs=2e-4)
        assert row.chosen_position == int(np.argmax(logp))
        assert (row.greedy != "") == any(greedy)


@pytest.mark.parametrize("begin", ["<bos>", ""])
def test_sentences_without_a_prompt_score_as_in_the_harness(
    begin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    rng, tokenizer, model = np.random.default_rng(0), _letters(), _network("olmo2", 300)
    tokenizer.bos_token = begin or None  # Pythia's has EOS alone
    pairs = ["".join(rng.choice([*"abc "], 12)).strip() + end for end in "..!!??"]
    docs = [{"sentence_good": f"g{a}", "sentence_bad": b, "UID": "x"} for a, b in zip(pairs, pairs[::-1], strict=True)]
    items = load_items(library()["blimp"], data={"train": _write(tmp_path / "docs.jsonl", docs)})
    _, per_item = score_tasks(model, tokenizer, {"blimp": items}, batch_size=4)
    asked = [Instance("loglikelihood", {}, ("", f" {option}"), 0) for item in items for option in item.options]
    logp = [p for p, _ in HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4).loglikelihood(asked, True)]
    for n, (item, row) in enumerate(zip(items, per_item.itertuples(), strict=True)):
        assert row.log_probability == pytest.approx(logp[2 * n + item.answer], abs=2e-4)
        assert row.chosen_position == int(np.argmax(logp[2 * n : 2 * n + 2]))
    tokenizer.bos_token = tokenizer.eos_token = None
    with pytest.raises(PhaselabError, match="blimp: 6 of 6 items: a prompt without tokens"):
        score_tasks(model, tokenizer, {"blimp": items})


def test_reading_a_file_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_items(library()["mmlu"], shots=1, data={s: _write(tmp_path / s, [PUBLISHED["mmlu"]] * 9) for s in SPLITS})
    assert capfd.readouterr() == ("", "")


def test_separators_of_lines_within_a_text_do_not_end_its_line(tmp_path: Path) -> None:
    docs = [DOC | {"question": "One\u2028two\x85three?"}, DOC | {"answer": 5}]
    with pytest.raises(PhaselabError, match=r"1 of 2 items: .* items 2 \(line 2\)"):
        load_items(_own(tmp_path, docs=docs))
    assert load_items(_own(tmp_path, docs=docs[:1]))[0].prompt == "One\u2028two\x85three?\nAnswer:"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "output_type: multiple_choice",
            "output_type: generate_until",
            r"mine.yaml:5: output_type: found 'generate_until', expected 'multiple_choice'",
        ),
        ("test_split: test", "tset_split: test", r"mine.yaml:4: tset_split: no field of a task"),
        ("doc_to_target: answer\n", "", r"mine.yaml:1: doc_to_target: missing"),
        (
            "{{question}}",
            "{{question",
            r"mine.yaml:6: doc_to_text: lm-evaluation-harness: TemplateSyntaxError",
        ),
        ("task: mine", "task: [mine", r"mine.yaml:\d: cannot be read as YAML"),
        ("{{question}}", "{{qestion}}", r"lm-evaluation-harness: UndefinedError: 'qestion' is undefined"),
        (
            "questions.jsonl",
            "answers.jsonl",
            r"mine.yaml:3: data of split 'test': .*answers.jsonl is not there",
        ),
        (
            "output_type",
            "target_delimiter: ''\noutput_type",
            r"mine.yaml:5: target_delimiter: found '', expected ' '",
        ),
        ("task: mine", "include: mine.yaml\ntask: mine", r"include: found the file itself"),
        ("Answer:", "Answer: ", r"2 of 2 items: doc_to_text: expected one prompt that does not end in white space"),
    ],
)
def test_a_bad_file_is_told_with_its_line(old: str, new: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(PhaselabError, match=says):
        load_items(_own(tmp_path, OWN.replace(old, new, 1)))


def test_a_file_is_included_once_and_not_without_end(tmp_path: Path) -> None:
    """Else a few of them that include each other several times would be read for ever."""
    for number in range(101):
        (tmp_path / f"{number}.yaml").write_text(f"include: {number + 1}.yaml\n")
    (tmp_path / "twice.yaml").write_text("include: [101.yaml, 101.yaml]\n")
    (tmp_path / "101.yaml").write_text("tag: x\n")
    said = ": include: found the file itself, one twice, or a hundred, expected other files"
    for name, at in (("twice", "101"), ("0", "100")):
        with pytest.raises(PhaselabError, match=f"^{tmp_path}/{at}.yaml{said}"):
            load_items(tmp_path / f"{name}.yaml")


def test_bad_items_are_named_and_counted(tmp_path: Path) -> None:
    docs = [
        DOC,
        DOC | {"choices": []},
        DOC | {"answer": 2},
        DOC | {"answer": -1},
        DOC,
        DOC | {"choices": ["x"]},
    ]
    with pytest.raises(PhaselabError) as told:
        load_items(_own(tmp_path, docs=docs))
    assert "2 of 6 items: doc_to_choice: expected a list of at least two different options" in str(told.value)
    assert "items 2 (line 2), 6 (line 6)" in str(told.value)
    assert "2 of 6 items: doc_to_target: answer outside the options: items 3 (line 3), 4 (line 4)" in str(told.value)
    (tmp_path / "questions.jsonl").write_text(json.dumps(DOC) + "\n{oh", encoding="utf-8")
    with pytest.raises(PhaselabError, match=r"questions.jsonl:2: not JSON"):
        load_items(tmp_path / "mine.yaml")
    done = CliRunner().invoke(app, ["tasks", "validate", str(tmp_path / "mine.yaml")])
    assert done.exit_code == 2


def test_the_digest_follows_the_file_what_it_includes_and_the_data(tmp_path: Path) -> None:
    path = _own(tmp_path)
    before = digest(path, {})
    assert digest(path, {}) == before
    _write(tmp_path / "questions.jsonl", [DOC] * 3)
    changed = digest(path, {})
    assert changed != before
    (tmp_path / "mine.yaml").write_text(OWN.replace("Answer", "Reply"), encoding="utf-8")
    assert digest(path, {}) not in (before, changed)


# --- Code in task files ------------------------------------------------------------------------------

#: Ways in which a file could run code: at reading, at the first item, at rendering.
HOSTILE = {
    "process_docs": (
        "process_docs: !function evil.touch\n",
        r"mine\.yaml:\d+: process_docs: found !function evil\.touch",
    ),
    "in a list": (
        "metric_list: [{metric: acc, aggregation: !function evil.touch}]\n",
        r"metric_list: found !function evil\.touch, which is code that would run, expected none, or trust_task_code",
    ),
    "class": ("class: !function evil.touch\n", r"class: no field of a task"),
    "python tag": ("metadata: {x: !!python/object/apply:os.system ['touch ran']}\n", r"mine\.yaml"),
}
ESCAPES = (
    "{{ cycler.__init__.__globals__.os.system('touch ran') }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ question.format.__globals__ }}{{ lipsum.__globals__['os'].popen('touch ran').read() }}",
    "{% for c in [].__class__.__base__.__subclasses__() %}{{ c }}{% endfor %}",
)


@pytest.mark.parametrize("how", HOSTILE)
def test_functions_of_a_file_from_elsewhere_do_not_run(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text(
        "from pathlib import Path\n\nPath('ran').touch()\n\ndef touch(docs):\n    return docs\n"
    )
    more, said = HOSTILE[how]
    path = _own(tmp_path, text=OWN + more)
    with pytest.raises(PhaselabError, match=said):
        load_items(path)
    outcome = CliRunner().invoke(app, ["tasks", "validate", str(path)])
    assert outcome.exit_code == 2
    assert not (tmp_path / "ran").exists()


def test_no_script_is_run_as_a_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness loads a metric that it does not know as a module of ``evaluate``: from a folder, or a hub."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("from pathlib import Path\n\nPath('ran').touch()\n")
    assert load_items(_own(tmp_path, text=OWN + "metric_list: [{metric: ./evil.py}]\n"))
    assert not (tmp_path / "ran").exists()


def test_trusted_functions_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_code.py").write_text("def first(docs):\n    return docs.select([0])\n")
    path = _own(tmp_path, text=OWN + "process_docs: !function mine_code.first\n")
    assert len(load_items(path, trust=True)) == 1
    outcome = CliRunner().invoke(app, ["tasks", "validate", str(path), "--trust-task-code"])
    assert outcome.exit_code == 0, outcome.output


@pytest.mark.parametrize("template", ESCAPES)
@pytest.mark.parametrize("field", ["doc_to_text", "doc_to_choice", "doc_to_target", "alone"])
def test_templates_cannot_reach_the_interpreter(
    template: str, field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [line for line in OWN.splitlines() if not line.startswith(f"{field}:")]
    added = f"metadata: {{alone: {json.dumps(template)}}}" if field == "alone" else f"{field}: {json.dumps(template)}"
    with pytest.raises(PhaselabError):
        load_items(_own(tmp_path, text="\n".join([*lines, added]) + "\n"))
    assert not (tmp_path / "ran").exists()


#: Templates that compute for ever, in Python and in C, or take all memory; what a file could nest too deep.
ENDLESS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a pattern that tries everything": "{{ ('a' * 40 ~ 'b') | regex_replace('(a+)+$', '') }}",
    "a sum of lists": "{{ ([[0] * 1000] * 99999) | sum(start=[]) }}",
    "a power": "{{ 7 ** (10 ** 9) }}",
    "a long text": "{{ ('x' * 10 ** 9) | length }}",
    "texts that double": "{% set n = namespace(x='x') %}{% for a in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
}


@pytest.mark.parametrize("template", ENDLESS.values(), ids=[*ENDLESS])
@pytest.mark.parametrize(("field", "line"), [("doc_to_text", 6), ("doc_to_choice", 7), ("metadata", 9)])
def test_templates_that_compute_for_ever_or_fill_the_memory_are_refused(
    template: str, field: str, line: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SECONDS", (0.5, 0))
    lines = [of for of in OWN.splitlines() if not of.startswith(f"{field}:")]
    value = f"{{alone: {json.dumps(template)}}}" if field == "metadata" else json.dumps(template)
    text = "\n".join([*lines[: line - 1], f"{field}: {value}", *lines[line - 1 :]])
    says = rf"mine.yaml:{line}: {field}: found no end of it within 0.5 s of computing and 256 MiB of memory"
    with pytest.raises(PhaselabError, match=says):
        load_items(_own(tmp_path, text=text))


def test_what_is_nested_too_deep_is_refused_and_what_stands_for_itself_a_billion_times_is_read_once(
    tmp_path: Path,
) -> None:
    with pytest.raises(PhaselabError, match="mine.yaml:6: doc_to_text: lm-evaluation-harness: RecursionError"):
        load_items(_own(tmp_path, text=OWN.replace("question}}", "(" * 5000 + "question" + ")" * 5000 + "}}", 1)))
    many = "".join(f", a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))
    assert len(load_items(_own(tmp_path, text=OWN + f"metadata: {{a0: &a0 [x]{many}}}\n"))) == 2
    pattern = "filter_list: [{name: x, filter: [{function: regex, regex_pattern: '" + "(" * 5000 + "'}]}]\n"
    assert len(load_items(_own(tmp_path, text=OWN + pattern))) == 2  # of answers that nobody writes
