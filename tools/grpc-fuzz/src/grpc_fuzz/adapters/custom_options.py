"""Options of the contract's own, which the configuration describes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from google.protobuf.descriptor import (
    EnumValueDescriptor,
    FieldDescriptor,
    MethodDescriptor,
    OneofDescriptor,
)

from grpc_fuzz.adapters.adapter import Options
from grpc_fuzz.constraint import Constraint
from grpc_fuzz.errors import Misuse
from grpc_fuzz.model import DeclaredError

MAPPABLE = frozenset(entry.name for entry in fields(Constraint)) - {"opaque"}
# These are rules of their own: the option holds them as messages of its own type.
_NESTED = frozenset({"item", "key"})


@dataclass(frozen=True, kw_only=True, slots=True)
class CustomFieldOptions:
    """The option that holds the constraint of a field.

    Attributes:
        extension: The full name of the extension of FieldOptions, a message.
        map: The names of the attributes of `Constraint`, each with the name of its field in the
            message, or with several names: the first field that is set counts. The fields of `item`
            and `key` are messages of the same type.
        texts: For the enum that `text` is mapped to: the names of its values, each with the name of
            a rule in `constraint.TEXT_RULES`.
    """

    extension: str
    map: Mapping[str, str | Sequence[str]]
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class CustomErrorOptions:
    """The options that declare the errors of a method.

    Attributes:
        extension: The full name of the extension of MethodOptions, a repeated enum of reasons.
        rule: The full name of the extension of EnumValueOptions, a message.
        reason_prefix: What the names of the enum's values have before the reason.
        status: The field of the rule that holds the status, an enum or a string.
        status_prefix: What the names of the statuses have before gRPC's own name.
        metadata: The field of the rule that lists the keys of `ErrorInfo.metadata`, or None.
        details: The field of the rule that lists further detail messages, or None.
    """

    extension: str
    rule: str
    reason_prefix: str = ""
    status: str = "status"
    status_prefix: str = ""
    metadata: str | None = None
    details: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CustomOptions:
    """An adapter for options that are specific to a contract."""

    field_options: CustomFieldOptions | None = None
    error_options: CustomErrorOptions | None = None

    def constraint(self, field: FieldDescriptor, options: Options) -> Constraint | None:
        """Return the constraint of a field, or None if it does not carry the option.

        Raises:
            Misuse: The configuration does not fit the option's message.
        """
        source = self.field_options
        if source is None:
            return None
        message = options.read(field, source.extension)
        return None if message is None else _constraint(source, message)

    def oneof_required(self, oneof: OneofDescriptor, options: Options) -> bool:
        """Return False, because the options are about fields."""
        return False

    def errors(
        self, method: MethodDescriptor, options: Options
    ) -> tuple[DeclaredError, ...] | None:
        """Return the errors that a method declares, or None if it does not carry the option.

        Raises:
            Misuse: A reason has no status, or the option is not an enum.
        """
        source = self.error_options
        if source is None:
            return None
        numbers = options.read(method, source.extension)
        if numbers is None:
            return None
        pool = method.containing_service.file.pool
        reasons = pool.FindExtensionByName(source.extension).enum_type
        if reasons is None:
            raise Misuse(f"{source.extension} is not an enum")
        return tuple(
            _error(reasons.values_by_number[number], source, options) for number in numbers
        )


# Any: the contract's message decides the types.
def _constraint(source: CustomFieldOptions, message: Any) -> Constraint:
    values: dict[str, Any] = {}
    for attribute, named in source.map.items():
        for name in [named] if isinstance(named, str) else named:
            member = message.DESCRIPTOR.fields_by_name.get(name)
            if member is None:
                raise Misuse(f"{source.extension} has no field {name}")
            value = getattr(message, name)
            if not (message.HasField(name) if member.has_presence else bool(value)):
                continue
            if attribute == "text":
                value = _text_rule(source, member, value)
            elif attribute in _NESTED:
                value = _constraint(source, value)
            values.setdefault(attribute, value)
    return Constraint(**values)


def _text_rule(source: CustomFieldOptions, member: FieldDescriptor, number: int) -> str:
    if member.enum_type is None:
        raise Misuse(f"{member.full_name} is not an enum")
    name = member.enum_type.values_by_number[number].name
    if name not in source.texts:
        raise Misuse(f"{name}: the table texts does not name a rule for this value")
    return source.texts[name]


def _error(
    value: EnumValueDescriptor, source: CustomErrorOptions, options: Options
) -> DeclaredError:
    rule = options.read(value, source.rule)
    if rule is None:
        raise Misuse(f"{value.name} carries no option {source.rule}")
    status = getattr(rule, source.status)
    if isinstance(status, int):
        statuses = rule.DESCRIPTOR.fields_by_name[source.status].enum_type
        status = statuses.values_by_number[status].name
    return DeclaredError(
        status=status.removeprefix(source.status_prefix),
        reason=value.name.removeprefix(source.reason_prefix),
        metadata=tuple(getattr(rule, source.metadata)) if source.metadata else (),
        details=tuple(getattr(rule, source.details)) if source.details else (),
    )
