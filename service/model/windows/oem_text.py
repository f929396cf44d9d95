"""Decodes the output of Windows programs: bytes in an OEM code page that is not known.

The choice is deterministic: UTF-8 if the bytes are UTF-8, otherwise the code page in which the text looks least wrong. The choice affects
only how a text *reads*, because numbers and GUIDs are ASCII in every code page.
"""

import codecs
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass

CODE_PAGES = (
    "cp850", "cp437", "cp852", "cp866", "cp737", "cp857", "cp1252",
    "cp932", "cp936", "cp949", "cp950",
)  # fmt: skip
"""OEM code pages of Windows' languages, the likelier first; double byte sets contain nearly everything, so they come last."""

SAMPLE_BYTES = 65_536
"""So much is read in every code page; the rest follows the choice."""

_AT_HOME_ANYWHERE = frozenset("\u00a0\u202f‘’“”„«»‹›–—…°·©®、。「」『』ー：（）・，！？")
_UNPRINTABLE_ALLOWED = frozenset("\r\n\t")


@dataclass(frozen=True)
class DecodedText:
    text: str
    encoding: str


def decode(data: bytes, *, expected: Collection[str] = (), hint: str | None = None) -> DecodedText:
    """The best reading of `data`; a character that the end of `data` cuts in two is left out.

    `expected`: phrases that speak for a reading in which they stand. `hint`: the code page of an earlier
    output of the same guest, taken when it fits. NUL becomes U+FFFD, because databases refuse it in text.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return DecodedText(_storable(data.decode("utf-16", errors="replace")), "utf-16")
    text = _strictly(data.removeprefix(codecs.BOM_UTF8), "utf-8")
    if text is not None:
        return DecodedText(_storable(text), "utf-8")
    pages = CODE_PAGES if hint not in CODE_PAGES else (hint, *CODE_PAGES)
    sample = data[:SAMPLE_BYTES]
    readings = [DecodedText(text, page) for page in pages if (text := _strictly(sample, page)) is not None]
    if readings[0].encoding == hint:
        best = readings[0]
    else:
        best = min(readings, key=lambda reading: (-_hits(reading.text, expected), _strangeness(reading.text)))
    text = _strictly(data, best.encoding)
    return DecodedText(_storable(data.decode(best.encoding, errors="replace") if text is None else text), best.encoding)


def _strictly(data: bytes, encoding: str) -> str | None:
    try:
        return codecs.getincrementaldecoder(encoding)("strict").decode(data, final=False)
    except UnicodeDecodeError:
        return None


def _hits(text: str, expected: Collection[str]) -> int:
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return sum(phrase in folded for phrase in expected)


def _strangeness(text: str) -> int:
    """Counts what a wrong code page produces: symbols, scripts mixed within a word, capitals inside a word."""
    strange = 0
    for before, character in zip(" " + text, text, strict=False):
        if character.isascii() and before.isascii():
            strange += 4 * (not character.isprintable() and character not in _UNPRINTABLE_ALLOWED)
        elif not character.isascii() and not character.isalpha():
            strange += 0 if character in _AT_HOME_ANYWHERE else 2
        elif before.isalpha() and character.isalpha():
            mixed = _script(before) != _script(character)
            strange += 3 * mixed + 3 * (before.islower() and character.isupper())
    return strange


def _script(letter: str) -> str:
    """The first word of its Unicode name tells LATIN from CYRILLIC, GREEK, HANGUL and the rest."""
    name = unicodedata.name(letter, "").split(" ", 1)[0]
    return "EAST ASIAN" if name in ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA") else name


def _storable(text: str) -> str:
    return text.replace("\x00", "\ufffd")
