"""The reads of `LedgerService`: grants, holds, caps, policies and forecasts."""

import asyncio
from collections.abc import Sequence
from typing import Any

from credit_models import (
    GetAppPolicyRequest,
    GetAppPolicyResponse,
    GetForecastRequest,
    GetForecastResponse,
    GetSpendingCapRequest,
    GetSpendingCapResponse,
    ListGrantsRequest,
    ListGrantsResponse,
    ListHoldsRequest,
    ListHoldsResponse,
)
from credit_models import Hold as HoldMessage
from credit_models.ledger import Account, AppAccount, Hold, Kind, Transaction, settle
from credit_models.translation import messages

from credit_server.access import authorize
from credit_server.admission.list_slots import ListSlots
from credit_server.api import convert
from credit_server.api.reads import Reads
from credit_server.grpc.call import Call
from credit_server.store.port import HoldRow, Store

# The default number of holds of a page, as the contract defines it.
_PAGE_SIZE = 100
# After this many holds, which take a few milliseconds, the event loop runs other calls.
_SLICE = 250
_NO_APP = AppAccount()


class LedgerReads:
    """Serves the calls of `LedgerService` that change nothing."""

    def __init__(self, store: Store, reads: Reads, list_slots: ListSlots) -> None:
        """Prepare to serve.

        Args:
            store: Where holds and policies are read.
            reads: Checks the calls, and reads accounts.
            list_slots: Bounds the pages of lists.
        """
        self._store = store
        self._reads = reads
        self._list_slots = list_slots

    async def get_app_policy(self, call: Call[GetAppPolicyRequest, GetAppPolicyResponse]) -> None:
        """Answer with the policy of an app."""
        request = await self._reads.request(call)
        policy = await self._store.policy(request.app_id)
        await call.send_answer(GetAppPolicyResponse(policy=convert.policy_to_message(policy)))

    async def get_spending_cap(
        self, call: Call[GetSpendingCapRequest, GetSpendingCapResponse]
    ) -> None:
        """Answer with the caps of a user in an app, and what counts for them."""
        request = await self._reads.request(call)
        stored = await self._store.policy(request.app_id)
        account = await self._reads.account(call, request)
        answer = messages.spending_cap_to_message(
            account, request.app_id, stored.policy, self._reads.now()
        )
        answer.revision = _revision(call, account)
        await call.send_answer(answer)

    async def list_grants(self, call: Call[ListGrantsRequest, ListGrantsResponse]) -> None:
        """Answer with the live grants of a user in an app."""
        request = await self._reads.request(call)
        account = await self._reads.account(call, request)
        answer = messages.grants_to_message(account, request.app_id)
        answer.revision = _revision(call, account)
        await call.send_answer(answer)

    async def list_holds(self, call: Call[ListHoldsRequest, ListHoldsResponse]) -> None:
        """Answer with a page of the holds of a user in an app."""
        request = await self._reads.request(call)
        size = request.page_size or _PAGE_SIZE
        # The account is read before the entries. Then a hold that is settled in between has its
        # last entry. It is read outside of the slot, because it may wait for a revision.
        stored = await self._reads.reached(call, request)
        settled = settle(stored, self._reads.now())
        async with self._list_slots.slot(call.caller_name):
            app = settled.account.apps.get(request.app_id, _NO_APP)
            if request.include_settled:
                rows = await self._store.hold_entries(
                    request.user_id,
                    request.app_id,
                    after_sequence=request.after_sequence,
                    stored_sequence=stored.revision,
                    limit=size + 1,
                )
                holds = await _from_rows(rows, app, settled.entries)
            else:
                holds = [
                    messages.hold_to_message(hold)
                    for hold in app.holds
                    if hold.sequence > request.after_sequence
                ]
        page = holds[:size]
        more = page[-1].sequence if len(holds) > size else 0
        revision = _revision(call, settled.account)
        await call.send_answer(
            ListHoldsResponse(holds=page, next_after_sequence=more, revision=revision)
        )

    async def get_forecast(self, call: Call[GetForecastRequest, GetForecastResponse]) -> None:
        """Answer with the changes of a balance by time alone."""
        request = await self._reads.request(call)
        account = await self._reads.account(call, request)
        answer = messages.forecast_to_message(account, request.app_id, until=request.until)
        answer.revision = _revision(call, account)
        await call.send_answer(answer)


# Any: a call of any messages.
def _revision(call: Call[Any, Any], account: Account) -> int:
    """Return the revision of an account as far as the caller may read it."""
    return authorize.visible_revision(account, authorize.identity_of(call))


async def _from_rows(
    rows: Sequence[HoldRow], app: AppAccount, due: Sequence[Transaction]
) -> list[HoldMessage]:
    """Return holds, open and settled.

    Args:
        rows: The holds, as the history has them.
        app: What the account keeps for the app now. It can be a little older
            than the history.
        due: The entries that are due and not in the history.
    """
    open_holds = {hold.id: hold for hold in app.holds}
    ended = {entry.details.related_id: entry for entry in due if entry.kind is Kind.RELEASE}
    holds = []
    for position, (placed, written) in enumerate(rows):
        if position and position % _SLICE == 0:
            await asyncio.sleep(0)
        latest = ended.get(placed.id, written)
        if latest is not None and not latest.details.held_after:
            holds.append(messages.settled_hold_to_message(placed, latest))
        else:
            hold = open_holds.get(placed.id) or _new_hold(placed, latest or placed)
            holds.append(messages.hold_to_message(hold))
    return holds


def _new_hold(placed: Transaction, latest: Transaction) -> Hold:
    """Return a hold that was placed since the account was read, from its entries."""
    return Hold(
        id=placed.id,
        sequence=placed.sequence,
        credits=latest.details.held_after,
        placed_at=placed.created_at,
        ends_at=latest.details.ends_at or placed.details.ends_at or placed.created_at,
        captured=latest.details.related_total,
        purpose=messages.purpose_of(placed),
        created_by=placed.created_by,
    )
