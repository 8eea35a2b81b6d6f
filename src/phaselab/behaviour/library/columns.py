"""From the columns in which data sets are published to question, choices, answer and kind.

Used by the YAML files of this folder (``process_docs``). ``answer`` is the number of the right choice,
-1 where the published answer is none of the choices, which is found and told when items are made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Doc = dict[str, Any]


def _mapped(docs: Any, to: Callable[[Doc], tuple[str, list[str], int]]) -> Any:
    def lettered(doc: Doc) -> Doc:
        question, choices, answer = to(doc)
        return {"question": question, "choices": choices, "answer": answer, "kind": doc.get("subject") or ""}

    # A column may change its type on the way, as ARC's choices do, so none is kept.
    return docs.map(lettered, remove_columns=docs.column_names, load_from_cache_file=False)


def _number(names: list[str], name: object) -> int:
    return names.index(str(name)) if str(name) in names else -1


def mmlu(docs: Any) -> Any:
    """MMLU and JMMLU: question, choices and the answer's number, or columns A to D and its letter."""

    def to(doc: Doc) -> tuple[str, list[str], int]:
        choices = doc["choices"] if "choices" in doc else [str(doc[letter]) for letter in "ABCD"]
        answer = doc["answer"]
        return doc["question"], choices, answer if isinstance(answer, int) else _number(list("ABCD"), answer)

    return _mapped(docs, to)


def labelled(docs: Any) -> Any:
    """CommonsenseQA and ARC: choices {text, label} and answerKey, one of the labels (A to E, or 1 to 5)."""

    def to(doc: Doc) -> tuple[str, list[str], int]:
        return doc["question"], doc["choices"]["text"], _number(doc["choices"]["label"], doc["answerKey"])

    return _mapped(docs, to)


def hellaswag(docs: Any) -> Any:
    """HellaSwag: activity_label, ctx, endings and label, the right ending's number as a text."""

    def to(doc: Doc) -> tuple[str, list[str], int]:
        endings = doc["endings"]
        number = _number([str(i) for i in range(len(endings))], doc["label"])
        return f"{doc['activity_label']}: {doc['ctx']} ...", endings, number

    return _mapped(docs, to)


def piqa(docs: Any) -> Any:
    """PIQA: goal, sol1, sol2 and label, 0 or 1."""
    return _mapped(docs, lambda doc: (doc["goal"], [doc["sol1"], doc["sol2"]], int(doc["label"])))


def winogrande(docs: Any) -> Any:
    """WinoGrande: sentence with a blank, option1, option2 and answer, "1" or "2"."""

    def to(doc: Doc) -> tuple[str, list[str], int]:
        question = f"{doc['sentence']}\nWhat belongs in the blank?"
        return question, [doc["option1"], doc["option2"]], _number(["1", "2"], doc["answer"])

    return _mapped(docs, to)


def jcommonsenseqa(docs: Any) -> Any:
    """JCommonsenseQA: question, choice0 to choice4 and label, 0 to 4."""
    return _mapped(docs, lambda doc: (doc["question"], [doc[f"choice{i}"] for i in range(5)], int(doc["label"])))
