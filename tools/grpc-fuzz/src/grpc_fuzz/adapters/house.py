"""The options that a house has made for itself, described in the configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from google.protobuf.descriptor import (
    EnumValueDescriptor,
    FieldDescriptor,
    MethodDescriptor,
    OneofDescriptor,
)

from grpc_fuzz.adapters.options import Options
from grpc_fuzz.constraint import Constraint
from grpc_fuzz.misuse import Misuse
from grpc_fuzz.model import DeclaredError

MAPPABLE = frozenset(entry.name for entry in fields(Constraint)) - {"item", "key", "opaque"}


@dataclass(frozen=True, kw_only=True, slots=True)
class HouseFields:
    """Where a house writes what a field may hold.

    Attributes:
        extension: The full name of the extension of FieldOptions, a message.
        map: The names of `Constraint`, each with the name that the message has for it.
        texts: For the enum that `text` is mapped to: its values' names, each with the name of the
            rule in `texts.TEXT_RULES`.
    """

    extension: str
    map: Mapping[str, str]
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class HouseErrors:
    """Where a house writes with which errors a method may refuse.

    Attributes:
        extension: The full name of the extension of MethodOptions, a repeated enum of reasons.
        reason_prefix: What the names of the enum's values have before the reason.
        rule: The full name of the extension of EnumValueOptions, a message.
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
class House:
    """An adapter to options of that shape."""

    fields: HouseFields | None = None
    errors_from: HouseErrors | None = None

    def constraint(self, field: FieldDescriptor, options: Options) -> Constraint | None:
        """What the field may hold, or None where it carries no such option."""
        if self.fields is None:
            return None
        message = options.read(field, self.fields.extension)
        if message is None:
            return None
        values: dict[str, Any] = {}  # Any: the names and types are those of the house's message.
        for ours, theirs in self.fields.map.items():
            member = message.DESCRIPTOR.fields_by_name.get(theirs)
            if member is None:
                raise Misuse(f"{self.fields.extension} has no field {theirs}")
            value = getattr(message, theirs)
            if message.HasField(theirs) if member.has_presence else bool(value):
                values[ours] = self._text(member, value) if ours == "text" else value
        return Constraint(**values)

    def _text(self, member: FieldDescriptor, number: int) -> str:
        if self.fields is None or member.enum_type is None:
            raise Misuse(f"{member.full_name} is not an enum")
        name = member.enum_type.values_by_number[number].name
        if name not in self.fields.texts:
            raise Misuse(f"{name}: texts does not say which rule it stands for")
        return self.fields.texts[name]

    def oneof_required(self, oneof: OneofDescriptor, options: Options) -> bool:
        """Never: such options speak of fields."""
        return False

    def errors(
        self, method: MethodDescriptor, options: Options
    ) -> tuple[DeclaredError, ...] | None:
        """With which errors the method may refuse, or None where it carries no such option.

        Raises:
            Misuse: A reason does not say with which status it comes.
        """
        source = self.errors_from
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


def _error(value: EnumValueDescriptor, source: HouseErrors, options: Options) -> DeclaredError:
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
