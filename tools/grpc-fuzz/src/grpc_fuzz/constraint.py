"""What one field may hold, whichever options said so."""

import re
from dataclasses import dataclass, fields

from grpc_fuzz.texts import TEXT_RULES

Scalar = int | float | str | bytes | bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Constraint:
    """The rules of one field. A field with explicit presence is held to them only when it is set.

    Attributes:
        required: Must be set: not the zero value or, with explicit presence, present.
        minimum: The least number, inclusive.
        maximum: The greatest number, inclusive.
        length_min: The least number of code points of a string.
        length_max: The greatest number of code points of a string.
        bytes_min: The least number of bytes of a string (in UTF-8) or of bytes.
        bytes_max: The greatest number of bytes of a string (in UTF-8) or of bytes.
        pattern: A regular expression that the whole string must match.
        shape: A regular expression whose strings all fit, where the rule itself is not a regular
            one (such as an e-mail address). Used to make values, not to judge them.
        text: The name of the rule in `texts.TEXT_RULES` that a string must keep, or None.
        one_of: The only values allowed, or None.
        none_of: Values that are not allowed.
        defined_only: An enum takes no numbers that it does not name.
        items_min: The least number of entries of a list or map.
        items_max: The greatest number of entries of a list or map.
        unique: The entries of a list differ from each other.
        item: The rules of each entry of a list, or each value of a map.
        key: The rules of each key of a map.
        opaque: There are further rules that cannot be evaluated here.
    """

    required: bool = False
    minimum: int | float | None = None
    maximum: int | float | None = None
    length_min: int | None = None
    length_max: int | None = None
    bytes_min: int | None = None
    bytes_max: int | None = None
    pattern: str | None = None
    shape: str | None = None
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
        """Names the rules on a single value that it breaks; `required` is not among them."""
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
        # Written so that NaN, which compares with nothing, breaks every bound.
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
    """Joins what several adapters say of one field; where two differ, the later one counts."""
    changed: dict[str, object] = {}
    for constraint in constraints:
        for entry in fields(Constraint):
            value = getattr(constraint, entry.name)
            if value != entry.default:
                changed[entry.name] = value
    # The names and types come from the class itself.
    return Constraint(**changed)  # type: ignore[arg-type]


def matches(pattern: str, value: str) -> bool:
    """Whether a whole string matches a regular expression, in the syntax RE2 and Python share."""
    return re.fullmatch(pattern, value) is not None
