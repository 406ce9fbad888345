"""The normalization of messages, which gives one fault the same text with any values."""

import re
from collections.abc import Iterable

_LENGTH_MAX = 160
GAP = "…"
# Replacing shorter values of a request would cut words apart.
_VALUE_LENGTH_MIN = 3

# A quotation mark within a word is an apostrophe. A backslash escapes the next character.
_QUOTED = re.compile(
    r"(?<![^\W_])[bBrRuU]?'(?:\\.|[^'\\])*'(?!\w)"
    r'|[bBrRuU]?"(?:\\.|[^"\\])*"'
    r"|`[^`]*`|“[^”]*”|«[^»]*»",
    re.DOTALL,
)
_HEXADECIMAL = re.compile(
    r"[+-]?\b(?:0[xX])?[0-9a-fA-F]{8,}(?:-[0-9a-fA-F]{4,})*\b|\b0[xX][0-9a-fA-F]+\b"
)
# Numbers, and identifiers with digits in them such as "order-17", "a1b2c3" or "1e-05".
_WITH_DIGITS = re.compile(r"[\w.+-]*\d[\w.+-]*")
# Anything between blanks without three letters in a row: "a", "of", "&", "(…):".
_NO_WORD = re.compile(r"(?<!\S)(?!\S*[A-Za-z]{3})\S+")
_FOREIGN = re.compile(rf"[^\x20-\x7e{GAP}]+")
# The number of values in a list is a value, too: "[…, …]", "[]" and "… …" are one gap.
_LIST = re.compile(rf"[\[({{][\s,;:{GAP}]*[\])}}]")
_GAPS = re.compile(rf"\s*{GAP}(?:[\s,;:/|=]*{GAP})*\s*")


def normalize(text: str) -> str:
    """Return the text without what changes from case to case.

    Numbers, quotations, identifiers, text that is not ASCII and words of up to two letters become
    "…". The result identifies a kind of failure and is not meant for people.
    """
    for pattern in (_QUOTED, _HEXADECIMAL, _WITH_DIGITS):
        text = pattern.sub(GAP, text)
    text = _FOREIGN.sub(GAP, " ".join(text.split()))
    before = ""
    while text != before:
        before = text
        text = _NO_WORD.sub(GAP, _LIST.sub(GAP, text))
        text = _GAPS.sub(f" {GAP} ", text).strip()
    return text if len(text) <= _LENGTH_MAX else f"{text[:_LENGTH_MAX]}{GAP}"


def without_values(text: str, values: Iterable[str]) -> str:
    """Return the text with each value replaced by "…".

    Short values stay, because they are part of words by chance.

    Args:
        text: For example a status message.
        values: The strings of the request, which a message may quote without quotation marks.
    """
    for value in sorted({*values}, key=len, reverse=True):
        if len(value) >= _VALUE_LENGTH_MIN:
            text = text.replace(value, GAP)
    return text
