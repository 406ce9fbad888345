"""Opens a client with a FastAPI app, injects it into handlers, and handles its errors.

    app = FastAPI(lifespan=lambda app: open_credits(app, CreditClient("localhost:50051")))
    answer_errors(app)

    @app.get("/balance/{user_id}")
    async def balance(user_id: int, credits: Credits) -> int:
        return await credits.balance(app_id=1, user_id=user_id)

Needs the extra `fastapi`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse

from credit_client.client import CreditClient
from credit_client.errors import CreditError
from credit_client.integrations import problem_of


@asynccontextmanager
async def open_credits(app: FastAPI, client: CreditClient) -> AsyncIterator[None]:
    """Open a client for the life of an app, as its lifespan or as a part of it."""
    async with client:
        app.state.credits = client
        yield


def credits_of(request: Request) -> CreditClient:
    """Return the app's client.

    Raises:
        RuntimeError: `open_credits` is not part of the app's lifespan.
    """
    client = getattr(request.app.state, "credits", None)
    if not isinstance(client, CreditClient):
        raise RuntimeError("the app has no client: use open_credits(app, client) as its lifespan")
    return client


Credits = Annotated[CreditClient, Depends(credits_of)]
"""The type of a handler's parameter that takes the app's client."""


def answer_errors(app: FastAPI) -> None:
    """Turn a `CreditError` that no handler catches into a 402, 409, 429 or 503.

    See `credit_client.integrations.problem_of`. Other errors remain a 500.
    """
    app.add_exception_handler(CreditError, _answer)


async def _answer(request: Request, error: Exception) -> Response:
    problem = problem_of(error) if isinstance(error, CreditError) else None
    if problem is None:
        raise error
    return JSONResponse(problem.body, problem.status, media_type=problem.media_type)
