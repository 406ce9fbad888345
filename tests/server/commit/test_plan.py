"""Test that a batch is decided as if its commands had arrived one at a time."""

from dataclasses import replace
from datetime import UTC, datetime

from credit_server.commit.plan import DedupIndex, plan
from credit_server.ledger import (
    Accepted,
    Account,
    Add,
    Command,
    InsufficientCredits,
    KeyReused,
    Replayed,
    Transaction,
    Use,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def add(credits_: int, *, user: int = 1, app: int = 1, key: str = "", id_: str = "t") -> Add:
    return Add(
        user_id=user, app_id=app, credits=credits_, created_by=1, key=key, transaction_id=id_
    )


def use(credits_: int, *, user: int = 1, app: int = 1, key: str = "", id_: str = "t") -> Use:
    return Use(
        user_id=user,
        app_id=app,
        report_id="r",
        report_name="n",
        credits=credits_,
        created_by=1,
        key=key,
        transaction_id=id_,
        purchase_id=f"p-{id_}",
    )


def empty(*users: int) -> dict[int, Account]:
    return {user: Account.empty(user) for user in users}


def committed(command: Command) -> Transaction:
    (outcome,) = plan([command], empty(command.user_id), DedupIndex(), NOW).outcomes
    assert isinstance(outcome, Accepted)
    return outcome.transaction


def test_a_later_command_sees_what_an_earlier_one_wrote() -> None:
    batch = plan([add(5, id_="a"), use(5, id_="b"), use(1, id_="c")], empty(1), DedupIndex(), NOW)
    assert [type(outcome) for outcome in batch.outcomes] == [
        Accepted,
        Accepted,
        InsufficientCredits,
    ]
    assert [entry.sequence for entry in batch.transactions] == [1, 2]
    assert batch.accounts[1].balance(1) == 0


def test_commands_with_the_same_key_share_the_outcome_of_the_first() -> None:
    batch = plan(
        [add(5, key="k", id_="a"), add(5, key="k", id_="b"), add(6, key="k", id_="c")],
        empty(1),
        DedupIndex(),
        NOW,
    )
    first, second, third = batch.outcomes
    assert isinstance(first, Accepted)
    assert second == Replayed(transaction=first.transaction)
    assert third == KeyReused(fields=("credits",))
    assert len(batch.transactions) == 1


def test_a_refused_command_leaves_its_key_free() -> None:
    batch = plan(
        [use(5, key="k", id_="a"), add(5, id_="b"), use(5, key="k", id_="c")],
        empty(1),
        DedupIndex(),
        NOW,
    )
    assert [type(outcome) for outcome in batch.outcomes] == [
        InsufficientCredits,
        Accepted,
        Accepted,
    ]


def test_a_key_belongs_to_its_user_in_its_app() -> None:
    batch = plan(
        [
            add(5, user=1, key="k", id_="a"),
            add(5, user=2, key="k", id_="b"),
            add(5, user=1, app=2, key="k", id_="c"),
            add(5, user=1, app=2, key="k", id_="d"),
        ],
        empty(1, 2),
        DedupIndex(),
        NOW,
    )
    assert [type(outcome) for outcome in batch.outcomes] == [Accepted] * 3 + [Replayed]


def test_a_command_in_the_history_is_replayed() -> None:
    index = DedupIndex()
    index.add([committed(add(5, key="k", id_="a"))])
    (outcome,) = plan([add(5, key="k", id_="b")], empty(1), index, NOW).outcomes
    assert isinstance(outcome, Replayed)


def test_a_command_without_a_key_is_found_by_its_own_id() -> None:
    index = DedupIndex()
    index.add([committed(add(5, id_="a"))])
    batch = plan([add(5, id_="a"), add(5, id_="b")], empty(1), index, NOW)
    assert [type(outcome) for outcome in batch.outcomes] == [Replayed, Accepted]


def test_commands_without_a_key_are_all_new() -> None:
    batch = plan([add(5, id_="a"), add(5, id_="b")], empty(1), DedupIndex(), NOW)
    assert [type(outcome) for outcome in batch.outcomes] == [Accepted, Accepted]


def test_totals_are_sums_per_app_over_all_users() -> None:
    batch = plan(
        [
            add(5, user=1, app=1, id_="a"),
            add(7, user=2, app=1, id_="b"),
            use(2, user=1, app=1, id_="c"),
            add(1, user=1, app=2, id_="d"),
        ],
        empty(1, 2),
        DedupIndex(),
        NOW,
    )
    assert batch.totals == {1: 10, 2: 1}


def test_only_a_refusal_because_of_the_balance_rests_on_balances() -> None:
    index = DedupIndex()
    index.add([committed(add(5, key="k", id_="a"))])
    decided_by_key = [add(5, key="k", id_="b"), add(6, key="k", id_="c")]
    assert not plan([add(1, id_="d"), *decided_by_key], empty(1), index, NOW).rests_on_balances
    assert plan([replace(use(9), transaction_id="e")], empty(1), index, NOW).rests_on_balances
