"""One base for every error that a user can mend, and the one sentence that such an error is."""

from __future__ import annotations


class PhaselabError(ValueError):
    """What a user can mend: the message names the file, field or argument, what was found and what was expected.

    The command line tells any of these in a sentence, without a traceback; each room has subclasses of its own
    where a caller must tell them apart.
    """


def expect(ok: object, where: str, found: object, expected: str, error: type[PhaselabError] = PhaselabError) -> None:
    """Raise `error` with ``where: found ..., expected ...`` unless `ok`.

    Parameters
    ----------
    ok : a condition; for one whose `found` is dear to compute, write ``if`` and ``raise`` instead.
    where : the file, field or argument.
    found : what it was; an array's shape or a text rather than the array itself.
    expected : what it should have been, or what to do.
    """
    if not ok:
        raise error(f"{where}: found {found}, expected {expected}")
