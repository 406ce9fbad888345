"""Tokens as an operator issues them for development."""

from collections.abc import Sequence
from pathlib import Path

from credit_server.development.command import AUDIENCE, ISSUER
from credit_server.development.token import Grant, issue_token

EVERYTHING = ["credits:issue", "credits:spend", "credits:read"]


def token_options(public: Path) -> tuple[str, ...]:
    """Return the options of a server that accepts tokens of the key pair with this public part."""
    return "--token-keys", str(public), "--token-issuer", ISSUER, "--token-audience", AUDIENCE


def token(
    private: Path, subject: str, *, app: int, actor: int, scopes: Sequence[str] = EVERYTHING
) -> str:
    """Return a token for one app, which is valid for an hour."""
    grant = Grant(
        subject=subject,
        scopes=list(scopes),
        apps=[app],
        actor=actor,
        impersonate=False,
        minutes=60,
        issuer=ISSUER,
        audience=AUDIENCE,
    )
    return issue_token(private, grant)
