"""Make the request of a read."""

import betterproto2
from credit_models import (
    AppId,
    Balance,
    CreditTransaction,
    GetForecastRequest,
    GetForecastResponse,
    ListGrantsRequest,
    ListGrantsResponse,
    ListHoldsRequest,
    ListHoldsResponse,
    Purchase,
    UserCredits,
    UserId,
)

from credit_testing.accounts.journal import Kind, Read

READS: dict[Kind, tuple[str, type[betterproto2.Message]]] = {
    Kind.USER_CREDITS: ("/credit.v1.CreditService/GetUserCredits", UserCredits),
    Kind.BALANCE: ("/credit.v1.CreditService/GetAppBalance", Balance),
    Kind.APP_TOTAL: ("/credit.v1.CreditService/GetAppBalance", Balance),
    Kind.GRANTS: ("/credit.v1.LedgerService/ListGrants", ListGrantsResponse),
    Kind.OPEN_HOLDS: ("/credit.v1.LedgerService/ListHolds", ListHoldsResponse),
    Kind.HOLDS: ("/credit.v1.LedgerService/ListHolds", ListHoldsResponse),
    Kind.FORECAST: ("/credit.v1.LedgerService/GetForecast", GetForecastResponse),
    Kind.PURCHASES: ("/credit.v1.CreditService/ListUserPurchases", Purchase),
    Kind.TRANSACTIONS: ("/credit.v1.CreditService/ListUserTransactions", CreditTransaction),
}
"""The path of the call of each kind, and the type of what it returns."""


def request_of(read: Read) -> betterproto2.Message:
    """Return the request of a read."""
    user, app = read.user_id, read.app_id
    match read.kind:
        case Kind.BALANCE:
            return AppId(app_id=app, user_id=user)
        case Kind.APP_TOTAL:
            return AppId(app_id=app)
        case Kind.GRANTS:
            return ListGrantsRequest(user_id=user, app_id=app)
        case Kind.OPEN_HOLDS | Kind.HOLDS:
            settled = read.kind is Kind.HOLDS
            return ListHoldsRequest(
                user_id=user, app_id=app, include_settled=settled, page_size=1000
            )
        case Kind.FORECAST:
            return GetForecastRequest(user_id=user, app_id=app, until=read.until)
        case _:
            return UserId(user_id=user)
