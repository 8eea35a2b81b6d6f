r"""Task files: YAML files of lm-evaluation-harness, those that come with phaselab and one's own.

The harness loads the data and renders each prompt; the result is a list of items, as the embedded texts give them.
What is wrong with a file is told with its line, what is wrong with items with the rule, the items and how many.

A file of one's own, for questions in ``questions.jsonl`` beside it (an object a line, with question, choices and
answer, the right choice's number from 0)::

    task: my_questions
    dataset_path: json
    dataset_kwargs: {data_files: {test: questions.jsonl}}
    test_split: test
    output_type: multiple_choice
    doc_to_text: "{{question}}\n{% for c in choices %}{{'ABCD'[loop.index0]}}. {{c}}\n{% endfor %}Answer:"
    doc_to_choice: "{{ 'ABCD'[:choices|length] | list }}"
    doc_to_target: answer
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from phaselab.behaviour.score import TaskError
from phaselab.errors import expect
from phaselab.files import Loader, home, parse_yaml, read_text
from phaselab.study import digest_of
from phaselab.texts.base import Item

#: Split -> file.
Data = Mapping[str, Path]


def library() -> dict[str, Path]:
    """Name -> file of the tasks that come with phaselab."""
    folder = Path(__file__).with_name("library")
    return {p.stem: p for p in sorted(folder.glob("*.yaml")) if not p.name.startswith("_")}


def digest(path: Path, data: Data) -> str:
    """Digest of what the items of a task file depend on: the file, what it includes, local data (a hub's by name)."""
    task = read(path)
    local = [Path(p) for p in data.values()] or [p for p in task.data_files.values() if p.is_file()]
    return digest_of([zlib.crc32(p.read_bytes()) for p in [*task.files, *local]])


def load_items(
    path: Path, n: int | None = None, seed: int = 0, shots: int = 0, permute: bool = False, data: Data | None = None
) -> list[Item]:
    """The items of a task file; TaskError names the file, the line and the harness's rule, or bad items and their rule.

    n : so many of them, drawn with `seed`; all of them for None or when there are no more.
    shots : examples before each question, 0 to 5: the first of the file's ``fewshot_split``; where it has none, the
        first of the questions, which are then not asked.
    permute : list each item's choices in an order drawn with `seed`; needs ``choices`` and ``answer`` (a number).
    data : split -> JSON file to read in place of what the file names, for machines without a hub.
    """
    file = read(path)
    _check_fields(file)
    expect(0 <= shots <= 5, f"{path}: shots", shots, "0 to 5", TaskError)
    items, bad = [], dict[str, list[str]]()
    # The progress bars of data sets have no switch of their own.
    silence = contextlib.redirect_stderr(io.StringIO())
    try:
        with tempfile.TemporaryDirectory(prefix="phaselab-tasks-") as folder, silence:
            task, lines = _build(file, Path(folder), data or {}, shots)
            docs = [dict(doc) for doc in task.eval_docs]
            # Without examples of its own the task gives its first questions.
            shown = file.fields.get("fewshot_split") in (None, file.split)
            shown = shown and not (file.fields.get("fewshot_config") or {}).get("samples")
            chosen = np.arange(shots if shown else 0, len(docs))
            if n is not None and n < len(chosen):
                chosen = np.sort(np.random.default_rng([seed, 17]).choice(chosen, n, replace=False))
            for i in chosen.tolist():
                doc = _permuted(docs[i], seed, i) if permute else docs[i]
                if isinstance(made := _item(task, doc, i, shots), Item):
                    items.append(made)
                else:
                    bad.setdefault(made, []).append(f"{i + 1} (line {lines[i]})" if i < len(lines) else f"{i + 1}")
    except TaskError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:500]
        where = next((file.at[name] for name in file.fields if name in said), f"{path}")  # the field that it is about
        raise TaskError(f"{where}: lm-evaluation-harness: {type(error).__name__}: {said}") from error
    if bad:
        told = (
            f"{len(of)} of {len(chosen)} items: {rule}: items {', '.join(of[:5])}{' ...' if len(of) > 5 else ''}"
            for rule, of in bad.items()
        )
        raise TaskError(f"{path}: {'; '.join(told)}")
    expect(items, f"{path}", f"no items in split {file.split!r}", "at least one", TaskError)
    return items


class TaskFile(NamedTuple):
    """A task file: its fields with those that it includes, where each stands, and all files that were read."""

    path: Path
    fields: dict[str, Any]
    at: dict[str, str]
    files: list[Path]

    @property
    def split(self) -> str | None:
        """The split that is asked: the one that the harness prefers."""
        return self.fields.get("test_split") or self.fields.get("validation_split")

    @property
    def data_files(self) -> dict[str, Path]:
        """Split -> file beside the task file, where it names one for each split."""
        named = (self.fields.get("dataset_kwargs") or {}).get("data_files")
        named = named if isinstance(named, Mapping) else {}
        return {split: self.path.parent / home(name) for split, name in named.items() if isinstance(name, str)}


class _Loader(Loader):
    """Functions of the harness stay names: a file is read here without running anything."""


_Loader.add_constructor("!function", lambda _, node: str(node.value))


def read(path: Path, seen: tuple[Path, ...] = ()) -> TaskFile:
    """A YAML file and those that it includes; raises TaskError with the line at which one cannot be read."""
    path = home(path)
    expect(path.is_file(), f"{path}", "no file", "a YAML file of lm-evaluation-harness", TaskError)
    expect(path.resolve() not in seen, f"{path}: include", "the file itself", "other files", TaskError)
    content, lines = parse_yaml(read_text(path, TaskError), path, TaskError, _Loader)
    expect(isinstance(content, dict), f"{path}:1", type(content).__name__, "a mapping of fields", TaskError)
    found = TaskFile(path, {}, {}, [path])
    included = content.pop("include", [])
    for name in included if isinstance(included, list) else [included]:
        inner = read(path.parent / name, (*seen, path.resolve()))
        found.fields.update(inner.fields)
        found.at.update(inner.at)
        found.files.extend(inner.files)
    found.fields.update(content)
    found.at.update({field: f"{path}:{line}" for field, line in lines.items()})
    return found


def _check_fields(file: TaskFile) -> None:
    """The harness's own rules that can be told from the file alone, each with its line."""
    from jinja2 import TemplateSyntaxError
    from lm_eval.config.task import TaskConfig
    from lm_eval.utils import env

    fields, known = file.fields, TaskConfig.__dataclass_fields__
    templates, needed = ("doc_to_text", "doc_to_choice", "doc_to_target"), ("task", "dataset_path")
    wrong = {name: "no field of a task of lm-evaluation-harness" for name in fields if name not in known}
    wrong |= {n: "missing; a multiple-choice task needs it" for n in (*needed, *templates) if n not in fields}
    if not file.split:
        wrong["test_split or validation_split"] = "missing; expected the split to ask"
    # The harness's own default of the delimiter is the space; that of the type is not ours.
    for name, default, only in (("output_type", None, "multiple_choice"), ("target_delimiter", " ", " ")):
        if (found := fields.get(name, default)) != only:
            wrong[name] = f"found {found!r}, expected {only!r}"
    for name in (*templates, "description"):
        try:
            env.from_string(text if isinstance(text := fields.get(name), str) else "")
        except TemplateSyntaxError as error:
            wrong[name] = f"not a template of Jinja: {error.message}"
    if wrong:
        told = (f"{file.at.get(name, f'{file.path}:1')}: {name}: {said}" for name, said in wrong.items())
        raise TaskError("\n  ".join(told))


def _build(file: TaskFile, folder: Path, data: Data, shots: int) -> tuple[Any, list[int]]:
    """The harness's task, and the line of each item where the data are JSON lines."""
    from lm_eval.tasks import TaskManager

    config: dict[str, Any] = {"include": str(file.path.resolve()), "task": str(file.fields["task"])}
    # Drawn at random, as the harness does, a question could be shown with its answer before it is asked.
    config["fewshot_config"] = (file.fields.get("fewshot_config") or {}) | {"sampler": "first_n"}
    files = {split: Path(p) for split, p in data.items()} or file.data_files
    where = f"{file.path}" if data else file.at.get("dataset_kwargs")
    lines = {split: _lines(path, f"{where}: data of split {split!r}") for split, path in files.items()}
    if files:
        data_files = {split: str(path.resolve()) for split, path in files.items()}
        kwargs = {"data_files": data_files, "cache_dir": str(folder / "cache"), "keep_in_memory": True}
        config |= {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": kwargs}
        # Examples that nobody asks for need not be there.
        if (own := file.fields.get("fewshot_split")) and own not in files:
            expect(not shots, f"{file.path}: data", f"splits {', '.join(files)}", f"{own!r} for examples", TaskError)
            config["fewshot_split"] = None
    (folder / "task.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    task = manager.load(config["task"])["tasks"][config["task"]]
    task.set_fewshot_seed(0)
    return task, lines.get(str(file.split), [])


def _lines(path: Path, where: str) -> list[int]:
    """Line of each item of a file of JSON lines, none for one array; TaskError with the line that is neither."""
    if not path.is_file():
        raise TaskError(f"{where}: {path} is not there")
    text = read_text(path, TaskError)
    array = text.lstrip().startswith("[")
    # Not splitlines: JSON texts may hold separators of lines other than this one.
    lines = [(1, text)] if array else [(i, s) for i, s in enumerate(text.split("\n"), 1) if s.strip()]
    for number, line in lines:
        try:
            kind = type(json.loads(line)).__name__
        except json.JSONDecodeError as error:
            raise TaskError(f"{path}:{number + error.lineno - 1}: not JSON: {error.msg}") from error
        expect(array or kind == "dict", f"{path}:{number}", kind, "an object a line", TaskError)
    return [] if array else [number for number, _ in lines]


def _permuted(doc: dict[str, Any], seed: int, index: int) -> dict[str, Any]:
    """The item with its choices in another order, which depends on `seed` and `index` alone."""
    choices, answer = doc.get("choices"), doc.get("answer")
    if not isinstance(choices, list) or not isinstance(answer, int):
        raise TaskError(f"permute: found columns {', '.join(doc)}, expected choices (a list) and answer (a number) too")
    order = np.random.default_rng([seed, 23, index]).permutation(len(choices)).tolist()
    return doc | {"choices": [choices[i] for i in order], "answer": order.index(answer) if answer in order else -1}


def _item(task: Any, doc: dict[str, Any], index: int, shots: int) -> Item | str:
    """The item, or the rule that it breaks."""
    options, target = task.doc_to_choice(doc), task.doc_to_target(doc)
    texts = tuple(map(str, options)) if isinstance(options, list) else ()
    if len(texts) < 2 or len(set(texts)) < len(texts) or not all(o and o == o.strip() for o in texts):
        return "doc_to_choice: expected a list of at least two different options without white space around them"
    if isinstance(target, str) and target in options:
        target = options.index(target)
    if type(target) is not int or not 0 <= target < len(options):
        return "doc_to_target: answer outside the options"
    prompt = task.fewshot_context(doc, num_fewshot=shots)
    if not isinstance(prompt, str) or not prompt or prompt != prompt.rstrip():
        return "doc_to_text: expected one prompt that does not end in white space"
    language, kind = str((task.config.metadata or {}).get("language", "en")), str(doc.get("kind") or "")
    return Item(f"{task.config.task}-{index}", prompt, texts, target, kind, language)
