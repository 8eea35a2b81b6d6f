"""Task files: YAML files of lm-evaluation-harness, those that come with phaselab and one's own.

The harness loads the data and renders each prompt; the result is a list of items, as the embedded
texts give them. What is wrong with a file is told with its line, what is wrong with an item with the
rule, the items and how many there are.

A file of one's own, for questions in ``questions.jsonl`` beside it (an object a line, with question,
choices and answer, the right choice's number from 0)::

    task: my_questions
    dataset_path: json
    dataset_kwargs: {data_files: {test: questions.jsonl}}
    test_split: test
    output_type: multiple_choice
    doc_to_text: "{{question}}\\n{% for c in choices %}{{'ABCD'[loop.index0]}}. {{c}}\\n{% endfor %}Answer:"
    doc_to_choice: "{{ 'ABCD'[:choices|length] | list }}"
    doc_to_target: answer
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from phaselab.errors import PhaselabError
from phaselab.study import digest_of
from phaselab.texts.base import Item

#: Bad items named in an error; the others are counted.
NAMED = 5
SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")


class TaskError(PhaselabError):
    """A task that cannot be scored; the message names the file and line, or the task and the items."""


def library() -> dict[str, Path]:
    """Name -> file of the tasks that come with phaselab."""
    folder = Path(__file__).with_name("library")
    return {p.stem: p for p in sorted(folder.glob("*.yaml")) if not p.name.startswith("_")}


def digest(path: Path, data: Mapping[str, Path]) -> str:
    """Digest of what the items of a task file depend on: the file, what it includes, local data.

    Data of a hub are in it by name alone.
    """
    fields, files = _read(path)
    texts = [p.read_bytes() for p in [*files, *(Path(p) for p in data.values())]]
    local = [p.read_bytes() for p in _local_files(fields, path).values() if not data and p.is_file()]
    return digest_of([zlib.crc32(t) for t in texts + local])


def load_items(
    path: Path,
    n: int | None = None,
    seed: int = 0,
    shots: int = 0,
    permute: bool = False,
    data: Mapping[str, Path] | None = None,
) -> list[Item]:
    """The items of a task file.

    Parameters
    ----------
    path : the YAML file.
    n : so many of them, drawn with `seed`; all of them for None or when there are no more.
    shots : examples before each question, 0 to 5: the first of the file's ``fewshot_split``; where it has
        none, the first of the questions, which are then not asked.
    permute : list each item's choices in an order drawn with `seed`; needs the columns ``choices`` and
        ``answer`` (a number).
    data : split -> JSON file to read in place of what the file names, for machines without a hub.

    Raises
    ------
    TaskError
        Naming the file, the line and the harness's rule; or the rule that items break, the items, and
        how many they are.
    """
    from phaselab.behaviour.score import quiet

    path = Path(path)
    fields, _ = _read(path)
    _check_fields(path, fields)
    if not 0 <= shots <= 5:
        raise TaskError(f"{path}: shots: found {shots}, expected 0 to 5")
    with tempfile.TemporaryDirectory(prefix="phaselab-tasks-") as folder, _told(path, fields):
        task = _build(path, fields, Path(folder), data or {}, shots)
        split = next(v for k, v in _present(fields) if k != "fewshot_split")
        with quiet():
            docs = [dict(doc) for doc in task.eval_docs]
        lines = _lines(_files(path, fields, data or {}), split)
        # Without examples of its own the task gives its first questions, which are then not asked.
        first = (
            shots
            if fields.get("fewshot_split") in (None, split) and not fields.get("fewshot_config", {}).get("samples")
            else 0
        )
        chosen = np.arange(first, len(docs))
        if n is not None and n < len(chosen):
            chosen = np.sort(np.random.default_rng([seed, 17]).choice(chosen, n, replace=False))
        language = str((fields.get("metadata") or {}).get("language", "en"))
        items, bad = [], []
        for i in chosen.tolist():
            doc = _permuted(docs[i], seed, i) if permute else docs[i]
            made = _item(task, doc, f"{fields['task']}-{i}", shots, language)
            if isinstance(made, str):
                bad.append((made, f"{i + 1} (line {lines[i]})" if i < len(lines) else f"{i + 1}"))
            else:
                items.append(made)
    if bad:
        raise TaskError(f"{path}: " + _count(bad, len(chosen)))
    if not items:
        raise TaskError(f"{path}: found no items in split {split!r}, expected at least one")
    return items


def validate(path: Path, data: Mapping[str, Path] | None = None) -> list[Item]:
    """All items of a task file; raises TaskError for a file or items that cannot be used."""
    from phaselab.behaviour.score import check_items

    items = load_items(path, data=data)
    check_items(str(path), items)
    return items


# --- The file ----------------------------------------------------------------------------------------


class _Fields(dict[str, Any]):
    """Fields of a file with what it includes; ``at`` tells where each stands."""

    def __init__(self) -> None:
        super().__init__()
        self.at: dict[str, str] = {}


class _Loader(yaml.SafeLoader):
    """Functions of the harness stay names: a file is read here without running anything."""


_Loader.add_constructor("!function", lambda _, node: str(node.value))


def _read(path: Path, seen: tuple[Path, ...] = ()) -> tuple[_Fields, list[Path]]:
    """Fields of a YAML file, included ones too, and all files that were read."""
    path = Path(path)
    if not path.is_file():
        raise TaskError(f"{path}: not there, expected a YAML file of lm-evaluation-harness")
    if path.resolve() in seen:
        raise TaskError(f"{path}: include: the file includes itself")
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        content = loader.construct_document(node) if node else None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else f"{path}"
        raise TaskError(f"{where}: not YAML: {getattr(error, 'problem', None) or error}") from error
    except UnicodeDecodeError as error:
        raise TaskError(f"{path}: not UTF-8: {error}") from error
    if not isinstance(content, dict) or node is None:
        raise TaskError(f"{path}:1: found {type(content).__name__}, expected a mapping of fields")
    fields, files = _Fields(), [path]
    included = content.pop("include", [])
    for name in included if isinstance(included, list) else [included]:
        inner, more = _read(path.parent / name, (*seen, path.resolve()))
        fields |= inner
        fields.at |= inner.at
        files += more
    fields |= content
    fields.at |= {key.value: f"{path}:{key.start_mark.line + 1}" for key, _ in node.value}
    return fields, files


def _check_fields(path: Path, fields: _Fields) -> None:
    """The harness's own rules that can be told from the file alone, each with its line."""
    from jinja2 import TemplateSyntaxError
    from lm_eval.config.task import TaskConfig
    from lm_eval.utils import env

    wrong = []
    known = {f.name for f in dataclasses.fields(TaskConfig)}
    for name in fields:
        if name not in known:
            wrong.append(f"{fields.at[name]}: {name}: no field of a task of lm-evaluation-harness")
    for name in ("task", "dataset_path", "doc_to_text", "doc_to_choice", "doc_to_target"):
        if name not in fields:
            wrong.append(f"{path}:1: {name}: missing; a multiple-choice task needs it")
    if not any(name != "fewshot_split" for name, _ in _present(fields)):
        wrong.append(f"{path}:1: test_split or validation_split: missing; expected the split to ask")
    for name, only in (("output_type", "multiple_choice"), ("target_delimiter", " ")):
        # The harness's own default of the delimiter is the space; that of the type is not ours.
        if (found := fields.get(name, " " if name == "target_delimiter" else None)) != only:
            where = fields.at.get(name, f"{path}:1")
            wrong.append(f"{where}: {name}: found {found!r}, expected {only!r}")
    for name in ("doc_to_text", "doc_to_choice", "doc_to_target", "description"):
        if isinstance(template := fields.get(name), str):
            try:
                env.from_string(template)
            except TemplateSyntaxError as error:
                wrong.append(f"{fields.at[name]}: {name}: not a template of Jinja: {error.message}")
    if wrong:
        raise TaskError("\n  ".join(wrong))


def _present(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The splits that the file names, in the order in which the harness prefers them."""
    order = ("test_split", "validation_split", "fewshot_split")
    return [(name, str(fields[name])) for name in order if fields.get(name)]


def _local_files(fields: Mapping[str, Any], path: Path) -> dict[str, Path]:
    """Split -> file beside the task file, where it names one for each split."""
    files = (fields.get("dataset_kwargs") or {}).get("data_files") or {}
    if not isinstance(files, Mapping):
        return {}
    return {split: (path.parent / name) for split, name in files.items() if isinstance(name, str)}


def _files(path: Path, fields: Mapping[str, Any], data: Mapping[str, Path]) -> dict[str, Path]:
    return {split: Path(p) for split, p in data.items()} or _local_files(fields, path)


@contextlib.contextmanager
def _told(path: Path, fields: _Fields) -> Iterator[None]:
    """What the harness raises, as a TaskError with its words and the field that it is about, if it says."""
    try:
        yield
    except TaskError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:500]
        about = next((name for name in fields if name in said), None)
        where = fields.at[about] if about else f"{path}"
        raise TaskError(f"{where}: lm-evaluation-harness: {type(error).__name__}: {said}") from error


# --- The data and the items --------------------------------------------------------------------------


def _build(path: Path, fields: _Fields, folder: Path, data: Mapping[str, Path], shots: int) -> Any:
    """The harness's task."""
    from lm_eval.tasks import TaskManager

    from phaselab.behaviour.score import quiet

    config: dict[str, Any] = {"include": str(path.resolve()), "task": str(fields["task"])}
    files = _files(path, fields, data)
    if files:
        for split, file in files.items():
            if not file.is_file():
                where = fields.at.get("dataset_kwargs", f"{path}") if not data else f"{path}"
                raise TaskError(f"{where}: data of split {split!r}: {file} is not there")
            _check_json(file)
        config |= {
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {
                "data_files": {split: str(file.resolve()) for split, file in files.items()},
                "cache_dir": str(folder / "cache"),
                "keep_in_memory": True,
            },
        }
        # Examples that nobody asks for need not be there.
        own = fields.get("fewshot_split")
        if own and own not in files:
            if shots:
                raise TaskError(f"{path}: data: found splits {', '.join(files)}, expected {own!r} for examples")
            config |= {"fewshot_split": None}
    (folder / "task.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with quiet(), contextlib.redirect_stderr(io.StringIO()):
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        task = manager.load(config["task"])["tasks"][config["task"]]
    task.set_fewshot_seed(0)
    return task


def _check_json(file: Path) -> None:
    """Raise TaskError with the line at which a JSON file, or a file of JSON lines, cannot be read."""
    text = file.read_text(encoding="utf-8")
    if text.lstrip().startswith("["):
        try:
            json.loads(text)
        except ValueError as error:
            line = getattr(error, "lineno", 1)
            raise TaskError(f"{file}:{line}: not JSON: {getattr(error, 'msg', error)}") from error
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                found = json.loads(line)
            except ValueError as error:
                raise TaskError(f"{file}:{number}: not JSON: {getattr(error, 'msg', error)}") from error
            if not isinstance(found, dict):
                raise TaskError(f"{file}:{number}: found {type(found).__name__}, expected an object a line")


def _lines(files: Mapping[str, Path], split: str) -> list[int]:
    """Line of each item of a file of JSON lines; none for other files."""
    file = files.get(split)
    if file is None:
        return []
    text = file.read_text(encoding="utf-8")
    if text.lstrip().startswith("["):
        return []
    return [number for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def _permuted(doc: dict[str, Any], seed: int, index: int) -> dict[str, Any]:
    """The item with its choices in another order, which depends on `seed` and `index` alone."""
    choices, answer = doc.get("choices"), doc.get("answer")
    if not isinstance(choices, list) or not isinstance(answer, int):
        raise TaskError(f"permute: found columns {', '.join(doc)}, expected choices (a list) and answer (a number) too")
    if not 0 <= answer < len(choices):
        return doc
    order = np.random.default_rng([seed, 23, index]).permutation(len(choices)).tolist()
    return doc | {"choices": [choices[i] for i in order], "answer": order.index(answer)}


def _item(task: Any, doc: dict[str, Any], name: str, shots: int, language: str) -> Item | str:
    """The item, or the rule that it breaks."""
    options = task.doc_to_choice(doc)
    if not isinstance(options, list):
        return f"doc_to_choice: found {type(options).__name__}, expected a list"
    if len(options) < 2:
        return f"doc_to_choice: found {len(options)} options, expected at least 2"
    target = task.doc_to_target(doc)
    if isinstance(target, str) and target in options:
        target = options.index(target)
    if not isinstance(target, int) or isinstance(target, bool) or not 0 <= target < len(options):
        return "doc_to_target: answer outside the options"
    prompt = task.fewshot_context(doc, num_fewshot=shots)
    if not isinstance(prompt, str):
        return "doc_to_text: found several prompts, expected one"
    return Item(name, prompt, tuple(map(str, options)), target, str(doc.get("kind") or ""), language)


def _count(bad: list[tuple[str, str]], n: int) -> str:
    """One sentence a rule: how many items break it, and which."""
    told = []
    for rule in dict.fromkeys(rule for rule, _ in bad):
        items = [item for r, item in bad if r == rule]
        more = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
        told.append(f"{len(items)} of {n} items: {rule}: items {', '.join(items[:NAMED])}{more}")
    return "; ".join(told)
