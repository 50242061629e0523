# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Find left/right pairs among names of keypoints, in any spelling.

Case and separators are ignored: ``left_ear``, ``Left Ear``, ``left-ear``,
``leftEar``, ``ear.L``, ``L_Ear``, ``earL`` and ``LEar`` all mean the left ear.
"""
import re
from collections.abc import Collection, Iterator, Sequence

OTHER = dict(left='right', right='left')
# Abbreviations count only if no whole word states the side.
SHORT = dict(l='left', r='right', lt='left', rt='right', lft='left',
             rgt='right', lh='left', rh='right', lf='left', rf='right',
             lb='left', rb='right', fl='left', fr='right', bl='left',
             br='right', hl='left', hr='right')  # yapf: disable
# LEFT | Left, left | 12 | letters without case
WORDS = re.compile(r'[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+')
SHORTEST = 3  # letters that must remain beside an attached l or r
Key = tuple[str, ...]


def words_of(name: str) -> Key:
    """Split a name into lower-case words.

    Example:
        >>> words_of('LEar_front2')
        ('l', 'ear', 'front', '2')
    """
    return tuple(word.lower() for word in WORDS.findall(name))


def side_of(name: str) -> str:
    """Return ``'left'``, ``'right'`` or ``'none'`` for a name."""
    words = words_of(name)
    sides = {word for word in words if word in OTHER} or {
        SHORT[word] for word in words if word in SHORT}  # yapf: disable
    return sides.pop() if len(sides) == 1 else 'none'


def mirrored_words(words: Key) -> Key:
    """Swap the side in the words of a sided name."""
    if any(word in OTHER for word in words):
        return tuple(OTHER.get(word, word) for word in words)
    short = list(SHORT)  # each abbreviation is next to its counterpart
    return tuple(short[short.index(word) ^ 1] if word in SHORT else word
                 for word in words)  # yapf: disable


def attached(name: str) -> Iterator[tuple[str, str]]:
    """Yield side and mirrored spelling of names such as ``lefteye``.

    These have no boundary between the side and the rest; a single letter is a
    side only in front (``lshoulder``). A match counts only if the mirrored
    name also exists.
    """
    plain = ''.join(words_of(name))
    for side, other in OTHER.items():
        if plain.startswith(side):
            yield side, other + plain[len(side):]
        if plain.endswith(side):
            yield side, plain[:-len(side)] + other
        if plain.startswith(side[0]) and len(plain) > SHORTEST:
            yield side, other[0] + plain[1:]


def find_pairs(names: Sequence[str]) -> dict[str, str]:
    """Return the counterpart of each name that has one, in both directions.

    Names with several possible counterparts get none.

    Example:
        >>> find_pairs(['Nose', 'L_Ear', 'R_Ear'])
        {'L_Ear': 'R_Ear', 'R_Ear': 'L_Ear'}
    """
    by_words: dict[Key, list[str]] = {}
    by_letters: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        by_words.setdefault(words_of(name), []).append(name)
        by_letters.setdefault(''.join(words_of(name)), []).append(name)
    found: dict[str, str] = {}
    for name in dict.fromkeys(names):
        if side_of(name) != 'none':
            others = by_words.get(mirrored_words(words_of(name)), [])
        else:
            others = [other for _, letters in attached(name)
                      for other in by_letters.get(letters, [])
                      if side_of(other) == 'none']  # yapf: disable
        if len(others) == 1 and others[0] != name:
            found[name] = others[0]
    return {a: b for a, b in found.items() if found.get(b) == a}


def find_unpaired(names: Sequence[str],
                  paired: Collection[str] = ()) -> list[str]:
    """Return names that look like one side of a pair, but have no counterpart.

    A letter with a number, such as L1, is not a side: vertebrae are named so.

    Args:
        names: All names.
        paired: Names that have a counterpart.
    """

    def looks_sided(name: str) -> bool:
        words = words_of(name)
        if words[:1] and words[0] in 'lr' and words[1:2] and all(
                word.isdigit() for word in words[1:]):
            return False
        if OTHER.keys().isdisjoint(words):
            return side_of(name) != 'none' or ''.join(words).startswith(
                (*OTHER, ))
        return side_of(name) != 'none'

    return [n for n in names if n not in paired and looks_sided(n)]
