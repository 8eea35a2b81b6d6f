"""Whether a generated answer takes the form that was asked for: a strict and a lenient rule."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

#: A capital that stands alone. Not the article, as in "A dog": an A before a small word is a letter
#: only where that word goes on about the answer ("A or B", "A is right").
_A = r"A(?![ \t]+(?!(?:or|and|is|was|because|since)\b)[a-z])"
_LETTER = re.compile(rf"(?<![A-Za-z0-9])(?:{_A}|[B-Z])(?![A-Za-z0-9'’])")


def strict(said: str, options: Sequence[str]) -> str:
    """The option that `said` is, white space around it apart, or an empty string: for B, nothing but "B" or " B"."""
    return said.strip() if said.strip() in options else ""


def lenient(said: str, options: Sequence[str]) -> str:
    """The one option that `said` names, whatever stands around it ("The answer is B."), or an empty string ("A or B").

    Options that are single capitals may be said in small where nothing but punctuation is beside them; in a sentence
    only a capital that stands alone counts, and one that names two letters, or one that is no option, names none. Other
    options are looked for as whole words, whatever the case; of two, one in the other, the longer is meant.
    """
    said = unicodedata.normalize("NFKC", said).strip()
    if said in options:
        return said
    if all(len(o) == 1 and "A" <= o <= "Z" for o in options):
        bare = said.strip(" \t.,:;!?()[]{}\"'*`")
        if len(bare) == 1:
            return bare.upper() if bare.upper() in options else ""
        named = set(_LETTER.findall(said))
        if "I" not in options:
            named.discard("I")  # the pronoun
        return named.pop() if len(named) == 1 and named <= set(options) else ""
    found = [o for o in options if re.search(rf"(?<!\w){re.escape(o)}(?!\w)", said, re.IGNORECASE)]
    found = [o for o in found if not any(o != other and o.lower() in other.lower() for other in found)]
    return found[0] if len(found) == 1 else ""
