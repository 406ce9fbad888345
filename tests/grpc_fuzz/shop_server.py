"""A shop server that conforms to its contract, except for one bug at a time."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_fuzz import checks, runner
from grpc_fuzz.credentials import Credentials
from grpc_fuzz.model import PHASES, Limits
from grpc_fuzz.outcome import Outcome
from grpc_fuzz.settings import Settings
from grpc_fuzz.target import Target

from tests.grpc_fuzz.contracts import shop_schema
from tests.grpc_fuzz.http2_server import CallError, Http2Server, NoReply, binary

_CODES = {"INVALID_ARGUMENT": 3, "NOT_FOUND": 5, "ALREADY_EXISTS": 6}
# A token in the form of a JWT: header, claims and signature.
TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl"
# More than the shop accepts.
_LONG = 2**31


class Shop:
    """The service of the shop.

    Args:
        bug: The name of the check that must fail, or "forgets_to_look" for a bug that needs a
            sequence of calls, or one of `BROKEN_AUTHENTICATION`; None for no bug.
        token: The bearer token that every call must carry, or None.
    """

    def __init__(self, bug: str | None = None, token: str | None = None) -> None:
        self.bug = bug
        self._token = token
        self.server = Http2Server(
            self.handle, one_message=bug != "protocol_status", admit=self.admit
        )
        self._schema = shop_schema()
        self._methods = {method.path: method for method in self._schema.methods}
        self._lock = threading.Lock()
        self._orders: dict[str, Any] = {}
        self._removed: set[str] = set()
        self._by_key: dict[str, tuple[bytes, str]] = {}

    def admit(self, path: str, authorization: str | None) -> None:
        """Authenticate a call."""
        if self._token is None or path not in self._methods:
            return
        admits = BROKEN_AUTHENTICATION.get(self.bug or "", _admits)
        if not admits(self._token, path, authorization):
            raise CallError("UNAUTHENTICATED", "no valid token")

    def handle(self, path: str, data: bytes) -> list[bytes]:
        """Handle one call."""
        if path not in self._methods:
            raise CallError("UNIMPLEMENTED", "there is no such method")
        method = self._methods[path]
        try:
            request: Any = self._schema.parse(method.input, data)
        except DecodeError:
            raise CallError("INTERNAL", "the message cannot be parsed") from None
        self._misbehave(method.name, request, data)
        self._validate(request)
        with self._lock:
            call = {"Put": self._put, "Get": self._get, "List": self._list, "Remove": self._remove}
            return [self._serialize(order) for order in call[method.name](request)]

    def _misbehave(self, name: str, request: Any, data: bytes) -> None:
        """Run the bugs that precede validation."""
        match self.bug:
            case "always_replies" if name == "Get":
                raise NoReply
            case "answers_before_deadline" if name == "Get":
                time.sleep(0.5)  # the bug itself, for as long as the deadline of its test
                raise CallError("DEADLINE_EXCEEDED")
            case "server_still_healthy" if name == "Put" and request.discount == 100:
                self.server.dead.set()
                raise NoReply
            case "not_a_server_error" if name == "Put" and request.count >= _LONG:
                raise CallError("UNKNOWN", "unexpected")
            case "unknown_fields_tolerated" if _has_unknown_fields(request, data):
                raise self._error("INVALID_ARGUMENT", "INVALID", fields=("unknown",))
            case "unset_equals_zero" if name == "Put" and b"\x18\x00" in data:
                raise self._error("INVALID_ARGUMENT", "INVALID", fields=("discount",))
            case "max_response_time" if name == "List":
                time.sleep(0.1)  # the bug itself

    def _validate(self, request: Any) -> None:
        wrong = [
            field.name
            for field in request.DESCRIPTOR.fields
            if self._is_wrong(field, getattr(request, field.name))
        ]
        if wrong:
            if self.bug == "broken_field_named":
                wrong = ["something"]
            raise self._error("INVALID_ARGUMENT", "INVALID", fields=tuple(wrong))

    def _is_wrong(self, field: Any, value: Any) -> bool:
        rule = self._schema.constraint(field)
        broken = bool(rule.broken_by(value)) or (rule.required and not value)
        if self.bug == "negative_data_rejected" and field.name == "count":
            return False
        if self.bug == "positive_data_accepted" and field.name == "discount":
            return broken or value == rule.maximum
        return broken

    def _put(self, request: Any) -> list[Any]:
        if request.key and self.bug != "idempotent_replay":
            fingerprint, order_id = self._by_key.setdefault(
                request.key, (request.SerializeToString(deterministic=True), uuid.uuid4().hex)
            )
            if fingerprint != request.SerializeToString(deterministic=True):
                raise self._error("ALREADY_EXISTS", "KEY_REUSED")
        else:
            order_id = uuid.uuid4().hex
        order: Any = self._schema.message_class(self._methods["/shop.v1.Orders/Put"].output)()
        order.id, order.item, order.count = order_id, request.item, request.count
        known = request.size in {
            value.number for value in order.DESCRIPTOR.fields_by_name["size"].enum_type.values
        }
        order.size = request.size if known else 0
        self._orders[order_id] = order
        return [order]

    def _get(self, request: Any) -> list[Any]:
        if self.bug == "forgets_to_look" and request.order_id in self._removed:
            raise CallError("UNKNOWN", "unexpected")
        return [self._order(request.order_id)]

    def _list(self, request: Any) -> list[Any]:
        return [
            order for _, order in zip(range(request.limit), self._orders.values(), strict=False)
        ]

    def _remove(self, request: Any) -> list[Any]:
        order = self._order(request.order_id)
        del self._orders[request.order_id]
        self._removed.add(request.order_id)
        return [order]

    def _order(self, order_id: str) -> Any:
        if order_id in self._orders:
            return self._orders[order_id]
        if self.bug == "documented_status":
            raise CallError("ABORTED", "undocumented")
        raise self._error("NOT_FOUND", "NO_ORDER", order_id=order_id)

    def _serialize(self, order: Message) -> bytes:
        data = order.SerializeToString(deterministic=True)
        if self.bug == "response_conforms":
            return data + b"\x20\x07"  # a size that the contract does not define
        if self.bug == "response_known_fields":
            return data + b"\x78\x01"  # the field 15
        if self.bug == "response_canonical":
            return b"\x18\x00" + data  # a count of zero before the real one
        return data

    def _error(
        self, status: str, reason: str, fields: tuple[str, ...] = (), **metadata: str
    ) -> CallError:
        message = f"refused: {', '.join(fields)}"
        if self.bug == "no_internal_leak":
            message += '\nTraceback (most recent call last):\n  File "/srv/shop.py", line 3'
        if self.bug == "error_details_decodable":
            return CallError(status, message, [("grpc-status-details-bin", binary(b"\xff\xff"))])
        info = error_details_pb2.ErrorInfo(reason=reason, domain="shop.v1", metadata=metadata)
        details: list[Message] = [info]
        if fields:
            violations = [
                error_details_pb2.BadRequest.FieldViolation(field=name, description="is wrong")
                for name in fields
            ]
            details.append(error_details_pb2.BadRequest(field_violations=violations))
        rich = status_pb2.Status(code=_CODES[status], message=message)
        for detail in details:
            packed = AnyMessage()
            packed.Pack(detail)
            rich.details.append(packed)
        return CallError(
            status, message, [("grpc-status-details-bin", binary(rich.SerializeToString()))]
        )


def _has_unknown_fields(request: Message, data: bytes) -> bool:
    copy = type(request).FromString(data)
    copy.DiscardUnknownFields()
    return copy.SerializeToString(deterministic=True) != request.SerializeToString(
        deterministic=True
    )


def _admits(token: str, path: str, authorization: str | None) -> bool:
    return authorization == f"Bearer {token}"


def _unsigned(token: str, path: str, authorization: str | None) -> bool:
    """Behave like a JWT library that trusts the algorithm in the header of the token."""
    sent = (authorization or "").removeprefix("Bearer ")
    return sent == token or sent.endswith(f".{token.split('.')[1]}.")


# Implementations of authentication with a bug each.
BROKEN_AUTHENTICATION: Mapping[str, Callable[[str, str, str | None], bool]] = {
    "ignored_auth": lambda token, path, sent: sent == f"Bearer {token}" or path.endswith("/Get"),
    "credentials_accepted": lambda token, path, sent: False,
    "takes_any_token": lambda token, path, sent: sent is not None,
    "asks_no_signature": lambda token, path, sent: token.rpartition(".")[0] in (sent or ""),
    "takes_unsigned_tokens": _unsigned,
    "never_looks_at_the_clock": lambda token, path, sent: sent in (f"Bearer {token}", "Bearer old"),
}


@contextmanager
def running_shop(bug: str | None = None, token: str | None = None) -> Iterator[int]:
    """Serve the shop, and yield its port."""
    with Shop(bug, token).server.running() as port:
        yield port


def fuzz_shop(
    folder: Path,
    bug: str | None = None,
    *,
    check: str | None = None,
    phases: tuple[str, ...] = PHASES,
    limits: Limits | None = None,
    include_methods: tuple[str, ...] = (),
) -> Outcome:
    """Run a shop with a bug, and fuzz it."""
    with running_shop(bug, TOKEN) as port:
        settings = Settings(
            target=Target(host="127.0.0.1", port=port),
            phases=phases,
            checks=None if check is None else (check,),
            max_examples=25,
            max_failures=1 if check else None,
            idempotency_key="key",
            credentials=Credentials(token=TOKEN, expired="old"),
            state_directory=folder,
            include_methods=include_methods,
            limits=limits or Limits(request_timeout=5.0),
            extra_checks=() if check else tuple(entry.name for entry in checks.ALL),
            strict_wire=True,
        )
        return runner.run(settings, shop_schema())
