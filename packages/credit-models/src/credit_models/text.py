"""Checks the characters of a string by the rule that the contract names in `Constraint.text`.

Keys and ids are compared code point by code point. Two that a person cannot tell apart must not
both be valid, otherwise each would count as a request of its own. Letters of different scripts that
look alike, such as Latin and Cyrillic "a", remain different: no rule on single characters can find
these.

The normalization of assigned characters never changes
(https://www.unicode.org/policies/stability_policy.html), and identifiers contain no unassigned
ones. Servers and SDKs with different versions of Unicode therefore agree on every character that
both versions define, and the older one rejects the characters that only the newer one defines.
"""

import unicodedata
from collections.abc import Callable, Collection
from enum import IntEnum

# A check returns None for a valid string, otherwise what the field accepts. It quotes the first
# character that is not allowed, and nothing else of the string.
TextCheck = Callable[[str], str | None]


class Text(IntEnum):
    """A rule with its number in `credit.options.v1.Text`, where the rule is defined."""

    UNSPECIFIED = 0
    IDENTIFIER = 1
    NAME = 2


def _characters(ranges: str) -> frozenset[str]:
    """Return the characters of a list of code points and ranges, such as "20 9-d"."""
    bounds = [part.partition("-") for part in ranges.split()]
    return frozenset(
        chr(code)
        for first, _, last in bounds
        for code in range(int(first, 16), int(last or first, 16) + 1)
    )


# The property White_Space; https://www.unicode.org/Public/UCD/latest/ucd/PropList.txt.
_WHITE_SPACE = _characters("9-d 20 85 a0 1680 2000-200a 2028-2029 202f 205f 3000")

# The property Default_Ignorable_Code_Point, which `unicodedata` lacks, from
# https://www.unicode.org/Public/UCD/latest/ucd/DerivedCoreProperties.txt. It has not changed since
# Unicode 14, because the ranges include code points that are reserved for later assignment.
_IGNORABLE = _characters(
    "ad 34f 61c 115f-1160 17b4-17b5 180b-180f 200b-200f 202a-202e 2060-206f 3164 fe00-fe0f feff"
    " ffa0 fff0-fff8 1bca0-1bca3 1d173-1d17a e0000-e0fff"
)
# Blank glyphs without either property: of Braille, Khitan, hieroglyphs and musical notation.
_BLANK = _characters("2800 16fe4 13441-13442 1d159")

_ENDS_OF_NAMES = _WHITE_SPACE | {"\ufeff"}

# Categories: controls, formats, surrogates and unassigned code points.
_NOT_IN_IDENTIFIERS = frozenset({"Cc", "Cf", "Cs", "Cn"})
# Categories: controls, surrogates, separators of lines and of paragraphs.
_NOT_IN_NAMES = frozenset({"Cc", "Cs", "Zl", "Zp"})
# Categories: controls, formats and surrogates.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs"})


def text_check(text: Text) -> TextCheck | None:
    """Return the check of a rule, or None where any string is valid."""
    further = {Text.UNSPECIFIED: None, Text.IDENTIFIER: _identifier, Text.NAME: _name}[text]
    if further is None:
        return None

    def check(value: str) -> str | None:
        # Most strings are printable ASCII without spaces at their ends.
        if value.isascii() and value.isprintable() and value == value.strip(" "):
            return None
        return further(value)

    return check


def _identifier(value: str) -> str | None:
    return (
        _ends(value, _WHITE_SPACE) or _first(value, _is_not_in_identifiers) or _normalization(value)
    )


def _name(value: str) -> str | None:
    return (
        _ends(value, _ENDS_OF_NAMES)
        or _first(value, lambda character: unicodedata.category(character) in _NOT_IN_NAMES)
        or _normalization(value)
        or (None if any(map(_is_visible, value)) else "must contain a visible character")
    )


def _is_not_in_identifiers(character: str) -> bool:
    return (
        (character != " " and character in _WHITE_SPACE)
        or character in _IGNORABLE
        or character in _BLANK
        or unicodedata.category(character) in _NOT_IN_IDENTIFIERS
    )


def _is_visible(character: str) -> bool:
    return not (
        character in _WHITE_SPACE
        or character in _IGNORABLE
        or character in _BLANK
        or unicodedata.category(character) in _INVISIBLE
    )


def _ends(value: str, characters: Collection[str]) -> str | None:
    for character in (value[0], value[-1]):
        if character in characters:
            what = "white space" if character in _WHITE_SPACE else _named(character)
            return f"must not begin or end with {what}"
    return None


def _first(value: str, is_wrong: Callable[[str], bool]) -> str | None:
    wrong = next(filter(is_wrong, value), None)
    if wrong is None:
        return None
    if unicodedata.category(wrong) == "Cs":
        return "must be valid Unicode text"
    return f"must not contain {_named(wrong)}"


def _normalization(value: str) -> str | None:
    if unicodedata.is_normalized("NFC", value):
        return None
    return "must be in Unicode's normalization form C (NFC)"


def _named(character: str) -> str:
    return f"the character U+{ord(character):04X}"
