"""Make calls as a tenant, with real tokens, and return all bytes of the answers."""

import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from credit_models.scopes import SCOPES
from credit_server.development.command import AUDIENCE, ISSUER
from credit_server.development.token import Grant, issue_token
from grpc_fuzz.client import Client
from grpc_fuzz.model import Case, Limits, Reply
from grpc_fuzz.replies import reason_of
from grpc_fuzz.schema import Schema
from grpc_fuzz.target import Target

from tests.fuzz.scripts import IMAGE
from tests.fuzz.tenant_model import Tenant

SERVICE = "credit.v1.CreditService"
_TRIES, _PAUSE_SECONDS = 100, 0.1
_MINUTES = 25 * 60
"""How long a token is valid: longer than any run."""


class Calls:
    """Make calls to a server as any tenant, all on one connection.

    Attributes:
        answers: How often each status or reason was answered.
        sent: The paths of the calls that were made, each with the fields that were set.
    """

    def __init__(self, address: str, key_file: Path) -> None:
        self._schema = Schema.from_file(IMAGE, ())
        limits = Limits(request_timeout=30.0, slack=5.0)
        self._client = Client(Target.parse(address), self._schema, limits)
        self._key_file = key_file
        self.answers: Counter[str] = Counter()
        self.sent: dict[str, set[str]] = defaultdict(set)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def token(self, tenant: Tenant) -> str:
        """Return a token with all scopes of a tenant."""
        return self._token(tenant.name, apps=sorted(tenant.apps), actor=tenant.actor)

    def operators_token(self) -> str:
        """Return a token with all scopes, for all apps and in the name of any actor."""
        return self._token("operator", apps=None, actor=None)

    def _token(self, subject: str, *, apps: list[int] | None, actor: int | None) -> str:
        grant = Grant(
            subject=subject,
            scopes=sorted(SCOPES),
            apps=apps,
            actor=actor,
            impersonate=actor is None,
            minutes=_MINUTES,
            issuer=ISSUER,
            audience=AUDIENCE,
        )
        return issue_token(self._key_file, grant)

    # Any: a field's value has the type that the contract gives it; so has a message's.
    def make(self, token: str, name: str, **fields: Any) -> tuple[Reply, list[Any]]:
        """Make a call, retry it while the server is busy, and return the reply and its messages.

        Args:
            token: The caller's token.
            name: The call's name; that of another service begins with the service's.
            fields: The fields of the request.
        """
        path = f"/credit.v1.{name}" if "/" in name else f"/{SERVICE}/{name}"
        method = self._schema.method(path)
        request = self._schema.message_class(method.input)(**fields)
        reply = self.send(token, path, request.SerializeToString())
        return reply, [self._schema.parse(method.output, data) for data in reply.responses]

    def send(self, token: str, path: str, request: bytes) -> Reply:
        """Make a call with the bytes of its request, and retry it while the server is busy."""
        method = self._schema.method(path)
        message = self._schema.parse(method.input, request)
        self.sent[path] |= {field.name for field, _ in message.ListFields()}
        case = Case(
            method=method,
            phase="stateful",
            positive=None,
            requests=(request,),
            metadata=(("authorization", f"Bearer {token}"),),
        )
        for _ in range(_TRIES):
            reply = self._client.send(case)
            if reply.status != "UNAVAILABLE":
                break
            time.sleep(_PAUSE_SECONDS)
        self.answers[reason_of(reply) or str(reply.status)] += 1
        return reply

    def receipt(self, reply: Reply) -> Any:
        """Return the receipt in the trailers of a write."""
        found = reply.trailer("credit-receipt-bin")
        assert isinstance(found, bytes), f"there is no receipt: {reply}"
        return self._schema.parse(
            self._schema.pool.FindMessageTypeByName("credit.v1.Receipt"), found
        )


def octets_of(reply: Reply) -> bytes:
    """Return all bytes of an answer, so that a search in it misses no field."""
    parts: list[str | bytes] = [reply.message, *reply.responses]
    for key, value in (*reply.initial_metadata, *reply.trailers):
        parts += [key, value]
    return b"\0".join(part.encode() if isinstance(part, str) else part for part in parts)
