"""Variables that begin with CREDIT_ and set nothing: a typing error would pass unnoticed."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from credit_server.settings.server import ServerSettings

_PREFIX = "CREDIT_"

# Written down, because the server does not import the SDK; a test compares them with its settings.
_OF_THE_SDK = frozenset(
    {
        "CREDIT_BY",
        "CREDIT_CHANNELS",
        "CREDIT_CONNECT_TIMEOUT_SECONDS",
        "CREDIT_KEEPALIVE_SECONDS",
        "CREDIT_KEEPALIVE_TIMEOUT_SECONDS",
        "CREDIT_RETRY_ATTEMPTS_MAX",
        "CREDIT_RETRY_BACKOFF_INITIAL_SECONDS",
        "CREDIT_RETRY_BACKOFF_MAX_SECONDS",
        "CREDIT_RETRY_BUDGET_RATIO",
        "CREDIT_RETRY_BUDGET_TOKENS",
        "CREDIT_TARGET",
        "CREDIT_TIMEOUT_SECONDS",
        "CREDIT_TLS",
        "CREDIT_TLS_CA",
        "CREDIT_TLS_CLIENT_CERTIFICATE",
        "CREDIT_TLS_CLIENT_KEY",
        "CREDIT_TOKEN",
        "CREDIT_TOKEN_FILE",
        "CREDIT_TOKEN_INSECURE",
        "CREDIT_WAIT_FOR_READY",
    }
)

# What Kubernetes sets in every container for a Service whose name begins with "credit":
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_OF_KUBERNETES = re.compile(
    r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)
_URL_OF_KUBERNETES = re.compile(r"(tcp|udp|sctp)://")


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Pick the variables that set nothing, neither of the server nor of the SDK.

    Args:
        environment: Values by name; names in any case, as the settings take them.

    Returns:
        Each as a phrase for people, such as `CREDIT_PROT (CREDIT_PORT?)`, in alphabetical order.
        No value is in it.
    """
    known = {_PREFIX + name.upper() for name in ServerSettings.model_fields}
    return [
        _told(name, known)
        for name, value in sorted(environment.items())
        if name.upper().startswith(_PREFIX)
        and name.upper() not in known | _OF_THE_SDK
        and not _OF_KUBERNETES.fullmatch(name.upper())
        and not _URL_OF_KUBERNETES.match(value)
    ]


def _told(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name.upper(), sorted(known), n=1)
    return f"{name} ({close[0]}?)" if close else name
