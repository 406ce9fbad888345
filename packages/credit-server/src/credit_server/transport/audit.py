"""The audit log: one line for each write and each refusal of access; who, what and what came of it.

No secrets: of what proves an identity only the name is written.
"""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import structlog
from credit_models import AppId, CreditRequest, PurchaseRequest
from google.rpc.error_details_pb2 import ErrorInfo
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from credit_server.ledger import Receipt
from credit_server.transport.call import Call

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
        """Return a context in which a write happens; its line is written on leaving it."""
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
        self.record(call, what, _outcome(error))

    def record(self, call: Call[Any, Any], what: Line, outcome: Line) -> None:
        """Write one line.

        Args:
            call: The call. Any: a call of any messages.
            what: What was asked for.
            outcome: What came of it.
        """
        if self._sink is None:
            return
        who: dict[str, str] = {"peer": call.peer_name}
        if call.identity is not None:
            who["identity"] = call.identity.name
        self._sink(
            {
                **who,
                "method": call.path[:_PATH_CHARACTERS_MAX],
                **what,
                **outcome,
                "request_id": call.request_id,
            }
        )


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
        self._request = request

    def __enter__(self) -> "AuditedWrite":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._audit.record(self._call, _asked(self._request), self._outcome(error))

    def _outcome(self, error: BaseException | None) -> Line:
        if self.receipt is not None:
            return {
                "status": Status.OK.name,
                "transaction_id": self.receipt.transaction.id,
                "replayed": self.receipt.replayed,
            }
        if isinstance(error, GRPCError):
            return _outcome(error)
        if isinstance(error, Exception):
            return {"status": Status.INTERNAL.name}
        # The caller left, or the deadline has passed: the write may happen all the same, and the
        # history tells under its key.
        return {"status": Status.CANCELLED.name}


def _asked(request: CreditRequest | PurchaseRequest) -> Line:
    return {
        "user_id": request.user_id,
        "app_id": request.app_id,
        "credits": request.credits,
        "created_by": request.created_by,
        "key": request.idempotency_key[:_KEY_CHARACTERS_MAX],
    }


def _outcome(error: GRPCError) -> Line:
    outcome = {"status": error.status.name}
    info = next((detail for detail in error.details or () if isinstance(detail, ErrorInfo)), None)
    if info is not None:
        outcome["reason"] = info.reason
    return outcome
