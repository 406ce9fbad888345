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
        "CREDIT_STREAMS",
        "CREDIT_TARGET",
        "CREDIT_TIMEOUT_SECONDS",
        "CREDIT_TLS",
        "CREDIT_TLS_CA",
        "CREDIT_TLS_CLIENT_CERTIFICATE",
        "CREDIT_TLS_CLIENT_KEY",
        "CREDIT_TOKEN",
        "CREDIT_TOKEN_FILE",
        "CREDIT_TOKEN_INSECURE",
        "CREDIT_USERS_APP_ID",
        "CREDIT_WAIT_FOR_READY",
    }
)

# The removed settings by the last release that had them, each with what now applies instead.
_REMOVED = {
    "0.2.0": {
        "CREDIT_CALL_DEADLINE_SECONDS": "the deadline is 30 s if the client sets none",
        "CREDIT_COMMIT_BATCH_MAX": "the value is always 256",
        "CREDIT_COMMIT_CACHE_MAX": "the value is always 100000",
        "CREDIT_COMMIT_LANES": "the value is always 2",
        "CREDIT_COMMIT_RETRY_SECONDS": "the value is always 10",
        "CREDIT_CONNECTION_AGE_GRACE_SECONDS": "the value is always 60",
        "CREDIT_CONNECTION_CLOSING_SECONDS": "the value is always 1",
        "CREDIT_CONNECTION_CONTROL_FRAMES_BURST": "the value is always 2000",
        "CREDIT_CONNECTION_CONTROL_FRAMES_PER_SECOND": "the value is always 500",
        "CREDIT_CONNECTION_HANDSHAKE_SECONDS": "the value is always 10",
        "CREDIT_CONNECTION_HEADER_BYTES_MAX": "the value is always 16384",
        "CREDIT_CONNECTION_KEEPALIVE_SECONDS": "the value is always 60",
        "CREDIT_CONNECTION_KEEPALIVE_TIMEOUT_SECONDS": "the value is always 20",
        "CREDIT_CONNECTION_LISTS_MAX": "the value is always 16",
        "CREDIT_CONNECTION_REQUEST_BYTES_MAX": "the value is always 4194304",
        "CREDIT_CONNECTION_RESETS_BURST": "the value is always 1000",
        "CREDIT_CONNECTION_RESETS_PER_SECOND": "the value is always 200",
        "CREDIT_CONNECTION_STREAM_WINDOW_BYTES": "the value is always 65535",
        "CREDIT_CONNECTION_WINDOW_BYTES": "the value is always 1048576",
        "CREDIT_CONNECTION_WRITE_BUFFER_BYTES": "the value is always 65536",
        "CREDIT_DEADLINE_SECONDS_MAX": "the value is always 3600",
        "CREDIT_FAILURES_BURST": "it depends on CREDIT_FAILURES_PER_SECOND",
        "CREDIT_HEALTH_INTERVAL_SECONDS": "the value is always 2",
        "CREDIT_HEALTH_TIMEOUT_SECONDS": "the value is always 3",
        "CREDIT_LIST_PAGES_AT_ONCE": "the value is always 4",
        "CREDIT_LIST_PAGE_SIZE": "the value is always 250",
        "CREDIT_LIST_WAIT_SECONDS_MAX": "the value is always 5",
        "CREDIT_OVERLOAD_STREAMS_MAX": "the value is always 768",
        "CREDIT_RATE_BURST": "it depends on CREDIT_RATE_PER_SECOND",
        "CREDIT_RATE_NAMES_MAX": "the value is always 10000",
        "CREDIT_TOKEN_CACHE_MAX": "the value is always 10000",
        "CREDIT_TOKEN_LEEWAY_SECONDS": "the value is always 30",
        "CREDIT_TOKEN_LENGTH_MAX": "the value is always 8192",
    },
    "0.3.0": {
        "CREDIT_CALLS_PER_IDENTITY_MAX": "the value is a quarter of CREDIT_CALLS_MAX",
        "CREDIT_CLOCK_SKEW_SECONDS_MAX": "the value is always 2",
        "CREDIT_COMMIT_WAITING_MAX": "the value is always 4096",
        "CREDIT_CONNECTION_STALLED_SECONDS": "it depends on CREDIT_STORE_TIMEOUT_SECONDS",
        "CREDIT_CONNECTION_STREAMS_MAX": "the value is always 256",
        "CREDIT_LOOP_LAG_SECONDS_MAX": "it depends on CREDIT_COMMIT_WAIT_SECONDS_MAX",
        "CREDIT_MESSAGE_BYTES_MAX": "the value is always 2097152",
        "CREDIT_MONGODB_DRIVER": "the driver is always motor",
        "CREDIT_STREAM_DEADLINE_SECONDS": "the deadline is 600 s if the client sets none",
    },
}
_REMOVALS = {
    name: f"removed after {release}: {instead}"
    for release, settings in _REMOVED.items()
    for name, instead in settings.items()
}

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
    variables = {name: PREFIX + name[2:].upper().replace("-", "_") for name in names}
    return [
        f"{name} was {_REMOVALS[variables[name]]}."
        for name in names
        if name.startswith("--") and variables[name] in _REMOVALS
    ]


def _phrase(name: str, known: Collection[str]) -> str:
    if removal := _REMOVALS.get(name.upper()):
        return f"{name} ({removal})"
    close = get_close_matches(name.upper(), sorted(known), n=1)
    return f"{name} ({close[0]}?)" if close else name
