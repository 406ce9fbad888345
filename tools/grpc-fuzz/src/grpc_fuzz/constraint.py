"""The rules on the value of one field, independent of the options that declare them."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, fields

Scalar = int | float | str | bytes | bool


def _characters(*ranges: tuple[int, int]) -> frozenset[str]:
    return frozenset(chr(code) for first, last in ranges for code in range(first, last + 1))


# Characters that Python calls printable although they are invisible: the default ignorable letters
# and marks of Unicode (DerivedCoreProperties.txt), and blank glyphs.
_INVISIBLE = _characters(
    (0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2800, 0x2800),
    (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0x13441, 0x13442), (0x16FE4, 0x16FE4),
    (0x1D159, 0x1D159), (0xE0100, 0xE01EF),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class TextRule:
    """A rule on the characters of a string, which a regular expression cannot express.

    Under every rule a string is in normalization form C, and has neither white space nor U+FEFF at
    an end.

    Attributes:
        allows: Whether a string may contain a character.
        needs: Whether a character is one of those of which each string needs one, unless it is
            empty.
        violations: Strings that break the rule, where "a" and "b" stand for any characters.
    """

    allows: Callable[[str], bool]
    needs: Callable[[str], bool]
    violations: tuple[str, ...]

    def holds(self, text: str) -> bool:
        """Return whether a string keeps the rule. A server may accept more rare characters."""
        return not text or (self.repair(text) == text and any(map(self.needs, text)))

    def repair(self, text: str) -> str:
        """Return the string without the characters that break the rule."""
        allowed = "".join(filter(self.allows, text))
        normalized = unicodedata.normalize("NFC", allowed)
        while normalized != (stripped := normalized.strip().strip("\ufeff")):
            normalized = stripped
        return normalized


def _is_visible(character: str) -> bool:
    return character.isprintable() and not character.isspace() and character not in _INVISIBLE


_COMMON_VIOLATIONS = ("a\r", "a\n", " a", "a ", "\u00a0a", "a\u3000", "a\0b", "\ufeffa", "e\u0301")

# The rules by the names that a configuration gives them. An identifier is compared character by
# character, so its only invisible characters are single blanks. People read a name, so it
# holds something visible.
TEXT_RULES = {
    "identifier": TextRule(
        allows=lambda character: character == " " or _is_visible(character),
        needs=_is_visible,
        violations=(
            *_COMMON_VIOLATIONS,
            *("a\u200bb", "a\u00a0b", "a\u00ad", "a\ufe0f", "a\u2800", "a\u0378"),
        ),
    ),
    "name": TextRule(
        allows=lambda character: (
            unicodedata.category(character) not in {"Cc", "Cs", "Zl", "Zp", "Cn"}
        ),
        needs=_is_visible,
        violations=(*_COMMON_VIOLATIONS, "a\u2028b", "\u200b", "\u2800", "\u3164"),
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Constraint:
    """The rules of one field. They bind a field with explicit presence only when it is set.

    Attributes:
        required: The field must be set: not to the zero value or, with explicit presence, present.
        minimum: The least number, inclusive.
        maximum: The greatest number, inclusive.
        length_min: The least number of code points of a string.
        length_max: The greatest number of code points of a string.
        bytes_min: The least number of bytes of a string (in UTF-8) or of bytes.
        bytes_max: The greatest number of bytes of a string (in UTF-8) or of bytes.
        pattern: A regular expression that the whole string must match.
        format_pattern: A regular expression whose strings are all valid, if the rule itself is not
            a regular one (such as an e-mail address). It generates values and judges none.
        text: The name of the rule in `TEXT_RULES` that a string must keep, or None.
        one_of: The only values that are allowed, or None.
        none_of: Values that are not allowed.
        defined_only: The enum accepts only numbers that it names.
        items_min: The least number of entries of a list or map.
        items_max: The greatest number of entries of a list or map.
        unique: All entries of the list must differ.
        item: The rules of each entry of a list, or each value of a map.
        key: The rules of each key of a map.
        opaque: There are further rules that grpc-fuzz cannot evaluate.
    """

    required: bool = False
    minimum: int | float | None = None
    maximum: int | float | None = None
    length_min: int | None = None
    length_max: int | None = None
    bytes_min: int | None = None
    bytes_max: int | None = None
    pattern: str | None = None
    format_pattern: str | None = None
    text: str | None = None
    one_of: tuple[Scalar, ...] | None = None
    none_of: tuple[Scalar, ...] = ()
    defined_only: bool = False
    items_min: int | None = None
    items_max: int | None = None
    unique: bool = False
    item: "Constraint | None" = None
    key: "Constraint | None" = None
    opaque: bool = False

    def broken_by(self, value: Scalar) -> tuple[str, ...]:
        """Return the names of the rules that a single value breaks, without `required`."""
        rules = [*self._range_broken_by(value), *self._length_broken_by(value)]
        if self.pattern is not None and isinstance(value, str) and not matches(self.pattern, value):
            rules.append("pattern")
        if self.text is not None and isinstance(value, str):
            rules += [] if TEXT_RULES[self.text].holds(value) else ["text"]
        if self.one_of is not None and value not in self.one_of:
            rules.append("one_of")
        if value in self.none_of:
            rules.append("none_of")
        return tuple(rules)

    def _range_broken_by(self, value: Scalar) -> list[str]:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return []
        # With `not`, NaN breaks every bound, because every comparison with NaN is false.
        broken = [
            ("minimum", self.minimum is not None and not value >= self.minimum),
            ("maximum", self.maximum is not None and not value <= self.maximum),
        ]
        return [name for name, is_broken in broken if is_broken]

    def _length_broken_by(self, value: Scalar) -> list[str]:
        if not isinstance(value, str | bytes):
            return []
        octets = len(value.encode()) if isinstance(value, str) else len(value)
        points = len(value)
        broken = [
            ("length_min", self.length_min is not None and points < self.length_min),
            ("length_max", self.length_max is not None and points > self.length_max),
            ("bytes_min", self.bytes_min is not None and octets < self.bytes_min),
            ("bytes_max", self.bytes_max is not None and octets > self.bytes_max),
        ]
        return [name for name, is_broken in broken if is_broken]


NONE = Constraint()


def merge(constraints: list[Constraint]) -> Constraint:
    """Join the constraints that several adapters read for one field. The last one wins."""
    changed: dict[str, object] = {}
    for constraint in constraints:
        for entry in fields(Constraint):
            value = getattr(constraint, entry.name)
            if value != entry.default:
                changed[entry.name] = value
    # The names and types come from the class itself.
    return Constraint(**changed)  # type: ignore[arg-type]


def matches(pattern: str, value: str) -> bool:
    """Return whether a whole string matches a pattern in the syntax that RE2 and Python share."""
    return re.fullmatch(pattern, value) is not None
