"""The standard rules of protovalidate: `(buf.validate.field)` and `(buf.validate.oneof)`."""

import math
import re
from typing import Any

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, OneofDescriptor
from google.protobuf.message import Message

from grpc_fuzz.adapters.adapter import Options
from grpc_fuzz.constraint import Constraint
from grpc_fuzz.model import DeclaredError

_INTEGERS = frozenset(
    {
        *("int32", "int64", "uint32", "uint64", "sint32", "sint64"),
        *("fixed32", "fixed64", "sfixed32", "sfixed64"),
    }
)
_FLOATS = frozenset({"float", "double"})
_IGNORE_IF_ZERO_VALUE = 1
_IGNORE_ALWAYS = 3

# One pattern per format, for strings that are valid under any reading of the format.
_FORMAT_PATTERNS = {
    "email": r"[a-z]{1,12}@[a-z]{1,12}\.com",
    "hostname": r"[a-z]{1,12}\.example",
    "ip": r"10\.[0-9]\.[0-9]\.[0-9]",
    "ipv4": r"10\.[0-9]\.[0-9]\.[0-9]",
    "ipv6": r"2001:db8::[1-9a-f]",
    "uri": r"https://example\.com/[a-z]{1,8}",
    "uri_ref": r"/[a-z]{1,8}",
    "address": r"[a-z]{1,12}\.example",
    "uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}",
    "tuuid": r"[0-9a-f]{32}",
    "host_and_port": r"[a-z]{1,12}\.example:[1-9][0-9]{0,3}",
}
_RENAMED = {
    "string": {"min_len": "length_min", "max_len": "length_max"},
    "bytes": {"min_len": "bytes_min", "max_len": "bytes_max"},
    "repeated": {"min_items": "items_min", "max_items": "items_max", "unique": "unique"},
    "map": {"min_pairs": "items_min", "max_pairs": "items_max"},
    "enum": {"defined_only": "defined_only"},
}
_RENAMED["string"] |= {"min_bytes": "bytes_min", "max_bytes": "bytes_max"}
_LENGTHS = {
    ("string", "len"): ("length_min", "length_max"),
    ("string", "len_bytes"): ("bytes_min", "bytes_max"),
    ("bytes", "len"): ("bytes_min", "bytes_max"),
}

# Values of a message of rules, by the name of the field. Any: only the image knows their types.
Values = dict[str, Any]


class BufValidate:
    """Reads the rules of protovalidate, as far as they can be evaluated without CEL."""

    def constraint(self, field: FieldDescriptor, options: Options) -> Constraint | None:
        """Return the constraint of a field, or None if it carries no rules."""
        rules = options.read(field, "buf.validate.field")
        return None if rules is None else _constraint(rules)

    def oneof_required(self, oneof: OneofDescriptor, options: Options) -> bool:
        """Return whether the oneof carries `required`."""
        rules = options.read(oneof, "buf.validate.oneof")
        return rules is not None and bool(rules.required)

    def errors(
        self, method: MethodDescriptor, options: Options
    ) -> tuple[DeclaredError, ...] | None:
        """Return None, because protovalidate does not declare errors."""
        return None


# Any: only the image knows the type of the rules.
def _constraint(rules: Any) -> Constraint:
    names = {field.name for field, _ in rules.ListFields()}
    if "ignore" in names and rules.ignore == _IGNORE_ALWAYS:
        return Constraint()
    opaque = bool(names & {"cel", "cel_expression", "predefined"})
    # Zero is valid whatever the other rules are, which a Constraint cannot express.
    opaque = opaque or ("ignore" in names and rules.ignore == _IGNORE_IF_ZERO_VALUE)
    values: Values = {"required": bool(getattr(rules, "required", False))}
    kind = next((name for name in names if _is_rule_set(rules, name)), None)
    if kind is not None:
        found, understood = _of_kind(kind, getattr(rules, kind))
        values |= found
        opaque = opaque or not understood
    return Constraint(**values, opaque=opaque)


def _is_rule_set(rules: Any, name: str) -> bool:
    oneof = rules.DESCRIPTOR.fields_by_name[name].containing_oneof
    return oneof is not None and oneof.name == "type"


def _of_kind(kind: str, rules: Message) -> tuple[Values, bool]:
    """Return the values of a Constraint, and whether they express all of the rules."""
    given: Values = {field.name: value for field, value in rules.ListFields()}
    given.pop("example", None)
    values: Values = {}
    if "const" in given:
        values["one_of"] = (given.pop("const"),)
    if "in" in given:
        values["one_of"] = tuple(given.pop("in"))
    if "not_in" in given:
        values["none_of"] = tuple(given.pop("not_in"))
    if kind in _INTEGERS or kind in _FLOATS:
        values |= _bounds(given, is_float=kind in _FLOATS)
    for theirs, ours in _RENAMED.get(kind, {}).items():
        if theirs in given:
            values[ours] = given.pop(theirs)
    for (of_kind, theirs), (low, high) in _LENGTHS.items():
        if of_kind == kind and theirs in given:
            values[low] = values[high] = given.pop(theirs)
    if kind == "string":
        values |= _text(given)
    for theirs, ours in (("items", "item"), ("values", "item"), ("keys", "key")):
        if kind in {"repeated", "map"} and theirs in given:
            values[ours] = _constraint(given.pop(theirs))
    inner = [values.get("item"), values.get("key")]
    understood = not given and not any(entry is not None and entry.opaque for entry in inner)
    return values, understood


def _bounds(given: Values, *, is_float: bool) -> Values:
    values: Values = {}
    if "gte" in given:
        values["minimum"] = given.pop("gte")
    if "lte" in given:
        values["maximum"] = given.pop("lte")
    if "gt" in given:
        bound = given.pop("gt")
        values["minimum"] = math.nextafter(bound, math.inf) if is_float else bound + 1
    if "lt" in given:
        bound = given.pop("lt")
        values["maximum"] = math.nextafter(bound, -math.inf) if is_float else bound - 1
    if is_float and given.get("finite"):
        given.pop("finite")
        values.setdefault("minimum", -3.4e38)
        values.setdefault("maximum", 3.4e38)
    low, high = values.get("minimum"), values.get("maximum")
    if low is not None and high is not None and low > high:
        # protovalidate reads a lower bound above the upper one as "outside of the range", which a
        # Constraint cannot express. The key that is left over makes the constraint opaque.
        given["outside"] = True
        return {}
    return values


def _text(given: Values) -> Values:
    values: Values = {}
    ends = [re.escape(given.pop(name, "")) for name in ("prefix", "contains", "suffix")]
    if "pattern" in given:
        values["pattern"] = _whole(given.pop("pattern"))
        if any(ends):
            given["ends"] = ends
    elif any(ends):
        values["pattern"] = f"(?s:{ends[0]}.*{ends[1]}.*{ends[2]})"
    for name, pattern in _FORMAT_PATTERNS.items():
        if given.get(name) is True:
            given.pop(name)
            values["format_pattern"] = pattern
    return values


def _whole(pattern: str) -> str:
    """Return a pattern for the whole string from one that protovalidate searches for."""
    if "|" in pattern:
        return f"(?s:.*)(?:{pattern})(?s:.*)"
    # Anchors are removed: Python's "$" lets a line feed follow, and RE2's does not.
    inner = pattern.removeprefix("^")
    start = "(?s:.*)" if inner == pattern else ""
    if inner.endswith("$") and not inner.endswith(r"\$"):
        return f"{start}(?:{inner[:-1]})"
    return f"{start}(?:{inner})(?s:.*)"
