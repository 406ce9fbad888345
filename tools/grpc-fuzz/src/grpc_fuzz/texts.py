"""Rules on the characters of a string that are no regular expression."""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass


def _characters(*ranges: tuple[int, int]) -> frozenset[str]:
    return frozenset(chr(code) for first, last in ranges for code in range(first, last + 1))


# What Python calls printable although nothing is seen of it: default ignorable letters and marks of
# Unicode (DerivedCoreProperties.txt), and blank glyphs.
_UNSEEN = _characters(
    (0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2800, 0x2800),
    (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0x13441, 0x13442), (0x16FE4, 0x16FE4),
    (0x1D159, 0x1D159), (0xE0100, 0xE01EF),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class TextRule:
    """A rule. All strings are in form C and have neither white space nor U+FEFF at an end.

    Attributes:
        allows: Whether a character may be in a string.
        needs: Whether a character is one of those of which a string that is not empty has one.
        wrong: Strings that break the rule, "a" and "b" standing for any characters.
    """

    allows: Callable[[str], bool]
    needs: Callable[[str], bool]
    wrong: tuple[str, ...]

    def holds(self, text: str) -> bool:
        """Whether a string keeps the rule; it may be stricter than the server by odd characters."""
        return not text or (self.tidy(text) == text and any(map(self.needs, text)))

    def tidy(self, text: str) -> str:
        """Leave out what breaks the rule."""
        allowed = "".join(filter(self.allows, text))
        normalized = unicodedata.normalize("NFC", allowed)
        while normalized != (stripped := normalized.strip().strip("\ufeff")):
            normalized = stripped
        return normalized


def _is_seen(character: str) -> bool:
    return character.isprintable() and not character.isspace() and character not in _UNSEEN


_WRONG_ANYWHERE = ("a\r", "a\n", " a", "a ", "\u00a0a", "a\u3000", "a\0b", "\ufeffa", "e\u0301")

TEXT_RULES = {
    "identifier": TextRule(
        allows=lambda character: character == " " or _is_seen(character),
        needs=_is_seen,
        wrong=(
            *_WRONG_ANYWHERE,
            "a\u200bb",
            "a\u00a0b",
            "a\u00ad",
            "a\ufe0f",
            "a\u2800",
            "a\u0378",
        ),
    ),
    "name": TextRule(
        allows=lambda character: (
            unicodedata.category(character) not in {"Cc", "Cs", "Zl", "Zp", "Cn"}
        ),
        needs=_is_seen,
        wrong=(*_WRONG_ANYWHERE, "a\u2028b", "\u200b", "\u2800", "\u3164"),
    ),
}
"""The rules by the names that a configuration has for them.

An identifier is compared character by character: it holds nothing that is not seen but single
blanks. A name is read by people: it holds something that is seen.
"""
