"""Training text: the source that a study's section ``train`` names, and a key that tells one from another."""

from pathlib import Path

from phaselab.errors import expect, number_of
from phaselab.results import stamped_digest
from phaselab.study import Training, digest_of
from phaselab.texts.base import TASKS, Item, TextSource

__all__ = ["TASKS", "VERSION", "Item", "TextSource", "key", "source"]

#: Raised by hand when a text changes: what was made of the text before is then made again.
VERSION = {"world": 1, "books": 2}


def source(training: Training, data: Path | None) -> TextSource:
    """The text that `training` names; the folder `data` is for ``books`` alone, DataMissing says what to put there."""
    # Imported here so that each text needs nothing of what the other needs.
    if training.text == "world":
        from phaselab.texts.world import WorldText

        schedule = [(stage.until * training.steps, stage.mix) for stage in training.mixes]
        return WorldText(training.mix, training.seed, schedule)
    from phaselab.texts.books import BooksText

    expect(not training.mixes, "mixes", number_of(len(training.mixes), "stage"), "none with text: books")
    return BooksText(training.mix, training.seed, training.vocabulary, data)


def key(training: Training, data: Path | None, stamps: Path) -> str:
    """Digest of what decides the text that `training` names, without building it; books are read once (`stamps`)."""
    named = training.model_dump(include={"text", "mix", "seed", *["mixes", "steps"] * bool(training.mixes)})
    named["version"] = VERSION[training.text]
    if training.text == "books":
        from phaselab.texts.books import manifest_of

        books = stamped_digest(manifest_of(data).parent, stamps)
        named |= {"vocabulary": training.vocabulary, "books": books}
    return digest_of(named)
