"""All checks, worst first."""

from grpc_fuzz.checks.authentication import CREDENTIALS_ACCEPTED, IGNORED_AUTH
from grpc_fuzz.checks.data import (
    BROKEN_FIELD_NAMED,
    NEGATIVE_DATA_REJECTED,
    POSITIVE_DATA_ACCEPTED,
)
from grpc_fuzz.checks.leaks import NO_INTERNAL_LEAK
from grpc_fuzz.checks.liveness import (
    ALWAYS_REPLIES,
    MAX_RESPONSE_TIME,
    NOT_A_SERVER_ERROR,
    SERVER_STILL_HEALTHY,
)
from grpc_fuzz.checks.relations import (
    IDEMPOTENT_REPLAY,
    UNKNOWN_FIELDS_TOLERATED,
    UNSET_EQUALS_ZERO,
)
from grpc_fuzz.checks.responses import RESPONSE_CONFORMS
from grpc_fuzz.checks.statuses import (
    DOCUMENTED_STATUS,
    ERROR_DETAILS_DECODABLE,
    PROTOCOL_STATUS,
)
from grpc_fuzz.model import Check

ALL: tuple[Check, ...] = (
    SERVER_STILL_HEALTHY,
    ALWAYS_REPLIES,
    NOT_A_SERVER_ERROR,
    IGNORED_AUTH,
    CREDENTIALS_ACCEPTED,
    NO_INTERNAL_LEAK,
    NEGATIVE_DATA_REJECTED,
    POSITIVE_DATA_ACCEPTED,
    IDEMPOTENT_REPLAY,
    RESPONSE_CONFORMS,
    DOCUMENTED_STATUS,
    PROTOCOL_STATUS,
    ERROR_DETAILS_DECODABLE,
    UNKNOWN_FIELDS_TOLERATED,
    UNSET_EQUALS_ZERO,
    BROKEN_FIELD_NAMED,
    MAX_RESPONSE_TIME,
)

__all__ = ["ALL"]
