"""Starter notebooks: with gaps the self-checks say what is missing, with the solutions that all is right."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
STARTERS = sorted((ROOT / "notebooks" / "starters").glob("session_*.md"))
SOLUTION = re.compile(r"^(`{3,})\{solution\} (\S+)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
EXERCISE = re.compile(r"^:label: (ex-starter\S+)$", re.MULTILINE)


def notebook(path: Path) -> Any:
    """As the book offers it."""
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    try:
        from phaselab_book import starter
    finally:
        sys.path.remove(str(ROOT / "book" / "_ext"))
    return nbformat.reads(starter(path), as_version=4)


def solutions(path: Path) -> list[str]:
    """The code of each exercise's solution, in order."""
    text = path.read_text(encoding="utf-8")
    found = {
        label: re.findall(r"^```python\n(.*?)^```$", body, re.M | re.S) for _, label, body in SOLUTION.findall(text)
    }
    assert list(found) == EXERCISE.findall(text)
    assert all(len(code) == 1 for code in found.values()), found
    return [code[0] for code in found.values()]


def said(path: Path, answers: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What the self-checks say, one text each; `answers` stand in place of the gaps, as many as there are."""
    space: dict[str, Any] = {}
    waiting, lines = iter(answers), []
    for cell in notebook(path).cells:
        if cell.cell_type != "code":
            continue
        is_gap = "gap" in cell.metadata.get("tags", ())
        capsys.readouterr()
        exec(compile(next(waiting, cell.source) if is_gap else cell.source, f"{path.stem} {cell.id}", "exec"), space)
        if re.search(r"^check\(", cell.source, re.M):
            lines.append(capsys.readouterr().out.strip())
    return lines


each = pytest.mark.parametrize("path", STARTERS, ids=lambda path: path.stem)


@each
def test_lines_end_at_column_120(path: Path) -> None:
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    assert [number for number, line in lines if len(line) > 120] == []


def test_there_are_eight_with_24_exercises_at_least() -> None:
    assert [path.stem for path in STARTERS] == [f"session_{number}" for number in range(1, 9)]
    assert sum(len(solutions(path)) for path in STARTERS) >= 24


@each
def test_empty_gaps_are_told_and_nothing_fails(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = said(path, [], capsys)
    assert len(told) == len(solutions(path)) == path.read_text(encoding="utf-8").count(":tags: [gap]")
    assert told == ["Not yet: the gap above is still empty."] * len(told)


@each
def test_solutions_are_right(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for label, told in zip(EXERCISE.findall(path.read_text("utf-8")), said(path, solutions(path), capsys), strict=True):
        assert re.fullmatch(r"Right\. .{30,}", told, re.S), f"{label}: {told}"


@each
@pytest.mark.parametrize("wrong", ["None", "'text'", "-1", "[1, 2]"])
def test_nonsense_is_told_to_be_wrong(path: Path, wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = re.findall(r":tags: \[gap\]\n\n(\w+) = ", path.read_text(encoding="utf-8"))
    for told in said(path, [f"{name} = {wrong}" for name in names], capsys):
        assert re.match(r"Not yet: .{20,}", told), told
