"""What a run covered of the contract: request fields, enum values, statuses and reasons."""

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from grpc_fuzz.model import Case, Method, Reply
from grpc_fuzz.replies import reason_of
from grpc_fuzz.schema import Schema, is_map

_LEVELS = 4


class ContractCoverage:
    """Counts what the cases and replies of a run cover. Safe to share between threads."""

    def __init__(self, schema: Schema, methods: Iterable[Method]) -> None:
        self._schema = schema
        self._lock = threading.Lock()
        self.methods = tuple(methods)
        self.statuses: dict[str, Counter[str]] = defaultdict(Counter)
        self.reasons: dict[str, Counter[str]] = defaultdict(Counter)
        self.covered: dict[str, set[str]] = defaultdict(set)

    def count(self, case: Case, reply: Reply) -> None:
        """Count one call."""
        path = case.method.path
        covered = set() if case.wire is not None else self._covered(case)
        reason = reason_of(reply)
        with self._lock:
            self.statuses[path][reply.status or "no reply"] += 1
            if reason is not None:
                self.reasons[path][reason] += 1
            self.covered[path] |= covered

    def _covered(self, case: Case) -> set[str]:
        covered: set[str] = set()
        for request in case.requests:
            try:
                message = self._schema.parse(case.method.input, request)
            except DecodeError:
                continue
            covered |= set(_set_in(message, ""))
        return covered

    # Any: JSON.
    def to_json(self) -> dict[str, Any]:
        """Return what was covered, and what the contract has, by method."""
        return {method.path: self._method_to_json(method) for method in self.methods}

    def _method_to_json(self, method: Method) -> dict[str, Any]:
        path = method.path
        existing = sorted(_settable(method.input, "", _LEVELS))
        reasons = [error.reason for error in method.declared or () if error.reason is not None]
        return {
            "statuses": dict(self.statuses[path]),
            "reasons": dict(self.reasons[path]),
            "declared_statuses": sorted(method.declared_statuses or ()),
            "declared_reasons": reasons,
            "fields": {name: name in self.covered[path] for name in existing},
        }

    def save(self, path: Path) -> None:
        """Write the file for the `coverage` command."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_json(), indent=1, sort_keys=True))


def _set_in(message: Message, prefix: str) -> Iterable[str]:
    """Yield the paths of the fields that are set, with "=NAME" for the values of enums."""
    for field, value in message.ListFields():
        path = f"{prefix}{field.name}"
        yield path
        entries = [value] if not field.is_repeated else list(value)
        if is_map(field):
            continue
        for entry in entries:
            if isinstance(entry, Message):
                yield from _set_in(entry, f"{path}.")
            elif field.enum_type is not None:
                yield f"{path}={_value_name(field, entry)}"


def _value_name(field: FieldDescriptor, number: int) -> str:
    named = cast(EnumDescriptor, field.enum_type).values_by_number.get(number)
    return named.name if named is not None else "(unknown)"


def _settable(descriptor: Descriptor, prefix: str, levels: int) -> Iterable[str]:
    for field in descriptor.fields:
        path = f"{prefix}{field.name}"
        yield path
        if field.enum_type is not None:
            # An enum that is not set has the zero value.
            numbers = field.enum_type.values_by_number
            yield from (f"{path}={entry.name}" for number, entry in numbers.items() if number)
        elif field.message_type is not None and levels > 0 and not is_map(field):
            yield from _settable(field.message_type, f"{path}.", levels - 1)
