"""Describe constraints, types and retries in words."""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, MethodOptions

from contract_check.constraint import OPTION, text_of
from contract_check.image import Image

_IDEMPOTENCY = {
    MethodOptions.IDEMPOTENCY_UNKNOWN: "nothing is promised for the call as such",
    MethodOptions.NO_SIDE_EFFECTS: "changes nothing, and is safe to retry",
    MethodOptions.IDEMPOTENT: "safe to retry: several calls have the effect of one",
}


def takes(image: Image, field: FieldDescriptor) -> str:
    """Return the values that a field may hold; empty if any value of its type is valid."""
    found = image.option(field, OPTION)
    return "" if found is None else _constraint(found)


# Any: only the image knows the type of the option's value.
def _constraint(found: Any) -> str:
    def bound(name: str) -> int | None:
        value: int = getattr(found, name)
        return value if found.HasField(name) else None

    parts = [
        _range(bound("minimum"), bound("maximum"), ""),
        _range(bound("signed_minimum"), bound("signed_maximum"), ""),
        _range(bound("length_min"), bound("length_max"), " characters"),
        _range(bound("items_min"), bound("items_max"), " items"),
        f"matches `{found.pattern}`" if found.pattern else "",
        _text(text_of(found)),
        "must be set" if found.required else "",
        f"keys: {_constraint(found.keys)}" if found.HasField("keys") else "",
        f"values: {_constraint(found.values)}" if found.HasField("values") else "",
    ]
    return ", ".join(part for part in parts if part)


def type_of(field: FieldDescriptor) -> str:
    """Return a field's type, such as `uint32` or "repeated `Balance`"."""
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        key, value = (type_of(entry.fields_by_name[name]) for name in ("key", "value"))
        return f"map of {key} to {value}"
    composite = entry or field.enum_type
    if composite is None:
        number = FieldDescriptorProto.Type.ValueType(field.type)
        name = FieldDescriptorProto.Type.Name(number).removeprefix("TYPE_").lower()
        return f"optional `{name}`" if field.has_presence else f"`{name}`"
    owner = field.containing_type
    own = owner is not None and composite.file.package == owner.file.package
    shown = f"[`{composite.name}`](#{composite.name.lower()})" if own else f"`{composite.name}`"
    return f"repeated {shown}" if field.is_repeated else shown


def idempotency(method: MethodDescriptor) -> str:
    """Return what the contract promises about retries of a call."""
    return _IDEMPOTENCY[method.GetOptions().idempotency_level]


def _text(name: str) -> str:
    return f"[`{name}`](#text)" if name else ""


def _range(least: int | None, greatest: int | None, unit: str) -> str:
    match least, greatest:
        case None, None:
            return ""
        case None, _:
            return f"at most {greatest}{unit}"
        case _, None:
            return f"at least {least}{unit}"
        case _:
            return f"{least} to {greatest}{unit}"
