"""Queries of transactions and purchases, read page by page."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

from credit_models import CreditTransaction, Purchase
from credit_models import QueryPurchasesResponse as PurchasePage
from credit_models import QueryTransactionsResponse as TransactionPage

RowT = TypeVar("RowT")


class _Page(Protocol):
    next_page_token: str


PageT = TypeVar("PageT", bound=_Page)


class HistoryQuery(ABC, Generic[PageT, RowT]):
    """The rows of a query, as an asynchronous iterable.

    `async for row in query` reads the pages as they are needed. Each loop starts with the first
    page. To show one page at a time, use `page` and keep its `next_page_token`.
    """

    def __init__(self, read: Callable[[str], Awaitable[PageT]]) -> None:
        """Read nothing yet.

        Args:
            read: Reads the page with a token; empty: the first page.
        """
        self._read = read

    async def page(self, token: str = "") -> PageT:
        """Return one page.

        Args:
            token: The `next_page_token` of the page before; empty for the first page. It does not
                expire. It belongs to this query and to the identity of the client.

        Returns:
            The `transactions` or `purchases`, and the `next_page_token`, which is empty on the last
            page. A page can have fewer rows than requested, or none, although more follow. In a
            query of all users, `complete_until` is the time before which no row is missing. With
            the newest first, only the first page has it.

        Raises:
            PageTokenInvalid: The token was returned for another query or another identity.
        """
        return await self._read(token)

    async def pages(self, token: str = "") -> AsyncGenerator[PageT, None]:
        """Iterate over the pages, beginning with that of a token; see `page`."""
        while True:
            found = await self._read(token)
            yield found
            token = found.next_page_token
            if not token:
                return

    async def __aiter__(self) -> AsyncGenerator[RowT, None]:
        async for found in self.pages():
            for row in self._rows(found):
                yield row

    @staticmethod
    @abstractmethod
    def _rows(page: PageT) -> Sequence[RowT]:
        """Return the rows of a page."""


class TransactionQuery(HistoryQuery[TransactionPage, CreditTransaction]):
    """The transactions of `CreditClient.query_transactions`; see `HistoryQuery`."""

    @staticmethod
    def _rows(page: TransactionPage) -> Sequence[CreditTransaction]:
        return page.transactions


class PurchaseQuery(HistoryQuery[PurchasePage, Purchase]):
    """The purchases of `CreditClient.query_purchases`; see `HistoryQuery`."""

    @staticmethod
    def _rows(page: PurchasePage) -> Sequence[Purchase]:
        return page.purchases
