"""The errors: complete, and able to travel between processes."""

import copy
import pickle
from datetime import UTC, datetime

import pytest
from credit_client import errors
from credit_client.errors import CreditError
from credit_models import ErrorReason
from credit_models.constraints import Violation
from credit_models.reasons import RULES
from grpclib.const import Status

NOW = datetime(2026, 3, 1, tzinfo=UTC)

SAMPLES: list[CreditError] = [
    errors.InvalidField("m", violations=[Violation(field="f", description="d")], request_id="r"),
    errors.IdempotencyKeyReused("m", fields=["credits", "app_id"], request_id="r"),
    errors.InsufficientCredits("m", available=1, required=3, shortfall=2, request_id="r"),
    errors.CreditsLimitExceeded("m", credits=5, limit=4),
    errors.BalanceOverflow("m", balance=4, credits=5),
    errors.TooManyApps("m", limit=1000),
    errors.TooManyAlerts("m", limit=8),
    errors.TooManyWebhooks("m", limit=4),
    errors.WebhookUrlNotAllowed("m"),
    errors.DeadLetterNotFound("m", dead_letter_id="d"),
    errors.TransactionNotFound("m", transaction_id="t"),
    errors.IdempotencyKeyNotFound("m", key="k"),
    errors.PageTokenInvalid("m"),
    errors.SummaryTooLarge("m", counted="groups", limit=3),
    errors.ResumeTokenInvalid("m"),
    errors.ResumeTokenExpired("m"),
    errors.UserNotFound("m", user="u"),
    errors.UserIdsExhausted("m"),
    errors.RevisionNotReached("m", revision=3, required=4),
    errors.NotReversible("m", type="HOLD"),
    errors.ReversalExceeds("m", reversible=1, required=2, request_id="r"),
    errors.GrantNotFound("m", grant_id="g"),
    errors.GrantEmpty("m", grant_id="g"),
    errors.ExpiresTooEarly("m", expires_at=NOW, starts_at=NOW),
    errors.HistoryAltered(
        "m", finding=errors.Finding.CHANGED, user_id=7, app_id=1, sequence=3, request_id="r"
    ),
    errors.CheckpointRejected("m"),
    errors.HoldNotFound("m", hold_id="h"),
    errors.HoldSettled("m", captured=1, released=2, settled_at=NOW),
    errors.HoldAlreadyCaptured("m", captured=1, released=2, settled_at=NOW),
    errors.HoldAlreadyReleased("m", captured=0, released=2, settled_at=NOW, request_id="r"),
    errors.HoldExpired("m", captured=0, released=2, settled_at=NOW),
    errors.HoldExceeded("m", held=1, required=2),
    errors.HoldLifeExceeded("m", limit_seconds=604_800, placed_at=NOW),
    errors.RevisionChanged("m", revision=7),
    errors.AlreadyPurchased("m", purchase_id="p"),
    errors.CapExceeded(
        "m", period="day", cap=9, spent=8, held=1, required=2, resets_at=NOW, request_id="r"
    ),
    errors.AvailableTooLow("m", available_after=1, required=2),
    errors.GrantsFull("m", limit=256),
    errors.HoldsFull("m", limit=256),
    errors.AccountFull("m", limit=4096),
    errors.BatchTooLarge("m", size=5001, limit=5000),
    errors.BatchAborted("m", index=0),
    errors.AppTotalOverflow("m", total=2**32),
    errors.AccessDenied("m", status=Status.PERMISSION_DENIED),
    errors.Unauthenticated("m", request_id="r"),
    errors.ScopeMissing("m", scope="credits:spend"),
    errors.AppNotAllowed("m", app_id=7),
    errors.ActorNotAllowed("m", created_by=9),
    errors.RateLimited("m", retry_after_seconds=1.5),
    errors.TokenUnavailable("m"),
    errors.TlsFailed("m"),
    errors.UnknownRefusal("m", status=Status.ABORTED, reason_name="NEW", request_id="r"),
    errors.Unavailable("m"),
    errors.Overloaded("m"),
    errors.ClockSkewed("m", skew_milliseconds=2500, limit_milliseconds=2000, request_id="r"),
    errors.StoreUnavailable("m"),
    errors.DeadlineExceeded("m"),
    errors.ClientClosed("m"),
    errors.InternalError("m", status=Status.INTERNAL),
    errors.ProtocolMismatch("m", status=Status.OK, request_id="r"),
    errors.ServerTooOld("m", method="credit.v1.LedgerService/GrantCredits"),
]


def _all_subclasses(kind: type[CreditError]) -> set[type[CreditError]]:
    return {kind}.union(*map(_all_subclasses, kind.__subclasses__()))


def test_every_error_has_a_sample() -> None:
    public = {kind for kind in _all_subclasses(CreditError) if not kind.__name__.startswith("_")}
    assert public == {type(sample) for sample in SAMPLES} | {CreditError}


def test_every_error_is_in_the_tree_at_the_top_of_its_file() -> None:
    assert errors.__doc__ is not None
    drawn = {word for word in errors.__doc__.split() if hasattr(errors, word)}
    assert drawn >= {type(sample).__name__ for sample in SAMPLES}


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling_and_copying(error: CreditError) -> None:
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert twin.__dict__ == error.__dict__
        assert (str(twin), twin.status, twin.reason) == (str(error), error.status, error.reason)


def test_the_key_of_a_write_travels_with_its_error() -> None:
    error = errors.Unavailable("m", request_id="r")
    assert error.idempotency_key is None
    error.idempotency_key = "k"
    assert pickle.loads(pickle.dumps(error)).idempotency_key == "k"


def test_the_text_of_an_error_names_the_request() -> None:
    assert str(errors.Unavailable("it is away", request_id="r-1")) == "it is away (request r-1)"
    assert str(errors.InvalidField("credits must be 1 or more")) == "credits must be 1 or more"


@pytest.mark.parametrize("reason", list(RULES), ids=lambda reason: reason.name)
def test_every_reason_of_the_contract_has_an_error_with_its_status(reason: ErrorReason) -> None:
    kinds = {type(sample) for sample in SAMPLES if sample.reason is reason}
    assert len(kinds) == 1, (
        f"{reason.name} needs one class of its own with `reason = ErrorReason.{reason.name}`:"
        " add it to errors.py and to the tree at its top, to `_KINDS` in refusal.py, to"
        " `credit_client.__all__`, to the table in README.md, and with a sample to SAMPLES here"
    )
    assert kinds.pop().status is RULES[reason].status
