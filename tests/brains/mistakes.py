"""A reader of published files with one mistake, by which an assertion is shown able to fail."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from phaselab.brains import BRAINS
from phaselab.study import BRAIN_SECTIONS


@contextmanager
def noticed() -> Iterator[None]:
    """What is inside finds a mistake; that two long lists differ everywhere would else take minutes to be told."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("_pytest.assertion.util._reprcompare", None)
        with pytest.raises((AssertionError, ValueError, IndexError, KeyError, pytest.fail.Exception)):
            yield


def mistaken(module: ModuleType, old: str, new: str, *shared: ModuleType) -> ModuleType:
    """The brain `module`, or what it has of the `shared` ones, with `new` for `old`; it does not stay registered."""
    name = next(name for name, of in BRAINS.items() if of.load.__module__ == module.__name__)
    before = BRAINS.pop(name), BRAIN_SECTIONS[name]
    try:
        found = [one for one in (module, *shared) if old in Path(str(one.__file__)).read_text()]
        assert len(found) == 1, old
        changed = _executed(found[0], old, new)
        if found[0] is module:
            return changed
        with pytest.MonkeyPatch.context() as patch:  # what it imports is the changed one
            patch.setitem(sys.modules, found[0].__name__, changed)
            return _executed(module, "", "")
    finally:
        BRAINS[name], BRAIN_SECTIONS[name] = before


def _executed(module: ModuleType, old: str, new: str) -> ModuleType:
    text = Path(str(module.__file__)).read_text()
    assert not old or text.count(old) == 1, old
    made = ModuleType(f"{module.__name__}_mistaken")
    made.__file__ = module.__file__
    sys.modules[made.__name__] = made  # pydantic looks for names there
    exec(compile(text.replace(old, new) if old else text, str(module.__file__), "exec"), made.__dict__)
    return made
