"""What an adapter must be able to say about a contract's options."""

from typing import Protocol

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, OneofDescriptor

from grpc_fuzz.adapters.options import Options
from grpc_fuzz.constraint import Constraint
from grpc_fuzz.model import DeclaredError


class Adapter(Protocol):
    """Reads one family of options. An adapter that finds none of them says None, or False."""

    def constraint(self, field: FieldDescriptor, options: Options) -> Constraint | None:
        """What the field may hold."""

    def oneof_required(self, oneof: OneofDescriptor, options: Options) -> bool:
        """Whether one of the members must be set."""

    def errors(
        self, method: MethodDescriptor, options: Options
    ) -> tuple[DeclaredError, ...] | None:
        """With which errors the method may refuse."""
