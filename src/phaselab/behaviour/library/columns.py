"""From the columns in which data sets are published to question, choices, answer and kind.

Used by the YAML files of this folder (``process_docs``). ``answer`` is the number of the right choice, -1 where the
published answer is none of the choices, which is found and told when items are made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Doc = dict[str, Any]
Asked = tuple[str, list[str], int]


def _of_docs(to: Callable[[Doc], Asked]) -> Callable[[Any], Any]:
    """A function of one item, as one of the whole data set."""

    def one(doc: Doc) -> Doc:
        question, choices, answer = to(doc)
        return {"question": question, "choices": choices, "answer": answer, "kind": doc.get("subject") or ""}

    # A column may change its type on the way, as ARC's choices do, so none is kept.
    return lambda docs: docs.map(one, remove_columns=docs.column_names, load_from_cache_file=False)


def _number(names: list[str], name: object) -> int:
    return names.index(str(name)) if str(name) in names else -1


@_of_docs
def mmlu(doc: Doc) -> Asked:
    """MMLU and JMMLU: question, choices and the answer's number, or columns A to D and its letter."""
    choices = doc["choices"] if "choices" in doc else [str(doc[letter]) for letter in "ABCD"]
    answer = doc["answer"]
    return doc["question"], choices, answer if isinstance(answer, int) else _number(list("ABCD"), answer)


@_of_docs
def hellaswag(doc: Doc) -> Asked:
    """HellaSwag: activity_label, ctx, endings and label, the right ending's number as a text."""
    number = _number([str(i) for i in range(len(doc["endings"]))], doc["label"])
    return f"{doc['activity_label']}: {doc['ctx']} ...", doc["endings"], number


@_of_docs
def winogrande(doc: Doc) -> Asked:
    """WinoGrande: sentence with a blank, option1, option2 and answer, "1" or "2"."""
    question = f"{doc['sentence']}\nWhat belongs in the blank?"
    return question, [doc["option1"], doc["option2"]], _number(["1", "2"], doc["answer"])


#: CommonsenseQA and ARC: choices {text, label} and answerKey, one of the labels (A to E, or 1 to 5).
labelled = _of_docs(lambda d: (d["question"], d["choices"]["text"], _number(d["choices"]["label"], d["answerKey"])))
#: PIQA: goal, sol1, sol2 and label, 0 or 1.
piqa = _of_docs(lambda d: (d["goal"], [d["sol1"], d["sol2"]], int(d["label"])))
#: JCommonsenseQA: question, choice0 to choice4 and label, 0 to 4.
jcommonsenseqa = _of_docs(lambda d: (d["question"], [d[f"choice{i}"] for i in range(5)], int(d["label"])))
