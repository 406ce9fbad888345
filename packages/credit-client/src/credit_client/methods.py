"""The six calls of the contract: their paths and messages."""

from credit_models import (
    AppId,
    Balance,
    CreditRequest,
    CreditTransaction,
    Empty,
    Purchase,
    PurchaseRequest,
    UserCredits,
    UserId,
)

from credit_client.transport import Method

_SERVICE = "/credit.v1.CreditService"

ADD = Method(path=f"{_SERVICE}/AddCredits", request_type=CreditRequest, reply_type=Empty)
USE = Method(path=f"{_SERVICE}/UseCredits", request_type=PurchaseRequest, reply_type=Empty)
USER_CREDITS = Method(
    path=f"{_SERVICE}/GetUserCredits", request_type=UserId, reply_type=UserCredits
)
BALANCE = Method(path=f"{_SERVICE}/GetAppBalance", request_type=AppId, reply_type=Balance)
PURCHASES = Method(path=f"{_SERVICE}/ListUserPurchases", request_type=UserId, reply_type=Purchase)
TRANSACTIONS = Method(
    path=f"{_SERVICE}/ListUserTransactions", request_type=UserId, reply_type=CreditTransaction
)
