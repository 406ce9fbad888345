"""Wording causes so that the same fault is worded the same way, whatever values met it."""

import re

_LENGTH_MAX = 120

_NUMBERS = re.compile(r"-?\d+(?:\.\d+)?")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_HEXADECIMAL = re.compile(r"\b(?:0x)?[0-9a-fA-F]{8,}\b")


def same_for_all(text: str) -> str:
    """The text without what changes from case to case: numbers, identifiers and quotations."""
    plain = _QUOTED.sub("…", text)
    plain = _HEXADECIMAL.sub("…", plain)
    plain = _NUMBERS.sub("…", plain)
    plain = " ".join(plain.split())
    return plain if len(plain) <= _LENGTH_MAX else f"{plain[:_LENGTH_MAX]}…"
