"""The supervisor: a part that ends by itself is reported, and the others run until the end."""

import asyncio

import pytest
from credit_server.errors import PartFailed
from credit_server.supervision import Timers, supervised
from structlog.testing import capture_logs


async def _raises() -> None:
    raise RuntimeError("a bug")


async def _returns() -> None:
    """Return at once."""


async def _waits_for_what_is_cancelled() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def _forever() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("body", [_raises, _returns, _waits_for_what_is_cancelled])
async def test_a_part_that_ends_by_itself_is_logged_and_ends_the_server(body: object) -> None:
    assert callable(body)
    with capture_logs() as logged, pytest.raises(PartFailed, match="the clockwork") as caught:  # noqa: PT012 - it raises at its end
        async with supervised() as supervisor, supervisor.parts_needed():
            sound = supervisor.start("the sound one", _forever())
            supervisor.start("the clockwork", body())
            await supervisor.failure
            assert not sound.done()  # the server stops in order: nothing is cancelled yet
    assert caught.value.part == "the clockwork"
    assert sound.cancelled()
    assert [(line["log_level"], line["part"]) for line in logged] == [("error", "the clockwork")]


async def test_a_part_may_return_once_the_server_stops() -> None:
    event = asyncio.Event()

    async def until_stopped() -> None:
        await event.wait()

    async with supervised() as supervisor:
        async with supervisor.parts_needed():
            part = supervisor.start("a part", until_stopped())
        event.set()
        await part
    assert not supervisor.failure.done()


async def test_a_part_that_is_cancelled_has_not_failed() -> None:
    async with supervised() as supervisor, supervisor.parts_needed():
        part = supervisor.start("a part", _forever())
        await asyncio.sleep(0)
        part.cancel()
        await asyncio.wait([part])
    assert not supervisor.failure.done()


async def test_a_part_that_fails_while_the_server_stops_is_an_error_too() -> None:
    event = asyncio.Event()

    async def fails_late() -> None:
        await event.wait()
        raise RuntimeError("a bug")

    with pytest.raises(PartFailed, match="a bug"):  # noqa: PT012 - it raises at its end
        async with supervised() as supervisor:
            async with supervisor.parts_needed():
                part = supervisor.start("a part", fails_late())
            event.set()
            await asyncio.wait([part])


async def test_the_first_of_several_failures_is_the_reason() -> None:
    with pytest.raises(PartFailed, match="the first"):  # noqa: PT012 - it raises at its end
        async with supervised() as supervisor:
            supervisor.failed("the first", RuntimeError("a bug"))
            supervisor.failed("the second", RuntimeError("a bug"))


async def test_an_error_of_the_body_is_raised_unchanged() -> None:
    with pytest.raises(LookupError, match="the body"):  # noqa: PT012 - it raises at its end
        async with supervised() as supervisor:
            part = supervisor.start("a part", _forever())
            raise LookupError("the body")
    assert part.cancelled()


async def test_a_timer_whose_callback_raises_is_reported() -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(PartFailed, match="the clockwork"):  # noqa: PT012 - it raises at its end
        async with supervised() as supervisor:
            Timers(supervisor.failed).later(0, "the clockwork", fail)
            await supervisor.failure
