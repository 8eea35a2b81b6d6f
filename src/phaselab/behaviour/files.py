r"""Task files: YAML files of lm-evaluation-harness, those that come with phaselab and one's own.

The right answer is an option's text or its number from 0: in a column of texts "2" is the option "2". What a model
knows is asked without listing the options: after ``doc_to_text`` rendered with an empty column ``choices`` (or after
the template ``alone`` of ``metadata``) come the texts of that column, or the options. Where they only name a letter, or
the question lists them all the same, it is not known. Where ``doc_to_text`` is empty, options are sentences of which
one is likelier, and none is asked for. For ``questions.jsonl`` (question, choices, answer from 0)::

    task: my_questions
    dataset_path: json
    dataset_kwargs: {data_files: {test: questions.jsonl}}
    test_split: test
    output_type: multiple_choice
    doc_to_text: "{{question}}\n{% for c in choices %}{{'ABCD'[loop.index0]}}. {{c}}\n{% endfor %}Answer:"
    doc_to_choice: "{{ 'ABCD'[:choices|length] | list }}"
    doc_to_target: answer
"""

import contextlib
import functools
import io
import json
import logging
import multiprocessing
import re
import resource
import signal
import tempfile
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from phaselab.behaviour.score import refuse
from phaselab.errors import PhaselabError, expect
from phaselab.files import Loader, home, parse_yaml, read_bytes, read_text, refuse_crowd
from phaselab.study import digest_of
from phaselab.texts.base import Item

logging.getLogger("lm_eval").setLevel(logging.ERROR)

#: Split -> file.
Data = Mapping[str, Path]
#: Seconds of computing, and bytes, that templates may take: of a file, and of each of its items.
SECONDS, BYTES = (4, 0.005), (2**28, 2**16)
#: What options are called in lists of them: such an option says nothing by itself.
LETTERS, NUMBERS = ("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "アイウエオカキクケコ"), ("1234567890", "0123456789")


def library() -> dict[str, Path]:
    """Name -> file of the tasks that come with phaselab."""
    folder = Path(__file__).with_name("library")
    return {p.stem: p for p in sorted(folder.glob("*.yaml")) if not p.name.startswith("_")}


def digest(path: Path, data: Data) -> str:
    """Digest of what the items of a task file depend on: the file, what it includes, local data (a hub's by name)."""
    task = read(path)
    for split, given in data.items():
        expect(Path(given).is_file(), f"{path}: data of split {split!r}", f"no file {given}", "one")
    local = [Path(p) for p in data.values()] or [p for p in task.data_files.values() if p.is_file()]
    return digest_of([zlib.crc32(read_bytes(p)) for p in [*task.files, *local]])


def load_items(
    path: Path,
    n: int | None = None,
    seed: int = 0,
    shots: int = 0,
    permute: bool = False,
    data: Data | None = None,
    trust: bool = False,
) -> list[Item]:
    """The items of a task file; errors name the file, the line and the harness's rule, or bad items and their rule.

    n : so many of them, drawn with `seed`; all of them for None or when there are no more.
    shots : examples, 0 to 5: the first of the file's ``fewshot_split``, or else questions, which are then not asked.
    permute : list each item's choices in an order drawn with `seed`; needs ``choices`` and ``answer`` (a number).
    data : split -> JSON file to read in place of what the file names, for machines without a hub.
    trust : whether functions that the file names (``!function``) may run; those of phaselab's own library do.
    """
    file = read(path)
    _sandbox()
    _check_fields(file)
    own = all(Path(__file__).with_name("library") in part.resolve().parents for part in file.files)
    for name, value in file.fields.items():
        code = ", ".join(part[0] for part in _inside(value) if isinstance(part, tuple))
        found, right = f"!function {code}, which is code that would run", "none, or trust_task_code: true for the file"
        expect(trust or own or not code, f"{file.at.get(name, path)}: {name}", found, right)
    expect(0 <= shots <= 5, f"{path}: shots", shots, "0 to 5")
    try:
        # The progress bars of data sets have no switch of their own.
        silence = contextlib.redirect_stderr(io.StringIO())
        with tempfile.TemporaryDirectory(prefix="phaselab-tasks-") as folder, silence:
            task, places = _build(file, Path(folder), data or {}, shots)
            docs = [dict(doc) for doc in task.eval_docs]
    except Exception as error:
        about = next((file.at[name] for name in file.fields if name in str(error)), f"{path}")
        raise _wrong(about, error) from error
    # Without examples of its own the task gives its first questions.
    shown = file.fields.get("fewshot_split") in (None, file.split)
    shown = shown and not (file.fields.get("fewshot_config") or {}).get("samples")
    chosen = np.arange(shots if shown else 0, len(docs))
    if n is not None and n < len(chosen):
        chosen = np.sort(np.random.default_rng([seed, 17]).choice(chosen, n, replace=False))

    def fill_in() -> tuple[list[Item], list[int], dict[str, list[str]], dict[str, str]]:
        items, counted, bad, first = list[Item](), list[int](), dict[str, list[str]](), dict[str, str]()
        for i in chosen.tolist():
            place = places[i] if len(places) == len(docs) else f"item {i + 1}"
            try:
                right, number = _right(task, docs[i])
                counted += [right] * number
                doc, right = _permuted(file, docs[i], right, seed, i) if permute else (docs[i], right)
                items.append(_item(task, doc, right, i, shots))
            except _Unusable as error:
                rule, found = error.args
                line = f" (line {place.rpartition(':')[2]})" if ":" in place else ""
                bad.setdefault(rule, []).append(f"{i + 1}{line}")
                first.setdefault(rule, f"{place}: found {found}")
        return items, counted, bad, first

    items, counted, bad, first = _limited(file, len(chosen), fill_in, trust)
    refuse(f"{path}", bad, len(chosen), first)
    expect(items, f"{path}", f"no items in split {file.split!r}", "at least one")
    if len({*counted}) > 1 and min(counted) > 0:
        told = f"answer 0 never occurs in {len(counted)} items, and answers are numbers from 0, not from 1"
        warnings.warn(f"{path}: {told}: the right options may be those before", stacklevel=2)
    return list[Item](items)


def _inside(value: Any) -> list[Any]:
    """A value and what it holds, however deep in it, each once: an alias of YAML may stand for it a billion times."""
    seen, found = {id(value)}, [value]
    for part in found:  # which grows meanwhile
        inside = part.values() if isinstance(part, Mapping) else part if isinstance(part, list) else ()
        for new in (new for new in inside if id(new) not in seen):
            seen.add(id(new))
            found.append(new)
    return found


def _sandbox() -> Any:
    """Have the harness fill in templates in Jinja's sandbox: a template can reach anything that Python can."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from lm_eval import utils

    class Sandbox(ImmutableSandboxedEnvironment):
        compiled = functools.lru_cache(ImmutableSandboxedEnvironment.from_string)  # else it would be for each item
        begun: Callable[[Any], object] = staticmethod(lambda source: None)

        def from_string(self, source: Any, *_: Any) -> Any:
            self.begun(source)
            return self.compiled(source)

    if not hasattr(given := utils.env, "begun"):
        how: dict[str, Any] = {"undefined": given.undefined, "keep_trailing_newline": given.keep_trailing_newline}
        utils.env = Sandbox(loader=given.loader, **how)
        utils.env.filters = given.filters
    return utils.env


class _Unusable(Exception):
    """An item that cannot be asked: the rule that it breaks, and what was found."""


class TaskFile(NamedTuple):
    """A task file with those that it includes."""

    path: Path
    fields: dict[str, Any]
    at: dict[str, str]  # file and line of each field
    files: list[Path]  # all that were read

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
    """Functions of the harness stay names, in a tuple: a file is read here without running anything."""


_Loader.add_constructor("!function", lambda _, node: (node.value,))


def read(path: Path, seen: set[Path] | None = None) -> TaskFile:
    """A YAML file and those that it includes, each once; an error has the line at which one cannot be read."""
    path, seen = home(path), set() if seen is None else seen
    expect(path.is_file(), f"{path}", "no file", "a YAML file of lm-evaluation-harness")
    few = path.resolve() not in seen and len(seen) < 100
    expect(few, f"{path}: include", "the file itself, one twice, or a hundred", "other files")
    seen.add(path.resolve())
    content, lines = parse_yaml(read_text(path), path, loader=_Loader)
    expect(isinstance(content, dict), f"{path}:1", type(content).__name__, "a mapping of fields")
    found = TaskFile(path, {}, {}, [path])
    included = content.pop("include", [])
    for name in included if isinstance(included, list) else [included]:
        expect(isinstance(name, str), f"{path}: include", repr(name), "the name of a file")
        inner = read(path.parent / name, seen)
        found.fields.update(inner.fields)
        found.at.update(inner.at)
        found.files.extend(inner.files)
    found.fields.update(content)
    found.at.update({field: f"{path}:{line}" for field, line in lines.items()})
    return found


def _check_fields(file: TaskFile) -> None:
    """The harness's own rules that can be told from the file alone, each with its line."""
    from lm_eval.config.task import TaskConfig

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
    if wrong:
        told = (f"{file.at.get(name, f'{file.path}:1')}: {name}: {said}" for name, said in wrong.items())
        raise PhaselabError("\n  ".join(told))


def _limited(file: TaskFile, items: int, work: Callable[[], Any], trust: bool) -> Any:
    """What `work` gives in a process that ends when templates take more than so many items need, unless it has `trust`.

    In a sandbox, too, one may compute for ever, and in C, where nothing but the end of the process stops it.
    """
    context = multiprocessing.get_context("fork")  # for a task cannot be sent
    (mine, theirs), at = context.Pipe(duplex=False), context.RawValue("i", -1)
    seconds, size = SECONDS[0] + items * SECONDS[1], BYTES[0] + items * BYTES[1]
    wheres = [*(f"{file.at[name]}: {name}" for name in file.fields), f"{file.path}"]  # the last one where it is of none
    of = {part: n for n, value in enumerate(file.fields.values()) for part in _inside(value) if isinstance(part, str)}

    def child() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the parent's to handle
        if not trust:
            signal.setitimer(signal.ITIMER_PROF, seconds)
            with contextlib.suppress(OSError, ValueError):  # where the system has no such limit
                there = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (there + size, resource.getrlimit(resource.RLIMIT_AS)[1]))
        _sandbox().begun = lambda template: setattr(at, "value", of.get(template, -1))
        try:
            theirs.send((work(), ""))
        except MemoryError:  # nothing is sent
            return
        except Exception as error:
            theirs.send((None, f"{_wrong(wheres[at.value], error)}"))

    process = context.Process(target=child)
    process.start()
    theirs.close()
    try:
        made, wrong = mine.recv()
    except EOFError:
        took = f"no end of it within {seconds:.3g} s of computing and {size >> 20} MiB of memory"
        made, wrong = None, f"{wheres[at.value]}: found {took}, expected a template that takes less"
    finally:
        process.kill()
        process.join()
    if wrong:
        raise PhaselabError(wrong)
    return made


def _wrong(where: str, error: Exception) -> PhaselabError:
    """The error that is raised for one of the harness, about a field; one of ours as it is."""
    said = f"lm-evaluation-harness: {type(error).__name__}: {' '.join(str(error).split())[:500]}"
    return error if isinstance(error, PhaselabError) else PhaselabError(f"{where}: {said}")


def _build(file: TaskFile, folder: Path, data: Data, shots: int) -> tuple[Any, list[str]]:
    """The harness's task, and the place of each item where the data are a file."""
    from lm_eval.tasks import TaskManager

    config: dict[str, Any] = {"include": str(file.path.resolve()), "task": str(file.fields["task"])}
    config["metric_list"] = [{"metric": "acc"}]  # of a name that it lacks, the harness would run a script, or a hub's
    config["filter_list"] = None  # which is of answers that are written
    # Drawn at random, as the harness does, a question could be shown with its answer before it is asked.
    config["fewshot_config"] = (file.fields.get("fewshot_config") or {}) | {"sampler": "first_n"}
    # The harness tries the first item, and what it says of that names no item: it gets these only afterwards.
    neutral = {"doc_to_text": "-", "doc_to_choice": ["-"], "doc_to_target": 0}
    held = {name: file.fields[name] for name in neutral if not isinstance(file.fields[name], tuple)}
    config |= {name: neutral[name] for name in held}
    files = {split: Path(p) for split, p in data.items()} or file.data_files
    where = f"{file.path}" if data else file.at.get("dataset_kwargs", f"{file.path}")
    elsewhere = (file.fields.get("dataset_kwargs") or {}).get("data_files") or file.fields["dataset_path"] != "json"
    asked = file.split in files or (elsewhere and not files)
    expect(asked, f"{where}: data", ", ".join(files) or "none", f"split {file.split!r}, which is asked")
    docs = {split: _docs(path, f"{where}: data of split {split!r}") for split, path in files.items()}
    if files:
        data_files = {split: str(folder / f"{number}.jsonl") for number, split in enumerate(files)}
        for split, plain in data_files.items():  # each a line, whatever separators and marks the file has
            Path(plain).write_text("".join(f"{json.dumps(doc)}\n" for doc in docs[split].values()), encoding="ascii")
        kwargs = {"data_files": data_files, "cache_dir": str(folder / "cache"), "keep_in_memory": True}
        config |= {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": kwargs}
        # Examples that nobody asks for need not be there.
        if (own := file.fields.get("fewshot_split")) and own not in files:
            expect(not shots, f"{file.path}: data", f"splits {', '.join(files)}", f"{own!r} for examples")
            config["fewshot_split"] = None
    (folder / "task.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    task = manager.load(config["task"])["tasks"][config["task"]]
    task.set_fewshot_seed(0)
    for name, given in held.items():
        setattr(task.config, name, given)
        if getattr(task.fewshot_cfg, name) == neutral[name]:  # examples, read by the same rule
            setattr(task.fewshot_cfg, name, (lambda doc: _right(task, doc)[0]) if name == "doc_to_target" else given)
    return task, list(docs.get(str(file.split), {}))


def _docs(path: Path, where: str) -> dict[str, dict[str, Any]]:
    """Place (file and line, or number in an array) -> item of JSON lines or an array; an error names a wrong one."""
    expect(path.is_file(), f"{where}: {path} is not there", "no file", "JSON lines, or an array")
    refuse_crowd(text := read_text(path), path, marks="[{,\n")
    array = text.lstrip().startswith("[")
    # Not splitlines: JSON texts may hold separators of lines other than this one.
    lines = [(1, text)] if array else [(i, s) for i, s in enumerate(text.split("\n"), 1) if s.strip()]
    docs, kinds = dict[str, Any](), dict[str, tuple[str, str]]()
    for number, line in lines:
        try:
            read = json.loads(line)
        except json.JSONDecodeError as error:
            raise PhaselabError(f"{path}:{number + error.lineno - 1}: not JSON: {error.msg}") from error
        docs |= {f"{path}, item {i}": doc for i, doc in enumerate(read, 1)} if array else {f"{path}:{number}": read}
    expect(docs, f"{path}", "no items", "an object a line")
    for place, doc in docs.items():
        expect(isinstance(doc, dict), place, type(doc).__name__, "an object a line")
        for column, value in doc.items():
            kind = "number" if type(value) in (int, float) else type(value).__name__
            before, of = kinds.setdefault(column, (kind, place)) if value is not None else (kind, place)
            expect(kind == before, f"{place}: {column}", f"a {kind} ({value!r:.80})", f"a {before} as {of}")
    return docs


def _permuted(file: TaskFile, doc: dict[str, Any], right: int, seed: int, index: int) -> tuple[dict[str, Any], int]:
    """The item with its choices in another order, which depends on `seed` and `index` alone, and the right one's."""
    choices: Any = doc.get("choices")
    numbered = isinstance(choices, list) and type(doc.get("answer")) is int and doc["answer"] == right
    expect(numbered, f"{file.path}: permute", f"columns {', '.join(doc)}", "choices (a list), answer (a number) too")
    order = np.random.default_rng([seed, 23, index]).permutation(len(choices)).tolist()
    return doc | {"choices": [choices[i] for i in order], "answer": order.index(right)}, order.index(right)


def _options(task: Any, doc: dict[str, Any]) -> tuple[str, ...]:
    options = task.doc_to_choice(doc)
    known = isinstance(options, list) and all(isinstance(o, str | int | float) and o == o for o in options)
    texts = tuple(map(str, options)) if known else ()
    if len(texts) < 2 or len(set(texts)) < len(texts) or not all(o and o == o.strip() for o in texts):
        rule = "doc_to_choice: expected a list of at least two different options without white space around them"
        raise _Unusable(rule, f"{options!r:.200}")
    return texts


def _right(task: Any, doc: dict[str, Any]) -> tuple[int, bool]:
    """The right option's number, and whether the answer was read as a number."""
    options, target = _options(task, doc), f"{task.config.doc_to_target}"
    column = re.fullmatch(r"({{\s*)?(\w+)(?(1)\s*}})", target.strip())
    answer = doc[column[2]] if column and column[2] in doc else task.doc_to_target(doc)
    is_text, number = isinstance(answer, str) and answer in options, answer
    if isinstance(answer, str):  # of a template the harness reads digits as a number
        number = int(answer) if column and column[1] and answer.isdecimal() else None
    readings = [options.index(f"{answer}")] if is_text or (type(answer) is int and f"{answer}" in options) else []
    readings += [number] if type(number) is int and 0 <= number < len(options) and not is_text else []
    if not readings:
        hint = " (counted from 1?)" if number == len(options) else ""
        found = f"{answer!r:.80}{hint} of {', '.join(options):.200}"
        raise _Unusable("doc_to_target: answer outside the options", found)
    if len({*readings}) > 1:
        both = " by its text, ".join(repr(options[i]) for i in readings)
        rule = "doc_to_target: expected a text, or a number that is no option's text"
        raise _Unusable(rule, f"{answer!r}: {both} by its number")
    return readings[0], not is_text and len(readings) == 1 and number == readings[0]


def _item(task: Any, doc: dict[str, Any], right: int, index: int, shots: int) -> Item:
    options, prompt = _options(task, doc), task.fewshot_context(doc, num_fewshot=shots)
    if nulls := {name: "" for name, value in doc.items() if value is None}:
        shown, blank = (f"{task.doc_to_text(of)}".count("None") for of in (doc, doc | nulls))
        if shown > blank:
            raise _Unusable("doc_to_text: expected a value in what it shows", f"none in {', '.join(nulls)}")
    silent = task.config.doc_to_text == ""
    if not isinstance(prompt, str) or not (prompt or silent) or prompt != prompt.rstrip():
        raise _Unusable("doc_to_text: expected one prompt that does not end in white space", f"{prompt!r:.200}")
    told, alone = task.config.metadata or {}, _alone(task, doc, options)
    language, kind = str(told.get("language", "en")), str(doc.get(told.get("kind", "kind")) or "")
    return Item(f"{task.config.task}-{index}", prompt, options, right, kind, language, *alone, form=not silent)


def _alone(task: Any, doc: dict[str, Any], options: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The question without its options, and what these say where it is something else; ("", ()) where not known."""
    from jinja2 import TemplateError
    from lm_eval.utils import apply_template

    column: Any = doc.get("choices")
    empty: Any = {key: [] for key in column} if isinstance(column, dict) else []
    column = column.get("text") if isinstance(column, dict) else column
    own = isinstance(column, list) and len(column) == len(options)
    choices = tuple(str(choice).strip() for choice in column) if own else options
    names = "".join(re.sub(r"\W", "", choice) for choice in choices).upper()
    named = len(names) == len(choices) and any(of.startswith(names) for of in (LETTERS if own else LETTERS + NUMBERS))
    if named or len({*choices} - {""}) < len(options):
        return "", ()
    if template := (task.config.metadata or {}).get("alone"):
        alone, asked = apply_template(template, doc), ""
    else:
        asked = task.doc_to_text(doc)
        try:
            alone = task.doc_to_text(doc | {"choices": empty}) if own else asked
        except (TemplateError, LookupError, TypeError):  # a template that needs its choices
            return "", ()
    # A passage may have all options in it; a question that is the same without `choices` may list them.
    if alone == asked and all(re.search(rf"(?<!\w){re.escape(choice)}(?!\w)", f"{alone}") for choice in choices):
        return "", ()
    return f"{alone}".rstrip(), choices if choices != options else ()
