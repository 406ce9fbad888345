"""Test the buffer of a request: what a read returns, and what counts in the client's window."""

import asyncio
import contextlib

import pytest
from credit_server.http2.stream import RequestBuffer, RequestEndedError
from hypothesis import given
from hypothesis import strategies as st


class Acknowledged:
    """Records the sizes that were returned to a window."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.buffer = RequestBuffer(self.sizes.append)


@given(st.lists(st.binary(min_size=1, max_size=20)), st.lists(st.integers(0, 30)))
def test_it_returns_what_came_however_it_was_divided(parts: list[bytes], sizes: list[int]) -> None:
    async def read() -> None:
        noted = Acknowledged()
        for part in parts:
            noted.buffer.add(part, len(part))
        noted.buffer.eof()
        rest = b"".join(parts)
        for size in sizes:
            if size > len(rest) > 0:
                with pytest.raises(RequestEndedError):
                    await noted.buffer.read(size)
                return
            assert await noted.buffer.read(size) == rest[:size]
            rest = rest[size:]
        taken = sum(noted.sizes)
        assert taken + noted.buffer.unacked_size() == len(b"".join(parts))

    asyncio.run(read())


async def test_data_counts_in_the_window_until_a_read_needs_it() -> None:
    noted = Acknowledged()
    noted.buffer.add(b"first", 5)
    noted.buffer.add(b"second", 16)  # with padding
    noted.buffer.add(b"third", 5)
    assert await noted.buffer.read(5) == b"first"
    assert noted.sizes == [5]
    assert await noted.buffer.read(1) == b"s"
    assert noted.sizes == [5, 16]
    assert noted.buffer.unacked_size() == 5
    assert noted.buffer.unacked_size() == 0


async def test_a_read_waits_for_all_that_it_needs() -> None:
    noted = Acknowledged()
    reading = asyncio.create_task(noted.buffer.read(4))
    for part in (b"a", b"b", b"cde"):
        await asyncio.sleep(0)
        assert not reading.done()
        noted.buffer.add(part, len(part))
    assert await reading == b"abcd"
    last = asyncio.create_task(noted.buffer.read(1))
    assert await last == b"e"
    ending = asyncio.create_task(noted.buffer.read(1))
    await asyncio.sleep(0)
    noted.buffer.eof()
    assert await ending == b""


async def test_a_request_that_ends_in_the_middle_of_a_read_is_an_error() -> None:
    noted = Acknowledged()
    reading = asyncio.create_task(noted.buffer.read(4))
    await asyncio.sleep(0)
    noted.buffer.add(b"abc", 3)
    noted.buffer.eof()
    with pytest.raises(RequestEndedError):
        await reading


async def test_data_that_comes_after_a_cancelled_read_is_kept() -> None:
    noted = Acknowledged()
    reading = asyncio.create_task(noted.buffer.read(2))
    await asyncio.sleep(0)
    reading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reading
    noted.buffer.add(b"ab", 2)
    assert await noted.buffer.read(2) == b"ab"
