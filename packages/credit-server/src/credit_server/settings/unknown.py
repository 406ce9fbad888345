"""Variables that begin with CREDIT_ and set nothing: a typing error would go unnoticed."""

import re
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches

from credit_server.settings.fields import PREFIX, settings_of
from credit_server.settings.server import ServerSettings

# Listed here because the server does not import the SDK. A test compares them with its settings.
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

_REMOVED = frozenset(
    {
        "CREDIT_COMMIT_BATCH_MAX",
        "CREDIT_COMMIT_LANES",
        "CREDIT_CONNECTION_AGE_GRACE_SECONDS",
        "CREDIT_CONNECTION_CLOSING_SECONDS",
        "CREDIT_CONNECTION_CONTROL_FRAMES_BURST",
        "CREDIT_CONNECTION_CONTROL_FRAMES_PER_SECOND",
        "CREDIT_CONNECTION_KEEPALIVE_TIMEOUT_SECONDS",
        "CREDIT_CONNECTION_REQUEST_BYTES_MAX",
        "CREDIT_CONNECTION_RESETS_BURST",
        "CREDIT_CONNECTION_RESETS_PER_SECOND",
        "CREDIT_CONNECTION_STREAM_WINDOW_BYTES",
        "CREDIT_CONNECTION_WINDOW_BYTES",
        "CREDIT_CONNECTION_WRITE_BUFFER_BYTES",
        "CREDIT_FAILURES_BURST",
        "CREDIT_HEALTH_TIMEOUT_SECONDS",
        "CREDIT_LIST_PAGES_AT_ONCE",
        "CREDIT_LIST_PAGE_SIZE",
        "CREDIT_LIST_WAIT_SECONDS_MAX",
        "CREDIT_OVERLOAD_STREAMS_MAX",
        "CREDIT_RATE_BURST",
        "CREDIT_RATE_NAMES_MAX",
        "CREDIT_TOKEN_CACHE_MAX",
        "CREDIT_TOKEN_LENGTH_MAX",
    }
)
_REMOVED_AFTER = "0.2.0"

# What Kubernetes sets in every container for a Service whose name begins with "credit":
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_OF_KUBERNETES = re.compile(
    r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)
_URL_OF_KUBERNETES = re.compile(r"(tcp|udp|sctp)://")


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the variables that set nothing, neither of the server nor of the SDK.

    Args:
        environment: Values by name; a name may be in any case, as for the settings.

    Returns:
        A phrase for each, such as `CREDIT_PROT (CREDIT_PORT?)`, in alphabetical order. It contains
        no value.
    """
    known = {setting.variable for setting in settings_of(ServerSettings)}
    return [
        _phrase(name, known)
        for name, value in sorted(environment.items())
        if name.upper().startswith(PREFIX)
        and name.upper() not in known | _OF_THE_SDK
        and not _OF_KUBERNETES.fullmatch(name.upper())
        and not _URL_OF_KUBERNETES.match(value)
    ]


def removed_options(arguments: Sequence[str]) -> list[str]:
    """Return a sentence for each option of a command line that was a setting once."""
    names = [argument.partition("=")[0] for argument in arguments]
    return [
        f"{name} was removed after {_REMOVED_AFTER}."
        for name in names
        if name.startswith("--") and PREFIX + name[2:].upper().replace("-", "_") in _REMOVED
    ]


def _phrase(name: str, known: Collection[str]) -> str:
    if name.upper() in _REMOVED:
        return f"{name} (removed after {_REMOVED_AFTER})"
    close = get_close_matches(name.upper(), sorted(known), n=1)
    return f"{name} ({close[0]}?)" if close else name
