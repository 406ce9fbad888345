"""Let two tenants look for each other's entries in the calls of the history."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.fuzz.tenant_model import Refused
from tests.fuzz.tenants_machine import (
    TenantsMachine,
    assert_refused,
    assert_shown,
    entry_of,
    transaction_of,
    whether,
)
from tests.fuzz.two_tenants import STEPS, apps, whose

# A span of time that has every transaction.
_ALWAYS = {
    "created_from": datetime(2000, 1, 1, tzinfo=UTC),
    "created_until": datetime(9999, 1, 1, tzinfo=UTC),
}


class TenantHistoryMachine(TenantsMachine):
    """Two tenants write to two users' accounts, and make every call of the history."""

    @rule(who=whose, user=st.none() | whose, app=st.none() | apps, oldest=whether)
    def see_pages(self, who: int, user: int | None, app: int | None, oldest: bool) -> None:
        """Read pages of two: of a user, or of all users in an app, and of a user in an app."""
        if user is None and app is None:
            return
        fields: dict[str, Any] = {"oldest_first": oldest, "page_size": 2}
        fields |= {} if user is None else {"user_id": self.users[user]}
        fields |= {} if app is None else {"app_id": self.apps[app]}
        for name, rows, purchases in (
            ("HistoryService/QueryTransactions", "transactions", False),
            ("HistoryService/QueryPurchases", "purchases", True),
        ):
            if app is not None and self.apps[app] not in self.tenants[who].apps:
                metadata = {"app_id": str(self.apps[app])}
                reply, _ = self._make(who, name, **fields)
                assert_refused(reply, Refused(reason="APP_NOT_ALLOWED", metadata=metadata))
                continue
            shown = [
                row.id for page in self._pages(who, name, fields) for row in getattr(page, rows)
            ]
            seen = [
                (entry.purchase_id if purchases else entry.transaction_id)
                for each in (self.users if user is None else [self.users[user]])
                for entry in self._ledger.seen(self.tenants[who], each)
                if (app is None or entry.write.app_id == self.apps[app])
                and (entry.write.report is not None or not purchases)
            ]
            if user is None:
                # In an order of time, and without the latest entries.
                assert set(shown) <= set(seen), f"{shown} instead of {seen}"
                assert len(set(shown)) == len(shown)
            else:
                assert_shown(name, shown, seen if oldest else seen[::-1])

    @rule(who=whose, user=whose, app=apps, place=st.integers(0, STEPS))
    def see_an_earlier_balance(self, who: int, user: int, app: int, place: int) -> None:
        user_id, app_id = self.users[user], self.apps[app]
        name = "HistoryService/GetBalanceAt"
        fields = {"user_id": user_id, "app_id": app_id, "sequence": place}
        reply, messages = self._make(who, name, **fields)
        if app_id not in self.tenants[who].apps:
            metadata = {"app_id": str(app_id)}
            assert_refused(reply, Refused(reason="APP_NOT_ALLOWED", metadata=metadata))
            return
        counted = [
            entry
            for entry in self._ledger.seen(self.tenants[who], user_id)
            if entry.write.app_id == app_id and entry.sequence <= place
        ]
        (shown,) = messages
        expected = (counted[-1].balance, counted[-1].sequence) if counted else (0, 0)
        assert_shown("the earlier balance", (shown.balance, shown.sequence), expected)

    @rule(who=whose, user=whose, app=st.none() | apps)
    def see_sums(self, who: int, user: int, app: int | None) -> None:
        user_id = self.users[user]
        fields: dict[str, Any] = {"user_id": user_id, **_ALWAYS}
        fields |= {} if app is None else {"app_id": self.apps[app]}
        reply, messages = self._make(who, "HistoryService/Summarize", **fields)
        if app is not None and self.apps[app] not in self.tenants[who].apps:
            metadata = {"app_id": str(self.apps[app])}
            assert_refused(reply, Refused(reason="APP_NOT_ALLOWED", metadata=metadata))
            return
        seen = [
            entry.write
            for entry in self._ledger.seen(self.tenants[who], user_id)
            if app is None or entry.write.app_id == self.apps[app]
        ]
        spent = sum(write.credits for write in seen if write.report is not None)
        (answer,) = messages
        shown = [(each.transactions, each.spent) for each in answer.summaries]
        assert_shown("the sums", shown, [(len(seen), spent)] if seen else [])

    @rule(who=whose, place=st.integers(0, 7), by_key=whether)
    def find(self, who: int, place: int, by_key: bool) -> None:
        """Look for a transaction, perhaps of another tenant, by its id or its key."""
        if not self._ledger.entries:
            return
        entry = self._ledger.entries[-1 - place % len(self._ledger.entries)]
        write, is_own = entry.write, entry.write.app_id in self.tenants[who].apps
        by_name = {"user_id": write.user_id, "app_id": write.app_id, "idempotency_key": write.key}
        fields = by_name if by_key else {"transaction_id": entry.transaction_id}
        reply, messages = self._make(who, "HistoryService/GetTransaction", **fields)
        if is_own:
            (found,) = messages
            assert_shown("the transaction", transaction_of(found.transaction), entry_of(entry))
        elif by_key:
            metadata = {"app_id": str(write.app_id)}
            assert_refused(reply, Refused(reason="APP_NOT_ALLOWED", metadata=metadata))
        else:
            metadata = {"transaction_id": entry.transaction_id}
            assert_refused(reply, Refused(reason="TRANSACTION_NOT_FOUND", metadata=metadata))

    def _pages(self, who: int, name: str, fields: dict[str, Any]) -> Iterator[Any]:
        token = ""
        while True:
            (page,) = self._ask(who, name, **fields, page_token=token)
            yield page
            token = page.next_page_token
            if not token:
                return

    def teardown(self) -> None:
        for who in range(2):
            self.see_pages(who, None, 2, False)
