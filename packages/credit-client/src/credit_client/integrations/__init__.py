"""What web frameworks share: the HTTP response to an error of the credit service.

`credit_client.integrations.fastapi` and `credit_client.integrations.django` use it. In Flask,
`app.register_error_handler` takes a function that returns `problem_of(error)`.
"""

from dataclasses import dataclass
from http import HTTPStatus

from credit_client.errors import (
    AccountFull,
    AlreadyPurchased,
    AvailableTooLow,
    BalanceOverflow,
    CapExceeded,
    CreditError,
    DeadlineExceeded,
    GrantEmpty,
    GrantsFull,
    HoldExceeded,
    HoldSettled,
    HoldsFull,
    IdempotencyKeyReused,
    InsufficientCredits,
    RateLimited,
    ReversalExceeds,
    RevisionChanged,
    TooManyAlerts,
    TooManyApps,
    TooManyWebhooks,
    Unavailable,
)

MEDIA_TYPE = "application/problem+json"

_STATUSES: dict[type[CreditError], HTTPStatus] = {
    InsufficientCredits: HTTPStatus.PAYMENT_REQUIRED,
    CapExceeded: HTTPStatus.PAYMENT_REQUIRED,
    AvailableTooLow: HTTPStatus.PAYMENT_REQUIRED,
    AccountFull: HTTPStatus.CONFLICT,
    AlreadyPurchased: HTTPStatus.CONFLICT,
    BalanceOverflow: HTTPStatus.CONFLICT,
    GrantEmpty: HTTPStatus.CONFLICT,
    GrantsFull: HTTPStatus.CONFLICT,
    HoldsFull: HTTPStatus.CONFLICT,
    TooManyAlerts: HTTPStatus.CONFLICT,
    TooManyWebhooks: HTTPStatus.CONFLICT,
    TooManyApps: HTTPStatus.CONFLICT,
    HoldExceeded: HTTPStatus.CONFLICT,
    HoldSettled: HTTPStatus.CONFLICT,
    IdempotencyKeyReused: HTTPStatus.CONFLICT,
    ReversalExceeds: HTTPStatus.CONFLICT,
    RevisionChanged: HTTPStatus.CONFLICT,
    RateLimited: HTTPStatus.TOO_MANY_REQUESTS,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    DeadlineExceeded: HTTPStatus.SERVICE_UNAVAILABLE,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """An HTTP response in the form of RFC 9457.

    Attributes:
        status: 402, 409, 429 or 503.
        body: The JSON object: `title`, `status`, `reason` (the contract's name, or None),
            `request_id`, and `shortfall` where credits are missing. The error's message is not part
            of it: it is for your logs.
        media_type: The value of the header `content-type`.
    """

    status: int
    body: dict[str, str | int | None]
    media_type: str = MEDIA_TYPE


def problem_of(error: CreditError) -> Problem | None:
    """Return the response for an error; None if your app or its identity is at fault.

    An error without a response should remain a 500.

    402: credits are missing, or a cap would be exceeded. 409: the request conflicts with an earlier
    write, or with a limit of the account. 429: the rate limit is exceeded. 503: the service cannot
    be reached. The same request, with the same idempotency key, may succeed later.
    """
    status = next((found for kind, found in _STATUSES.items() if isinstance(error, kind)), None)
    if status is None:
        return None
    body: dict[str, str | int | None] = {
        "title": status.phrase,
        "status": status.value,
        "reason": None if error.reason is None else error.reason.name,
        "request_id": error.request_id,
    }
    if isinstance(error, InsufficientCredits):
        body["shortfall"] = error.shortfall
    return Problem(status=status.value, body=body)
