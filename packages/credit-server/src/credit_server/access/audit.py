"""The audit log: one line for each write and each refusal of access; who, what and what came of it.

No secrets: of what proves an identity only the name is written.
"""

import contextvars
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import structlog
from credit_models import AppId, CreditRequest, PurchaseRequest
from google.rpc.error_details_pb2 import ErrorInfo
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from credit_server.grpc.call import Call
from credit_server.ledger import Receipt

Line = Mapping[str, str | int | bool]
Sink = Callable[[Line], None]
"""Takes one line; must not raise."""

_PATH_CHARACTERS_MAX = 128
"""Longer than any that is served; strangers may call what they like."""

_KEY_CHARACTERS_MAX = 128
"""The contract's bound; a longer key is refused, and its line need not be longer than others."""

_log = structlog.get_logger("credit_server.audit")


def ordinary_log(line: Line) -> None:
    """Write a line to the server's ordinary log, at level info."""
    _log.info("audit", **line)


class AuditLog:
    """Writes what was done, and what was refused to whom."""

    def __init__(self, sink: Sink | None) -> None:
        """Prepare.

        Args:
            sink: Where lines go; None: nowhere.
        """
        self._sink = sink

    def write(
        self, call: Call[Any, Any], request: CreditRequest | PurchaseRequest
    ) -> "AuditedWrite":
        """Return a context in which a write happens.

        Its line is written on leaving it, or, where the caller has gone before that, once it is
        known what came of the write.
        """
        return AuditedWrite(self, call, request)

    def refused(self, call: Call[Any, Any], error: GRPCError, request: AppId | None = None) -> None:
        """Write that access was refused.

        Args:
            call: The call. Any: a call of any messages.
            error: The refusal.
            request: What it asked for, where that has been read and it is no write.
        """
        what: dict[str, str | int | bool] = {}
        if request is not None:
            what["app_id"] = request.app_id
            if request.user_id is not None:
                what["user_id"] = request.user_id
        self.record(call, {**_who(call), **what}, _refusal(error))

    def record(self, call: Call[Any, Any], what: Line, outcome: Line) -> None:
        """Write one line.

        Args:
            call: The call. Any: a call of any messages.
            what: Who asked for what.
            outcome: What came of it.
        """
        if self._sink is not None:
            self._sink({**what, **outcome, "request_id": call.request_id})


class AuditedWrite:
    """A write under way.

    Attributes:
        receipt: What the ledger has accepted; None until then.
    """

    receipt: Receipt | None

    def __init__(
        self,
        audit: AuditLog,
        call: Call[Any, Any],
        request: CreditRequest | PurchaseRequest,
    ) -> None:
        self.receipt = None
        self._audit = audit
        self._call = call
        # Now: a connection that has gone knows its peer no more.
        self._what = {**_who(call), **_asked(request)}
        self._context = contextvars.copy_context()
        self._told = False

    def __enter__(self) -> "AuditedWrite":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The caller has left, or the deadline has passed: `outlived` will be told.
        if error is None or isinstance(error, Exception):
            self._record(_outcome(error or self.receipt))

    def outlived(self, ending: Receipt | BaseException | None) -> None:
        """Write what came of a write whose caller has gone.

        Args:
            ending: What was accepted, or why not; None: it was dropped, and had no effect.
        """
        # In what the call is logged with: it may be the batch that tells.
        self._context.run(self._record, {**_outcome(ending), "answered": False})

    def _record(self, outcome: Line) -> None:
        if not self._told:
            self._told = True
            self._audit.record(self._call, self._what, outcome)


def _who(call: Call[Any, Any]) -> Line:
    identity = {} if call.identity is None else {"identity": call.identity.name}
    return {"peer": call.peer_name, **identity, "method": call.path[:_PATH_CHARACTERS_MAX]}


def _asked(request: CreditRequest | PurchaseRequest) -> Line:
    return {
        "user_id": request.user_id,
        "app_id": request.app_id,
        "credits": request.credits,
        "created_by": request.created_by,
        "key": request.idempotency_key[:_KEY_CHARACTERS_MAX],
    }


def _outcome(ending: Receipt | BaseException | None) -> Line:
    if isinstance(ending, Receipt):
        return {
            "status": Status.OK.name,
            "transaction_id": ending.transaction.id,
            "replayed": ending.replayed,
        }
    if isinstance(ending, GRPCError):
        return _refusal(ending)
    return {"status": (Status.CANCELLED if ending is None else Status.INTERNAL).name}


def _refusal(error: GRPCError) -> Line:
    outcome = {"status": error.status.name}
    info = next((detail for detail in error.details or () if isinstance(detail, ErrorInfo)), None)
    if info is not None:
        outcome["reason"] = info.reason
    return outcome
