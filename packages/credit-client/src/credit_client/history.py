"""Queries of a user's transactions, read page by page."""

from collections.abc import AsyncGenerator, Awaitable, Callable

from credit_models import CreditTransaction
from credit_models import QueryTransactionsResponse as TransactionPage


class TransactionQuery:
    """The transactions of `CreditClient.query_transactions`, as an asynchronous iterable.

    `async for transaction in query` reads the pages as they are needed. Each loop starts with the
    first page. To show one page at a time, use `page` and keep its `next_page_token`.
    """

    def __init__(self, read: Callable[[str], Awaitable[TransactionPage]]) -> None:
        """Read nothing yet.

        Args:
            read: Reads the page with a token; empty: the first page.
        """
        self._read = read

    async def page(self, token: str = "") -> TransactionPage:
        """Return one page.

        Args:
            token: The `next_page_token` of the page before; empty for the first page. It does not
                expire. It belongs to this query and to the identity of the client.

        Returns:
            The `transactions`, and the `next_page_token`, which is empty on the last page. A page
            can have fewer transactions than asked for, or none, although more follow.

        Raises:
            PageTokenInvalid: The token was returned for another query or another identity.
        """
        return await self._read(token)

    async def pages(self, token: str = "") -> AsyncGenerator[TransactionPage, None]:
        """Iterate over the pages from the one with a token; see `page`."""
        while True:
            found = await self._read(token)
            yield found
            token = found.next_page_token
            if not token:
                return

    async def __aiter__(self) -> AsyncGenerator[CreditTransaction, None]:
        async for found in self.pages():
            for transaction in found.transactions:
                yield transaction
