"""One base for every error that a user can mend, and the one sentence that any error is."""

import re
import reprlib
import traceback
from pathlib import Path
from typing import Any

from rich import markup

#: Characters of what was found that a message quotes at most, and of the place and of what was expected.
SHOWN, LONGEST = 200, 2000
#: What is said of a link for which Python has no error of the system.
LOOP = "found a link that leads to itself, expected a file or a folder"
#: What no text needs: control characters (a terminal takes orders from them), turns of its direction, half characters.
STEERS = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"


class _Short(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        """Not of as many digits as Python refuses to write."""
        return super().repr_int(x, level) if x.bit_length() < 10_000 else f"an integer of {x.bit_length()} bits"


_short = _Short()
_short.maxlevel, _short.maxstring, _short.maxother, _short.maxlong = 2, SHOWN, SHOWN, SHOWN
_short.maxdict = _short.maxlist = _short.maxset = _short.maxtuple = 20


class PhaselabError(ValueError):
    """What a user can mend, told by the command line in a sentence; a subclass where a caller must tell them apart."""


def number_of(count: Any, one: str, more: str = "") -> str:
    """``1 row``, ``2,000 rows``; `more`: the words for several, where these are not those for one with an s behind."""
    return f"{count:,.12g} {one if count == 1 else more or one + 's'}"


def shown(found: object, most: int = SHOWN) -> str:
    """What was found, as a text of at most so many characters; what is nested is never written out whole."""
    text = _short.repr(found) if isinstance(found, (dict, frozenset, int, list, set, tuple)) else str(found)
    return text if len(text) <= most else f"{text[: most - 4]} ..."


def quoted(found: object) -> str:
    """The same of a value as it would be written in Python: a text in quotes."""
    return shown(_short.repr(found))


def escape(text: str) -> str:
    """Text for rich and a terminal: brackets are no markup, and what would steer, or cannot be written, shows."""
    return markup.escape(re.sub(STEERS, lambda found: ascii(found[0])[1:-1], text))


def expect(ok: object, where: str, found: object, expected: str, error: type[PhaselabError] = PhaselabError) -> None:
    """Raise `error` with ``where: found ..., expected ...`` unless `ok`; `where` is the file, field or argument."""
    if not ok:
        raise error(f"{shown(where, LONGEST)}: found {shown(found)}, expected {shown(expected, LONGEST)}")


def told(error: BaseException) -> str:
    """An error of any kind in a sentence that names a file and what to do next."""
    try:
        said = shown(" ".join(str(error).split()))
    except Exception:  # of another library, whose own text fails
        said = "an error that cannot say what it is"
    if isinstance(error, PhaselabError):
        return str(error)
    if isinstance(error, MemoryError):
        ways = "fewer workers (--jobs 1), a smaller encoding.memory, or fewer features.layers"
        return f"memory ran out ({said or 'all of it was taken'}); expected more of it, {ways}"
    if isinstance(error, ModuleNotFoundError):
        return f"{said}; an extra has it: pip install 'phaselab[book,hub,tasks]'"
    if loop := re.match("Symlink loop from '(.*)'$", said):
        return f"{loop[1]}: {LOOP}"
    if isinstance(error, OSError) and error.strerror:
        return f"{shown(error.filename or type(error).__name__)}: {error.strerror}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "phaselab" in Path(f.filename).parts]
    at = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {said}{at}"
