"""Test that a history leaves the account that the ledger has made, and that no fault is found."""

from credit_models.ledger import Kind
from credit_server.store.documents import due_at
from credit_server.verify.account_check import StoredAccount, check_account
from credit_server.verify.user_book import UserBook

from tests.server.verify.histories import Histories


def books(made: Histories) -> list[UserBook]:
    """Return the checked book of each user."""
    ids = {entry.id: entry for entries in made.entries.values() for entry in entries}
    bought = {purchase.transaction_id: purchase for purchase in made.purchases.values()}
    result = []
    for user_id, entries in made.entries.items():
        account = made.accounts[user_id]
        since = {app_id: app.spent[0].since for app_id, app in account.apps.items() if app.spent}
        book = UserBook(user_id, since, ids.get)
        for entry in entries:
            book.apply(entry, bought.get(entry.id))
        book.finish()
        stored = StoredAccount(
            account=account,
            due_at=due_at(account),
            app_due_at={app_id: app.due_at for app_id, app in account.apps.items()},
        )
        check_account(book, stored if entries else None)
        result.append(book)
    return result


def test_no_history_that_the_ledger_makes_has_a_finding(seed: int) -> None:
    kinds: set[Kind] = set()
    for offset in range(12):
        made = Histories(seed + offset)
        made.play(250)
        kinds |= made.kinds()
        for book in books(made):
            assert book.findings == [], f"seed {seed + offset}"
            assert book.is_whole
            assert book.is_sound
    assert kinds == set(Kind)
