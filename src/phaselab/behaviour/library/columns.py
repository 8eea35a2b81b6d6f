"""From the columns in which data sets are published to question, choices, answer (its number) and kind.

Used by the YAML files of this folder (``process_docs``). An answer that is none of the choices is -1, and told later.
"""

from collections.abc import Callable
from typing import Any


def _of_docs(question: str, choices: tuple[str, ...], answer: str, *labels: str) -> Callable[[Any], Any]:
    """A function of a data set: `question` is a text with columns in braces, `choices` one column or one for each.

    The column `answer` has a letter of one of `labels`, the choices' in order, or one that the choices bring with them.
    """

    def one(doc: dict[str, Any]) -> dict[str, Any]:
        listed: Any = [doc[column] for column in choices if column in doc]
        names = [*map(list, labels)]
        listed = listed[0] if listed and isinstance(listed[0], (list, dict)) else listed
        if isinstance(listed, dict):
            listed, names = listed["text"], [listed["label"]]
        right, kind = str(doc[answer]), doc.get("subject") or ""
        number = next((of.index(right) for of in names if right in of), -1)
        return {"question": question.format(**doc), "choices": list(map(str, listed)), "answer": number, "kind": kind}

    # A column may change its type on the way, as ARC's choices do, so none is kept.
    return lambda docs: docs.map(one, remove_columns=docs.column_names, load_from_cache_file=False)


#: MMLU and JMMLU have the choices in a list or in columns A to D, and the answer's number or letter.
mmlu = _of_docs("{question}", ("choices", *"ABCD"), "answer", "0123456789", "ABCDEFGHIJ")
hellaswag = _of_docs("{activity_label}: {ctx} ...", ("endings",), "label", "0123")
winogrande = _of_docs("{sentence}\nWhat belongs in the blank?", ("option1", "option2"), "answer", "12")
#: CommonsenseQA and ARC: choices are {text, label}, with labels A to E or 1 to 5.
labelled = _of_docs("{question}", ("choices",), "answerKey")
piqa = _of_docs("{goal}", ("sol1", "sol2"), "label", "01")
jcommonsenseqa = _of_docs("{question}", tuple(f"choice{i}" for i in range(5)), "label", "01234")
