"""Run async tests on asyncio's loop and on uvloop's: their transports close differently."""

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine

import pytest
import uvloop

LOOP_TYPES: dict[str, type[asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.Loop,
}


def on_both_loops(test: Callable[..., Coroutine[None, None, None]]) -> Callable[..., None]:
    """Run an async test once on each event loop.

    Each run has its own new loop. Async fixtures run on the loop of the test session, so the test
    must start its server and open its connections itself.
    """

    @functools.wraps(test)
    def run(*, loop_type: type[asyncio.AbstractEventLoop], **fixtures: object) -> None:
        with asyncio.Runner(loop_factory=loop_type) as runner:
            runner.run(test(**fixtures))

    # pytest reads from the signature which fixtures and parameters to pass.
    signature = inspect.signature(test)
    added = inspect.Parameter("loop_type", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = signature.replace(  # type: ignore[attr-defined] # PEP 362
        parameters=[*signature.parameters.values(), added]
    )
    marked: Callable[..., None] = pytest.mark.parametrize(
        "loop_type", LOOP_TYPES.values(), ids=LOOP_TYPES
    )(run)
    return marked
