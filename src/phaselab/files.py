"""Files that others wrote: one reader of text and one of YAML. What is wrong is told with the file and the line."""

import json
import os
import re
from pathlib import Path
from typing import Any

import yaml

from phaselab.errors import STEERS, PhaselabError, expect

Error = type[PhaselabError]
#: How a file begins that only stands for another one, which Git LFS or git-annex have not fetched.
POINTERS = (b"version https://git-lfs.github.com/", b"/annex/objects/")
#: Bytes of a text or a table, which are read at once, and characters of YAML, of which a second takes 100,000, at most.
MOST, MOST_YAML = 2**27, 2**18
#: Values of JSON, and cells of a table, at most: in memory the shortest take thirty times what they do in a file.
MOST_VALUES, MOST_CELLS = 2**22, 2**25
#: Where notebooks, sources of the book and published tables are: in the package (of a wheel), or the checkout.
BOOK = own if (own := Path(__file__).with_name("_book")).is_dir() else Path(__file__).parents[2]


def home(path: str | Path) -> Path:
    """The path; a ``~`` at its beginning is the home folder, as in a shell."""
    return Path(os.path.expanduser(path))


def shipped(path: str | Path) -> Path:
    """The path, of what lies in ``BOOK`` if it is not here: ``book/data``, ``notebooks/03_brain_alignment.md``."""
    here, there = home(path), BOOK / home(path)
    return there if there.exists() and not here.exists() else here


def refuse_pointer(path: Path, error: Error = PhaselabError) -> None:
    """An `error` for what is no file, and may have no end, or only stands for another one."""
    expect(path.is_file() or not path.exists(), str(path), "a folder, a pipe or a device", "a file", error)
    with path.open("rb") as stream:
        pointer = stream.read(64).startswith(POINTERS)
    right = "the file itself: 'git lfs pull' or 'datalad get' fetches it"
    expect(not pointer, str(path), "a pointer of Git LFS or git-annex", right, error)


def refuse_outside(path: Path, folder: Path, error: Error = PhaselabError) -> None:
    """An `error` for a path that leaves its folder: by its name, or by a link."""
    expect(path.resolve().is_relative_to(folder.resolve()), str(path), path.resolve(), f"a file in {folder}", error)


def refuse_linked(values: Any, path: Path) -> None:
    """Refuse a dataset of the HDF5 file `path` with values outside its folder, or raw ones outside any such file."""
    if hasattr(values, "is_virtual"):  # a dataset
        expect(not values.external, f"{path}: {values.name}", f"values in {values.external}", "them in a file of HDF5")
        sources = {path.parent / of.file_name for of in values.virtual_sources()} if values.is_virtual else set()
        for file in {*sources, Path(values.file.filename)} - {path, path.parent}:
            refuse_outside(file, path.parent)


def read_bytes(path: Path, error: Error = PhaselabError) -> bytes:
    """What is in a file; an `error` where it cannot be read, or is more than anybody has written."""
    try:
        refuse_pointer(path, error)
        expect((size := path.stat().st_size) <= MOST, str(path), f"{size:,} bytes", f"at most {MOST:,}", error)
        return path.read_bytes()
    except OSError as wrong:
        raise error(f"{path}: cannot be read: {wrong.strerror}") from wrong


def read_text(path: Path, error: Error = PhaselabError) -> str:
    """The text of a file in UTF-8 or UTF-16, with a byte order mark or without; its lines end in a line feed."""
    raw = read_bytes(path, error)
    text = decoded(raw, path, json.detect_encoding(raw), error)
    expect("\0" not in text, str(path), "binary data", "text in UTF-8", error)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def refuse_crowd(text: str, where: object, marks: str = "[{,") -> None:
    """A PhaselabError for a text of more values than anybody writes; `marks`: characters that may begin one."""
    most, found = MOST_VALUES if "{" in marks else MOST_CELLS, sum(map(text.count, marks))
    expect(found <= most, str(where), f"{found:,} values", f"at most {most:,}")


def parse_json(text: str, where: object) -> Any:
    """What JSON says; a PhaselabError for a text that is none, or that memory may not hold."""
    refuse_crowd(text, where)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as wrong:
        raise PhaselabError(f"{where}: cannot be read as JSON: {wrong}") from wrong


def decoded(raw: bytes, path: Path, encoding: str = "utf-8", error: Error = PhaselabError) -> str:
    """The text that the bytes of a file are; an `error` names the line of those that are none."""
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as wrong:
        line, found = 1 + raw.count(10, 0, wrong.start), f"byte 0x{raw[wrong.start]:02x}, which is not {encoding}"
        raise error(f"{path}: line {line}: found {found}, expected UTF-8 or UTF-16: save it as UTF-8") from wrong


class Loader(yaml.SafeLoader):
    """YAML, safely; refuses a field that stands twice, of which YAML would take the last one without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping, before anything is merged into it."""
        node, seen = super().compose_mapping_node(anchor), set[tuple[str, str]]()
        for key, _ in node.value:
            if (name := (key.tag, str(key.value))) in seen:
                raise yaml.MarkedYAMLError(problem=f"field {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(name)
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        """A text; none with what only escapes can write, and no label, name or path has."""
        node = super().compose_scalar_node(anchor)
        if found := re.search(STEERS, node.value):
            raise yaml.MarkedYAMLError(problem=f"found {found[0]!a}, expected text", problem_mark=node.start_mark)
        return node


def parse_yaml(
    text: str, where: object, error: Error = PhaselabError, loader: type[Loader] = Loader
) -> tuple[Any, dict[str, int]]:
    """The content of YAML, and the line of each of its fields; `where` is the file, which errors name with the line."""
    expect(len(text) <= MOST_YAML, str(where), f"{len(text):,} characters", f"YAML of at most {MOST_YAML:,}", error)
    try:
        made = loader(text)  # which looks through the text at once
        node: Any = made.get_single_node()
        content = made.construct_document(node) if node else None
    except Exception as wrong:  # of explicit tags, such as !!bool x, of any kind
        mark, at = getattr(wrong, "problem_mark", None), getattr(wrong, "position", 0)
        line = mark.line if mark else text.count("\n", 0, at)
        said = getattr(wrong, "problem", None) or getattr(wrong, "reason", None) or wrong
        raise error(f"{where}:{line + 1}: cannot be read as YAML: {said}") from wrong
    fields = node.value if isinstance(content, dict) else ()
    return content, {str(key.value): key.start_mark.line + 1 for key, _ in fields}
