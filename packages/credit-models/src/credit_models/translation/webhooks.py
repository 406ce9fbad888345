"""The rules of webhooks that the contract defines in comments: their URLs and secrets."""

import binascii
from base64 import b64decode
from collections.abc import Iterator
from urllib.parse import urlsplit

from credit_models import RemoveWebhookRequest, SetWebhookRequest
from credit_models.errors import Violation

# Standard Webhooks: the prefix of a secret, and the sizes of its key in bytes.
SECRET_PREFIX = "whsec_"  # noqa: S105 - it is no secret
_KEY_BYTES_MIN, _KEY_BYTES_MAX = 24, 64


def webhook_rules(request: SetWebhookRequest | RemoveWebhookRequest) -> Iterator[Violation]:
    """Yield the violations of the URL and the secret of a request."""
    if request.url and not _is_url(request.url):
        what = "must be an https or http URL in ASCII, without a user and without a fragment"
        yield Violation(field="url", description=what)
    if isinstance(request, SetWebhookRequest) and request.secret:
        try:
            key_of(request.secret)
        except ValueError as error:
            yield Violation(field="secret", description=str(error))


def key_of(secret: str) -> bytes:
    """Return the key in a secret.

    Raises:
        ValueError: It is not a secret of Standard Webhooks.
    """
    try:
        key = b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if secret.startswith(SECRET_PREFIX) and _KEY_BYTES_MIN <= len(key) <= _KEY_BYTES_MAX:
        return key
    sizes = f"{_KEY_BYTES_MIN} to {_KEY_BYTES_MAX} bytes"
    raise ValueError(f"must be {SECRET_PREFIX} followed by base64 of {sizes}")


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # an invalid port is an error
        (host or "").encode("idna")  # the resolver rejects an empty label and a too long one
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and " " not in url
    own = parts.username is None and parts.password is None and "#" not in url
    return plain and own and bool(host) and parts.scheme in ("https", "http")
