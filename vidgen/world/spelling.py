"""Typing errors: which known words a mistyped one may stand for."""

from __future__ import annotations

import string
from functools import lru_cache

LEAST = 4  # letters of a word that is worth correcting to; shorter ones are near too much

# English words one letter from a word of the world, which mean themselves: a black ball is no
# block, and a glass one is not grass.
OWN = frozenset(
    """
    alone bail bald band bell bill black blur blush bone bounding brass bright bring bull
    bumping bumps burns call calling calls candy cane cave chopping clock clone clue code cope
    core cropping crops cue cure cute deal done drug dumping dumps eight failing fails fight
    fill filling fills flock fright gall glass glove glowing glue gone grab grabs gram greed
    greek grew gross hall halls hand handy heal heaps hips hood hook hoot hope hopes hoping king
    land leading leads leaking leaks leaning leaving lent let lift light lobe lock lone loop
    mall might more nesting nests night none oops pants ping plans popping pops preceding
    raising range real rides riding rind roses rows sad said sane seal send shopping shops sides
    sight sing spans spies spine stall stand steal stole stop store stove tall tea team tear
    tell testing tests thin think tight toes tone tops tours tube tying wall walls whale whole
    wing wings write zone
    """.split()
)


@lru_cache(maxsize=4096)
def corrections(word: str, known: frozenset[str]) -> tuple[str, ...]:
    """The known words that `word` may be meant to be, all as likely: its plural or singular; or
    those one letter away (changed, lost, added, or two swapped) with the same first letter; or with
    another. Empty for a word that is English in its own right."""
    if inflected := _inflected(word, known):
        return inflected
    if word in OWN or not LEAST - 1 <= len(word) <= 1 + max(map(len, known), default=0):
        return ()
    near = {w for w in _one_letter_away(word) & known if len(w) >= LEAST}
    alike = {w for w in near if w[0] == word[0]}
    if len(word) < LEAST:  # "all" and "one" are no ball and no cone
        near = alike
    return tuple(sorted(alike or near))


def _inflected(word: str, known: frozenset[str]) -> tuple[str, ...]:
    if len(word) < LEAST - 1:
        return ()
    forms = [word + "s", word + "es"]
    forms += [word[: -len(end)] for end in ("s", "es") if word.endswith(end)]
    return tuple(form for form in forms if len(form) >= LEAST - 1 and form in known)


def _one_letter_away(word: str) -> frozenset[str]:
    cuts = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    letters = string.ascii_lowercase
    lost = {a + b[1:] for a, b in cuts if b}
    swapped = {a + b[1] + b[0] + b[2:] for a, b in cuts if len(b) > 1}
    changed = {a + c + b[1:] for a, b in cuts if b for c in letters}
    added = {a + c + b for a, b in cuts for c in letters}
    return frozenset(lost | swapped | changed | added) - {word}
