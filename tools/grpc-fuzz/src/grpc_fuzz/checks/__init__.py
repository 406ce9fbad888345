"""All checks, the most severe first."""

from grpc_fuzz.checks.authentication import CREDENTIALS_ACCEPTED, IGNORED_AUTH
from grpc_fuzz.checks.check import Check
from grpc_fuzz.checks.data import (
    BROKEN_FIELD_NAMED,
    NEGATIVE_DATA_REJECTED,
    POSITIVE_DATA_ACCEPTED,
    TIMES_IN_RANGE,
)
from grpc_fuzz.checks.leaks import NO_INTERNAL_LEAK
from grpc_fuzz.checks.liveness import (
    ALWAYS_REPLIES,
    ANSWERS_BEFORE_DEADLINE,
    MAX_RESPONSE_TIME,
    NOT_A_SERVER_ERROR,
    SERVER_STILL_HEALTHY,
)
from grpc_fuzz.checks.relations import (
    IDEMPOTENT_REPLAY,
    UNKNOWN_FIELDS_TOLERATED,
    UNSET_EQUALS_ZERO,
)
from grpc_fuzz.checks.responses import (
    RESPONSE_CANONICAL,
    RESPONSE_CONFORMS,
    RESPONSE_KNOWN_FIELDS,
)
from grpc_fuzz.checks.statuses import (
    DOCUMENTED_STATUS,
    ERROR_DETAILS_DECODABLE,
    PROTOCOL_STATUS,
)

ALL: tuple[Check, ...] = (
    SERVER_STILL_HEALTHY,
    ALWAYS_REPLIES,
    ANSWERS_BEFORE_DEADLINE,
    NOT_A_SERVER_ERROR,
    IGNORED_AUTH,
    CREDENTIALS_ACCEPTED,
    NO_INTERNAL_LEAK,
    NEGATIVE_DATA_REJECTED,
    TIMES_IN_RANGE,
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
    RESPONSE_KNOWN_FIELDS,
    RESPONSE_CANONICAL,
)

__all__ = ["ALL"]
