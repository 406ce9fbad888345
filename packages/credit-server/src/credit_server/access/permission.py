"""In which apps, and in whose name, a call acts: what its message asks, against its identity."""

from credit_models import AppId, CreditRequest, PurchaseRequest

from credit_server.access import Identity
from credit_server.api import refusal
from credit_server.ledger import Account


def check_app(identity: Identity | None, request: CreditRequest | PurchaseRequest | AppId) -> None:
    """Make sure that an identity may act, or see, in the app that a request names.

    Raises:
        GRPCError: It may not.
    """
    if identity is not None and not identity.may_act_in(request.app_id):
        raise refusal.app_not_allowed(request.app_id)


def check_actor(identity: Identity | None, request: CreditRequest | PurchaseRequest) -> None:
    """Make sure that an identity may act in the name that a write gives.

    Raises:
        GRPCError: It may not.
    """
    if identity is not None and not identity.may_act_as(request.created_by):
        raise refusal.actor_not_allowed(request.created_by)


def add_limit(identity: Identity | None, app_id: int, *, credits_max: int) -> int:
    """Return the most credits that a caller may add in one call.

    Args:
        identity: Who calls; None: identities are not known.
        app_id: In which app.
        credits_max: The server's own limit, 1 to 2**32 - 1.
    """
    limit = None if identity is None else identity.add_limits.of(app_id)
    return credits_max if limit is None else min(limit, credits_max)


def apps_of(identity: Identity | None) -> frozenset[int] | None:
    """Return the apps that are shown to an identity; None: all."""
    return None if identity is None else identity.apps


def visible_account(account: Account, identity: Identity | None) -> Account:
    """Return what of a user's account is shown to an identity.

    What is said of all apps together would tell of the others: it is left out. Who has nothing in
    the apps that are shown looks like who never had anything.
    """
    apps = apps_of(identity)
    if apps is None:
        return account
    balances = {app: balance for app, balance in account.balances.items() if app in apps}
    return Account(user_id=account.user_id, id=account.id if balances else "", balances=balances)
