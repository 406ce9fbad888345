"""Let two tenants attack each other, and search every answer for the other's data."""

import itertools
from dataclasses import replace
from typing import Any

from google.rpc.error_details_pb2 import ErrorInfo
from grpc_fuzz.model import Reply
from grpc_fuzz.replies import error_info
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, rule

from tests.fuzz.tenant_calls import octets_of
from tests.fuzz.tenant_model import Accepted, Entry, Ledger, Refused, Tenant, Write
from tests.fuzz.two_tenants import STEPS, TwoTenants, apps, whose

_STATUSES = {
    "APP_NOT_ALLOWED": "PERMISSION_DENIED",
    "ACTOR_NOT_ALLOWED": "PERMISSION_DENIED",
    "INVALID_FIELD": "INVALID_ARGUMENT",
    "IDEMPOTENCY_KEY_REUSED": "ALREADY_EXISTS",
    "INSUFFICIENT_CREDITS": "FAILED_PRECONDITION",
    "REVISION_CHANGED": "ABORTED",
    "REVISION_NOT_REACHED": "ABORTED",
    "TRANSACTION_NOT_FOUND": "NOT_FOUND",
}
_PRICE = 7
_ADD, _USE = 1, 2
"""Numbers of `TransactionType`."""

amounts = st.sampled_from((1, 1, 5, 100, 1000, 0))
whether = st.booleans()


class TenantsMachine(TwoTenants):
    """Two tenants write to two users' accounts, and look at everything."""

    writes = Bundle("writes")

    def __init__(self) -> None:
        super().__init__()
        self._ledger = Ledger()
        self._texts = itertools.count(1)

    @rule(target=writes, who=whose, user=whose, app=apps, amount=amounts, buys=whether, actor=whose)
    def write(self, who: int, user: int, app: int, amount: int, buys: bool, actor: int) -> Write:
        return self._send_new(who, user, app, amount, buys, actor)

    @rule(target=writes, who=whose, user=whose, app=apps, amount=amounts, buys=whether)
    def write_as_oneself(self, who: int, user: int, app: int, amount: int, buys: bool) -> Write:
        return self._send_new(who, user, app, amount, buys, who)

    @rule(who=whose, user=whose, shared=whether)
    def earn_and_spend(self, who: int, user: int, shared: bool) -> None:
        """Grant credits and spend all of them, which chance does too seldom."""
        app = 2 if shared else who
        for buys in (False, True):
            self._send_new(who, user, app, _PRICE, buys, who)

    @rule(who=whose, write=writes)
    def send_again(self, who: int, write: Write) -> None:
        self._send(who, write)

    @rule(who=whose, place=st.integers(0, 7), shared=whether, amount=amounts)
    def guess_a_key(self, who: int, place: int, shared: bool, amount: int) -> None:
        """Use a key that was used before, perhaps in another app, for a write of one's own."""
        if not self._ledger.entries:
            return
        entry = self._ledger.entries[-1 - place % len(self._ledger.entries)]
        guess = replace(
            entry.write,
            app_id=self.apps[2 if shared else who],
            credits=amount,
            created_by=self.actors[who],
        )
        self._send(who, guess)

    @rule(who=whose, user=whose)
    def see_credits(self, who: int, user: int) -> None:
        tenant, user_id = self.tenants[who], self.users[user]
        (shown,) = self._ask(who, "GetUserCredits", user_id=user_id)
        seen = {entry.write.app_id: entry.balance for entry in self._ledger.seen(tenant, user_id)}
        balances = [(each.app_id, each.balance) for each in shown.balances]
        assert_shown("the balances", balances, sorted(seen.items()))
        assert_shown("whether there is an account", bool(shown.id), bool(seen))
        present = {field.name for field, _ in shown.ListFields()}
        assert present <= {"id", "user_id", "balances"}, f"of all apps together: {present}"

    @rule(who=whose, app=apps, user=st.none() | whose)
    def see_balance(self, who: int, app: int, user: int | None) -> None:
        user_id, app_id = None if user is None else self.users[user], self.apps[app]
        fields = {"app_id": app_id} | ({} if user_id is None else {"user_id": user_id})
        reply, messages = self._make(who, "GetAppBalance", **fields)
        if app_id not in self.tenants[who].apps:
            assert_refused(
                reply, Refused(reason="APP_NOT_ALLOWED", metadata={"app_id": str(app_id)})
            )
            return
        (shown,) = messages
        assert_shown("the balance", shown.balance, self._ledger.balance(app_id, user_id))

    @rule(who=whose, user=whose, after=st.integers(0, STEPS))
    def see_lists(self, who: int, user: int, after: int) -> None:
        user_id = self.users[user]
        seen = self._ledger.seen(self.tenants[who], user_id, after)
        asked = {"user_id": user_id, "after_sequence": after}
        transactions = self._ask(who, "ListUserTransactions", **asked)
        assert_shown(
            "the transactions", list(map(transaction_of, transactions)), list(map(entry_of, seen))
        )
        purchases = self._ask(who, "ListUserPurchases", **asked)
        bought = [
            (replace(entry.write, key=""), entry.sequence, entry.transaction_id, entry.purchase_id)
            for entry in seen
            if entry.write.report is not None
        ]
        assert_shown("the purchases", list(map(_purchase, purchases)), bought)

    def teardown(self) -> None:
        for who, user in itertools.product(range(2), range(2)):
            self.see_credits(who, user)
            self.see_lists(who, user, 0)

    def _send_new(
        self, who: int, user: int, app: int, amount: int, buys: bool, actor: int
    ) -> Write:
        write = Write(
            user_id=self.users[user],
            app_id=self.apps[app],
            credits=amount,
            created_by=self.actors[actor],
            key=self._text("key"),
            report=(self._text("report"), self._text("name")) if buys else None,
        )
        self._send(who, write)
        return write

    def _text(self, kind: str) -> str:
        # The brackets make none a part of another one.
        return f"{kind}<{next(self._texts)}-{self.users[0]}>"

    def _send(self, who: int, write: Write) -> None:
        fields = {
            "user_id": write.user_id,
            "app_id": write.app_id,
            "credits": write.credits,
            "created_by": write.created_by,
            "idempotency_key": write.key,
        }
        if write.report is None:
            reply, _ = self._make(who, "AddCredits", **fields)
        else:
            report = {"report_id": write.report[0], "report_name": write.report[1]}
            reply, _ = self._make(who, "UseCredits", **fields, **report)
        expected = self._ledger.predict(self.tenants[who], write)
        if isinstance(expected, Refused):
            assert_refused(reply, expected)
        else:
            self._take(write, expected, reply)

    def _take(self, write: Write, expected: Accepted, reply: Reply) -> None:
        assert reply.status == "OK", f"{expected}, and it was {reply}"
        receipt = self.calls.receipt(reply)
        shown = (receipt.sequence, receipt.balance)
        assert_shown("the receipt", shown, (expected.sequence, expected.balance))
        earlier = expected.earlier
        if earlier is not None:
            ids = (earlier.transaction_id, earlier.purchase_id)
            assert_shown("the ids", (receipt.transaction_id, receipt.purchase_id), ids)
            return
        self._ledger.entries.append(
            Entry(
                write=write,
                sequence=receipt.sequence,
                balance=receipt.balance,
                transaction_id=receipt.transaction_id,
                purchase_id=receipt.purchase_id,
            )
        )

    def _ask(self, who: int, name: str, **fields: Any) -> list[Any]:
        reply, messages = self._make(who, name, **fields)
        assert reply.status == "OK", f"{name} was answered {reply}"
        return messages

    def _make(self, who: int, name: str, **fields: Any) -> tuple[Reply, list[Any]]:
        reply, messages = self.calls.make(self.tokens[who], name, **fields)
        self._look_for_what_is_hidden(self.tenants[who], reply, [*fields.values()])
        return reply, messages

    def _look_for_what_is_hidden(self, tenant: Tenant, reply: Reply, sent: list[Any]) -> None:
        octets = octets_of(reply)
        for text in self._ledger.hidden(tenant) - {each for each in sent if isinstance(each, str)}:
            assert text.encode() not in octets, f"{tenant.name} was shown {text}: {reply}"


def assert_shown(what: str, shown: object, expected: object) -> None:
    assert shown == expected, f"{what} that a tenant is shown: {shown} instead of {expected}"


def assert_refused(reply: Reply, expected: Refused) -> None:
    """Check that a call was rejected exactly as expected."""
    info = error_info(reply)
    assert isinstance(info, ErrorInfo), f"not refused as {expected}, but answered {reply}"
    shown = (reply.status, info.reason, dict(info.metadata))
    assert_shown(
        "the refusal", shown, (_STATUSES[expected.reason], expected.reason, expected.metadata)
    )
    assert not reply.responses, f"refused, and answered all the same: {reply}"


def entry_of(entry: Entry) -> tuple[Write, int, int, str, str]:
    """Return an entry as in the list of transactions; the purchase is in the other list."""
    write = replace(entry.write, report=None)
    return write, entry.sequence, entry.balance, entry.transaction_id, entry.purchase_id


def transaction_of(shown: Any) -> tuple[Write, int, int, str, str]:
    assert shown.type == (_USE if shown.purchase_id else _ADD)
    write = Write(
        user_id=shown.user_id,
        app_id=shown.app_id,
        credits=shown.credits,
        created_by=shown.created_by,
        key=shown.idempotency_key,
    )
    return write, shown.sequence, shown.balance_after, shown.id, shown.purchase_id


def _purchase(shown: Any) -> tuple[Write, int, str, str]:
    write = Write(
        user_id=shown.user_id,
        app_id=shown.app_id,
        credits=shown.credits,
        created_by=shown.created_by,
        key="",
        report=(shown.report_id, shown.report_name),
    )
    return write, shown.sequence, shown.transaction_id, shown.id
