"""Situations of tasks with a known right answer: tokens of options, knowing apart from the form, files of questions."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    ByT5Tokenizer,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PreTrainedTokenizerFast,
)

from phaselab.behaviour import library, load_items, score_tasks, scoring
from phaselab.errors import PhaselabError
from phaselab.study import Training
from phaselab.texts import source
from phaselab.texts.base import Item

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _network(family: str = "gpt_neox", vocabulary: int = 300, **fields: Any) -> Any:
    shape = {"vocab_size": vocabulary, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"intermediate_size": 64, "max_position_embeddings": 256, "initializer_range": 0.3}
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **shape | {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0} | fields)
    return AutoModelForCausalLM.from_config(config).eval()


def _characters(characters: str, longer: tuple[str, ...] = (), merges: Any = (), **special: str) -> Any:
    vocabulary = {token: i for i, token in enumerate([*special.values(), *sorted(set(characters)), *longer])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def _bytes(template: str = "", **special: str) -> PreTrainedTokenizerFast:
    names = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if template:
        around = [("<s>", 0), ("</s>", 1)]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=around)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def _value(rows: Any, measure: str) -> float:
    return float(rows.set_index("measure").loc[measure, "value"])


# --- Tokens of options ----------------------------------------------------------------------------------


def test_options_whose_tokens_merge_with_the_prompt_have_their_own() -> None:
    """Harness 1053, 1297, 4055: ": C" is one token, so that C had none, log-probability 0, and was always chosen."""
    characters = LETTERS + " .:?\n0123456789"
    ids = {c: i for i, c in enumerate(sorted(set(characters)))} | {": ": 67, ": C": 68}
    raw = Tokenizer(models.BPE(vocab=ids, merges=[(":", " "), (": ", "C")]))
    raw.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=".")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=69, max_position_embeddings=256, **shape)).eval()
    prompt = "Q0: two plus 0?\nA. one\nB. two\nC. three\nAnswer:"
    items = [Item(f"q{i}", prompt, ("A", "B", "C"), i, "", "en") for i in range(3)]
    rows, per_item = score_tasks(model, tokenizer, {"t": items})
    np.testing.assert_allclose(per_item["log_probability"], [-8.575, -8.637, -8.462], atol=6e-4)
    assert _value(rows, "instruction_following") == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("1", "2", "3", "4"), "an option without tokens of its own"),
        (("cat", "1"), "an option without tokens of its own"),
        (("cat1", "cat2"), "options with the same tokens"),
    ],
)
def test_options_that_a_tokenizer_drops_are_refused_with_the_item(options: tuple[str, ...], says: str) -> None:
    tokenizer = _characters(LETTERS + " .,:;?!'\n3", eos_token="<|end|>")
    items = [Item(f"q{i}", f"{'so ' * i}How many? Answer:", options, 0, "", "en") for i in range(2)]
    with pytest.raises(PhaselabError, match=rf"t: 2 of 2 items: {says}.*: items q0, q1"):
        score_tasks(_network(), tokenizer, {"t": items})


def test_an_option_that_is_the_unknown_token_alone_is_refused() -> None:
    raw = Tokenizer(models.WordLevel({"<unk>": 0, "Answer": 1, ":": 2, "cat": 3}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")
    with pytest.raises(PhaselabError, match="t: 1 of 1 item: an option without tokens of its own"):
        score_tasks(_network(), tokenizer, {"t": [Item("q", "Answer:", ("cat", "dog"), 0, "", "en")]})


@pytest.mark.parametrize("template", ["$A </s>", "<s> $A", "<s> $A </s>", ""])
def test_what_a_tokenizer_puts_behind_a_text_is_no_part_of_an_option(template: str) -> None:
    items = [Item(f"i{i}", f"{'x' * i}?\nAnswer:", ("one", "two", "six"), 0, "", "en") for i in range(1, 5)]
    model, plain = _network(), _bytes()
    begun = [0] if template.startswith("<s>") else []
    tokenizer = _bytes(template)
    assert tokenizer.bos_token_id is tokenizer.eos_token_id is tokenizer.pad_token_id is None
    _, per_item = score_tasks(model, tokenizer, {"t": items}, generate={"t": 3})
    for item, found in zip(items, per_item.itertuples(), strict=True):
        prompt, option = begun + plain.encode(item.prompt), plain.encode(" one")
        with torch.inference_mode():
            logp = model(torch.tensor([prompt + option])).logits[0].double().log_softmax(-1)[len(prompt) - 1 : -1]
            said = list(prompt)
            for _ in range(3):
                said.append(int(model(torch.tensor([said])).logits[0, -1].argmax()))
        assert found.log_probability == pytest.approx(float(logp[range(4), option].sum()), abs=1e-4)
        assert found.said == plain.decode(said[len(prompt) :]).split("\n")[0]


def test_white_space_at_the_end_of_a_prompt_goes_with_the_option() -> None:
    asked = [("Answer: ", ("A", "B"), 0), ("Answer:\n", ("A", "B"), 0)]
    one, other = scoring.requests(_network(), tokenizer := _bytes(), asked)
    assert one.prompt == other.prompt == tuple(tokenizer.encode("Answer:"))
    assert one.options == tuple(tuple(tokenizer.encode(f"  {o}")) for o in "AB")
    assert other.options == tuple(tuple(tokenizer.encode(f"\n {o}")) for o in "AB")


def test_byte_level_tokens_of_llama_3_with_emoji_and_japanese() -> None:
    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+"
    raw = Tokenizer(models.BPE(ignore_merges=True))
    byte = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte])
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(["the cat sat"], trainers.BpeTrainer(vocab_size=270, initial_alphabet=alphabet))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw)
    (request,) = scoring.requests(_network(), tokenizer, [("森🌲は？\n答え:", ("馬", "🐴 horse"), 0)])
    assert request.fault == ""
    assert [tokenizer.decode(option) for option in request.options] == [" 馬", " 🐴 horse"]


def test_slow_tokenizers_score() -> None:
    tokenizer = ByT5Tokenizer()  # one token a byte, EOS behind each text
    items = [Item("a", "Is it?\nAnswer:", ("yes", "no"), 0, "", "en")]
    model = _network(vocabulary=400)
    _, per_item = score_tasks(model, tokenizer, {"t": items}, generate={"t": 2})
    prompt, option = (tokenizer.encode(text, add_special_tokens=False) for text in (items[0].prompt, " yes"))
    with torch.inference_mode():
        logp = model(torch.tensor([prompt + option])).logits[0].double().log_softmax(-1)[len(prompt) - 1 : -1]
    assert per_item["log_probability"][0] == pytest.approx(float(logp[range(4), option].sum()), abs=1e-4)


def test_a_vocabulary_larger_than_the_embedding_is_said() -> None:
    items = [Item("a", "Is it?\nAnswer:", ("yes", "no"), 0, "", "en")]
    with pytest.raises(PhaselabError, match="t: 1 of 1 item: tokens beyond the 20 that the network has: items a"):
        score_tasks(_network(vocabulary=20), _bytes(), {"t": items})


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("mamba", {"state_size": 4}),
        ("rwkv", {"attention_hidden_size": 32, "context_length": 128}),
        ("jamba", {"num_key_value_heads": 2, "num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1}),
        ("mistral", {"sliding_window": 60, "num_key_value_heads": 2}),
        ("mistral", {"sliding_window": 8, "num_key_value_heads": 2}),
        ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 256}),  # distances count what fills up
        ("gpt_neo", {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "num_heads": 4, "window_size": 8}),
    ],
)
def test_networks_without_a_cache_that_can_be_continued_score_as_each_option_alone(
    family: str, fields: dict[str, Any]
) -> None:
    model, rng, begin = _network(family, 50, **fields), np.random.default_rng(0), tuple(range(3, 43))
    requests = []
    for _ in range(7):
        prompt = (*begin[: 40 if len(requests) % 3 else 0], *rng.integers(3, 50, rng.integers(1, 9)).tolist())
        options = {tuple(rng.integers(3, 50, rng.integers(1, 4)).tolist()) for _ in range(3)}
        requests.append(scoring.Request(prompt, tuple(options)))
    for request, found in zip(requests, scoring.score(model, requests, batch_size=4), strict=True):
        for option, (value, greedy) in zip(request.options, found, strict=True):
            with torch.inference_mode():
                logits = model(torch.tensor([request.prompt + option]), use_cache=False).logits[0]
            logp = logits.double().log_softmax(-1)[len(request.prompt) - 1 : -1]
            assert value == pytest.approx(float(logp[range(len(option)), list(option)].sum()), abs=5e-5)
            assert greedy == (logp.argmax(-1).tolist() == list(option))


# --- Knowing, and following the form ----------------------------------------------------------------------


def _after(pairs: dict[str, str]) -> tuple[Any, Any]:
    """A network of words that says after each the one that `pairs` gives, and its tokenizer."""
    words = [*dict.fromkeys([*pairs, *pairs.values()])]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*words, "<unk>"])}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    size = len(words) + 1
    shape = {"hidden_size": 2 * size, "num_attention_heads": 1, "num_hidden_layers": 1, "intermediate_size": 8}
    model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=size, max_position_embeddings=64, **shape)).eval()
    with torch.no_grad():
        for parameter in model.gpt_neox.layers.parameters():
            parameter.zero_()
        model.gpt_neox.embed_in.weight.zero_()[:, :size] = torch.eye(size)
        head = model.get_output_embeddings().weight.zero_()
        for before, word in pairs.items():
            head[words.index(word), words.index(before)] = 1.0
    return model, PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")


def test_a_model_that_knows_and_does_not_follow_is_told_from_one_that_follows_and_does_not_know() -> None:
    form = "options : hay , sea answer :"
    items = [
        Item("a", f"horses eat {form}", ("hay", "sea"), 0, "", "en", question="horses eat"),
        Item("b", f"ships cross {form}", ("hay", "sea"), 1, "", "en", question="ships cross"),
    ]
    knows = {"eat": "hay", "cross": "sea", ":": "horses", "options": "ships", "answer": ",", "horses": ":"}
    follows = {":": "hay", "eat": "sea", "cross": "hay", "options": "ships", "answer": ",", "horses": ":"}
    told = [score_tasks(*_after(pairs), {"t": items}) for pairs in (knows, follows)]
    assert [_value(rows, "knowing") for rows, _ in told] == [1, 0]
    assert [_value(rows, "instruction_following") for rows, _ in told] == [0, 1]
    rows, per_item = told[0]
    assert per_item["chosen_unlisted"].tolist() == ["hay", "sea"]
    assert _value(rows, "knowing_chance") == 0.5
    assert _value(rows, "knowing_left_out") == 0
    assert rows.set_index("measure").loc["knowing", "stderr"] == 0
    assert np.log(0.5) < _value(rows, "knowing_log_probability") < 0


def test_what_is_not_known_has_no_rows_and_is_noted() -> None:
    model, tokenizer = _network(), _bytes()
    items = [Item(f"i{i}", f"{i}?\nA. cat\nB. dog\nAnswer:", ("A", "B"), 0, "", "en") for i in range(4)]
    rows, per_item = score_tasks(model, tokenizer, {"t": items})
    assert not rows["measure"].str.startswith("knowing").any()
    assert per_item["knows"].isna().all()
    assert rows.attrs["notes"]["knowing_left_out"] == {"t": 4}
    some = [
        Item(*vars(i).values()) if k else Item(*[*vars(i).values()][:6], "0?\nAnswer:", ("cat", "dog"))
        for k, i in enumerate(items)
    ]
    rows, per_item = score_tasks(model, tokenizer, {"t": some})
    assert _value(rows, "knowing_left_out") == 0.75
    assert _value(rows, "knowing") in (0, 1)
    assert per_item["chosen_unlisted"][0] in ("cat", "dog")
    assert rows.attrs["notes"]["knowing_left_out"] == {"t": 3}


@pytest.mark.parametrize("task", ["reading", "facts", "reading-vo", "facts-vo"])
def test_questions_of_the_world_stand_without_their_options(task: str) -> None:
    text = source(Training(text="world", mix="en+vo", architecture="gpt_neox"), None)
    for item in text.items(task, 20, 0):
        listing = " ".join(item.options[0:1]) + " , " + " , ".join(item.options[1:])
        assert listing in item.prompt
        assert listing not in item.question
        before, after = item.prompt.split(listing)
        assert item.question == before.rsplit(" ", 3)[0] + after


# --- Files of questions -------------------------------------------------------------------------------------

TASK = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {name}.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}\\nAnswer:"
doc_to_choice: {choice}
doc_to_target: {target}
"""
ANIMALS = ["cat", "dog", "cow", "hen"]
DIGITS = ["1", "2", "3", "4"]


def _task(
    folder: Path, docs: list[Any] | bytes, target: str = "answer", choice: str = "choices", text: str = TASK
) -> Path:
    lines = docs if isinstance(docs, bytes) else "".join(f"{json.dumps(doc)}\n" for doc in docs).encode()
    (folder / "mine.jsonl").write_bytes(lines)
    (folder / "mine.yaml").write_text(text.format(name="mine", choice=choice, target=target), encoding="utf-8")
    return folder / "mine.yaml"


def _doc(answer: Any, choices: Any = ANIMALS, question: str = "Which?") -> dict[str, Any]:
    return {"question": question, "choices": choices, "answer": answer}


@pytest.mark.parametrize("target", ["answer", '"{{answer}}"', '"{{ answer }}"'])
@pytest.mark.parametrize(
    ("choices", "answer"), [(DIGITS, "2"), (["1959", "1969", "1979"], "1969"), (["True", "False"], "True")]
)
def test_a_text_among_the_options_is_that_option(target: str, choices: list[str], answer: str, tmp_path: Path) -> None:
    docs = [_doc(answer, choices), _doc(choices[-1], choices, "Which one?")]
    items = load_items(_task(tmp_path, docs, target))
    assert [item.options[item.answer] for item in items] == [answer, choices[-1]]
    (shown,) = load_items(tmp_path / "mine.yaml", shots=1)
    assert shown.prompt == f"Which?\nAnswer: {answer}\n\nWhich one?\nAnswer:"


def test_a_number_that_could_be_an_option_is_refused_with_both_readings(tmp_path: Path) -> None:
    docs = [_doc(2, DIGITS), _doc(3, DIGITS)]
    with pytest.raises(PhaselabError, match=r"items 1 \(line 1\), 2 \(line 2\); .*mine.jsonl:1: found 2: '2' .*'3'"):
        load_items(_task(tmp_path, docs))
    with pytest.raises(PhaselabError, match="found 2: '2' by its text, '3' by its number"):
        load_items(tmp_path / "mine.yaml", permute=True)
    assert load_items(_task(tmp_path, [_doc(1969, [1959, 1969])]))[0].answer == 1  # no number of an option


@pytest.mark.parametrize(
    ("doc", "said"),
    [
        ({"question": None}, "doc_to_text: expected a value in what it shows: .*mine.jsonl:1: found none in question"),
        ({"choices": ["a", None]}, "doc_to_choice: expected a list .*: found .'a', None"),
        ({"choices": [["a"], ["b"]]}, "doc_to_choice: expected a list .*"),
    ],
)
def test_what_is_not_there_is_no_text(doc: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(PhaselabError, match=said):
        load_items(_task(tmp_path, [_doc(0) | doc]))


def test_answers_counted_from_one_are_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="mine.yaml: answer 0 never occurs in 6 items"):
        load_items(_task(tmp_path, [_doc(1 + i % 3) for i in range(6)]))
    with pytest.raises(PhaselabError, match=r"items 1 \(line 1\); .*mine.jsonl:1: found 4 \(counted from 1\?\)"):
        load_items(_task(tmp_path, [_doc(4), _doc(1)]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_items(_task(tmp_path, [_doc(i % 3) for i in range(6)]))
        load_items(_task(tmp_path, [_doc("2", DIGITS), _doc("3", DIGITS)]))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_marks_separators_and_encodings_do_not_matter(encoding: str, newline: str, tmp_path: Path) -> None:
    docs = [_doc(0, question="One\u2028two\x85three é?"), _doc(1)]
    text = "".join(json.dumps(doc, ensure_ascii=False) + newline for doc in docs)
    items = load_items(_task(tmp_path, text.encode(encoding)))
    assert [item.answer for item in items] == [0, 1]
    assert items[0].prompt == "One\u2028two\x85three é?\nAnswer:"


@pytest.mark.parametrize(
    ("docs", "says"),
    [
        (b"", r"mine.jsonl: found no items"),
        ('{"question": "caf\xe9?"}'.encode("latin-1"), r"mine.jsonl: line 1: found byte 0xe9, which is not utf-8"),
        (b'{"question": "a",}\n', r"mine.jsonl:1: not JSON"),
        (b"[1, 2]", r"mine.jsonl, item 1: found int, expected an object"),
        ([_doc(0), _doc("1")], r"mine.jsonl:2: answer: found a str \('1'\), expected a number as .*mine.jsonl:1"),
        ([_doc(0, ["", "dog"])], r"doc_to_choice: .*items 1 \(line 1\); .*mine.jsonl:1: found \['', 'dog'\]"),
        ([_doc(0), _doc(0, ["a", "a"])], r"items 2 \(line 2\); .*mine.jsonl:2: found \['a', 'a'\]"),
        ([_doc(True), _doc(False)], r"answer outside the options: items 1 \(line 1\), 2 \(line 2\); .*found True"),
        ([_doc(0), _doc(None)], r"answer outside the options: items 2 \(line 2\); .*mine.jsonl:2: found None"),
        ([_doc(9), _doc(0)], r"answer outside the options: items 1 \(line 1\); .*mine.jsonl:1: found 9"),
    ],
)
def test_bad_data_are_told_with_file_and_line(docs: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(PhaselabError, match=says):
        load_items(_task(tmp_path, docs))


def test_data_without_the_split_that_is_asked_are_said(tmp_path: Path) -> None:
    path = _task(tmp_path, [_doc(0)])
    with pytest.raises(PhaselabError, match=r"data: found tset, expected split 'test', which is asked"):
        load_items(path, data={"tset": tmp_path / "mine.jsonl"})
    bare = TASK.replace("dataset_kwargs: {{data_files: {{test: {name}.jsonl}}}}\n", "")
    with pytest.raises(PhaselabError, match=r"data: found none, expected split 'test', which is asked"):
        load_items(_task(tmp_path, [_doc(0)], text=bare))


LETTERED = TASK.replace(
    "{{{{question}}}}\\nAnswer:",
    "{{{{question}}}}\\n{{% for c in choices %}}{{{{ 'ABCD'[loop.index0] }}}}. {{{{c}}}}\\n{{% endfor %}}Answer:",
)


def test_what_can_be_asked_without_its_options(tmp_path: Path) -> None:
    letters = "\"{{ 'ABCD'[:choices|length] | list }}\""
    (item,) = load_items(_task(tmp_path, [_doc(1)], choice=letters, text=LETTERED))
    assert (item.options, item.answer) == (("A", "B", "C", "D"), 1)
    assert (item.question, item.choices) == ("Which?\nAnswer:", tuple(ANIMALS))
    (item,) = load_items(_task(tmp_path, [_doc(1)]))  # nothing listed: knowing and accuracy are one
    assert (item.question, item.choices) == (item.prompt, ())
    template = LETTERED + 'metadata: {{alone: "{{{{question}}}} It is the"}}\n'
    (item,) = load_items(_task(tmp_path, [_doc(1)], choice=letters, text=template))
    assert item.question == "Which? It is the"
    docs = [{"question": "Which? A. cat B. dog", "answer": 0}]  # letters alone
    assert load_items(_task(tmp_path, docs, choice='["A", "B"]'))[0].question == ""
    docs = [_doc(0, ["cat", "dog"], question="Which, cat or dog?")]  # listed in the question itself
    assert load_items(_task(tmp_path, docs))[0].question == ""
    assert load_items(_task(tmp_path, [_doc(0, ["+", "-"])]))[0].question == "Which?\nAnswer:"
    with pytest.raises(PhaselabError, match="'qestion' is undefined"):
        load_items(_task(tmp_path, [_doc(1)], text=TASK + 'metadata: {{alone: "{{{{qestion}}}}"}}\n'))
    docs = [_doc(0, ["cat", "cat"])]  # letters that say the same
    assert load_items(_task(tmp_path, docs, choice=letters, text=LETTERED))[0].question == ""


def test_library_tasks_are_asked_without_letters(tmp_path: Path) -> None:
    doc = {"question": "Which is a prime?", "subject": "", "choices": ["4", "6", "7", "9"], "answer": 2}
    (tmp_path / "docs.jsonl").write_text(json.dumps(doc), encoding="utf-8")
    (item,) = load_items(library()["mmlu"], data={"test": tmp_path / "docs.jsonl"})
    assert (item.question, item.choices) == ("Which is a prime?\nAnswer:", ("4", "6", "7", "9"))
    doc = {"activity_label": "Cooking", "ctx": "He peels. he", "endings": ["flies.", "cuts it."], "label": "1"}
    (tmp_path / "docs.jsonl").write_text(json.dumps(doc), encoding="utf-8")
    (item,) = load_items(library()["hellaswag"], data={"validation": tmp_path / "docs.jsonl"})
    assert (item.question, item.choices) == ("Cooking: He peels. he", ("flies.", "cuts it."))
