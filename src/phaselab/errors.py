"""One base for every error that a user can mend, and the one sentence that such an error is."""

from __future__ import annotations


class PhaselabError(ValueError):
    """What a user can mend, told by the command line in a sentence; a subclass where a caller must tell them apart."""


def expect(ok: object, where: str, found: object, expected: str, error: type[PhaselabError] = PhaselabError) -> None:
    """Raise `error` with ``where: found ..., expected ...`` unless `ok`; `where` is the file, field or argument.

    For a condition whose `found` is dear to compute, write ``if`` and ``raise`` instead.
    """
    if not ok:
        raise error(f"{where}: found {found}, expected {expected}")
