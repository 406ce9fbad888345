"""Sign messages by the scheme of Standard Webhooks.

See https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md.
"""

import hmac
import secrets
from base64 import b64encode
from collections.abc import Mapping

from credit_models.translation.webhooks import SECRET_PREFIX, key_of

_KEY_BYTES = 32


def new_secret() -> str:
    """Return a new secret."""
    return SECRET_PREFIX + b64encode(secrets.token_bytes(_KEY_BYTES)).decode()


def headers_of(id_: str, timestamp: int, body: bytes, secret: str) -> Mapping[str, str]:
    """Return the headers of a message.

    Args:
        id_: The id of the message, which is the same for each attempt to deliver it.
        timestamp: The time of the attempt, in seconds since 1970.
        body: The body.
        secret: The secret of the webhook.
    """
    content = f"{id_}.{timestamp}.".encode() + body
    signature = b64encode(hmac.digest(key_of(secret), content, "sha256")).decode()
    return {
        "webhook-id": id_,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signature}",
    }
