"""Training text: the source that a study's section ``train`` names, and a key that tells one from another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from phaselab.results import digest_file
from phaselab.study import Training, digest_of
from phaselab.texts.base import Item, TextSource

__all__ = ["VERSION", "Item", "TextSource", "key", "source"]

#: Raised by hand when a text changes: what was made of the text before is then made again.
VERSION = {"world": 1, "books": 1}


def source(training: Training, data: Path | None) -> TextSource:
    """The text that `training` names.

    Parameters
    ----------
    training : the study's section ``train``.
    data : folder of downloaded data; needed by ``books`` alone.

    Raises
    ------
    phaselab.results.DataMissing
        When the books are not there: says what to fetch and where to put it.
    ValueError
        When the text has no such mix.
    """
    # Imported here so that each text needs nothing of what the other needs.
    if training.text == "world":
        from phaselab.texts.worldtext import WorldText

        return WorldText(training.mix, training.seed)
    from phaselab.texts.books import BooksText

    return BooksText(training.mix, training.seed, training.vocabulary, data)


def key(training: Training, data: Path | None, stamps: Any = None) -> str:
    """Digest of what decides the text that `training` names, without building or reading it.

    Parameters
    ----------
    training, data : as of `source`; raises DataMissing as it does.
    stamps : where digests of files are kept from one call to the next.
    """
    named = training.model_dump(include={"text", "mix", "seed"}) | {"version": VERSION[training.text]}
    if training.text == "books":
        from phaselab.texts.books import manifest_of

        # results.stamped_digest(folder, stamps) once it is there: the same value, of files not read again.
        books = digest_file(manifest_of(data).parent)
        named |= {"vocabulary": training.vocabulary, "books": books}
    return digest_of(named)
