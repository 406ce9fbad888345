"""Test that a cut link passes nothing, and that it passes everything after it is restored."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from credit_testing.ports import HOST, lasting_port
from credit_torture.links import Links, NotCut


@pytest.fixture
async def echo_port() -> AsyncIterator[int]:
    """Return the port of a server that sends back all bytes that it receives."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1024):
                writer.write(data)
        writer.transport.abort()

    port = lasting_port()
    async with await asyncio.start_server(echo, HOST, port):
        yield port


async def test_a_cut_link_delays_bytes_and_another_one_does_not(echo_port: int) -> None:
    links = Links(lambda: {"own": [os.getpid()]})
    port = links.advertise(echo_port)
    async with links:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"1")
        assert await reader.readexactly(1) == b"1"
        with pytest.raises(NotCut, match="nothing was sent"):
            await _send_and_receive(links, reader, writer)
        await _is_delayed(links, reader, writer)
        writer.close()


async def _is_delayed(
    links: Links, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Send a byte during a cut of its link, and check that it arrives only after the cut."""
    async with links.cut([("own", "node 0")]):
        writer.write(b"3")
        arriving = asyncio.ensure_future(reader.readexactly(1))
        await asyncio.sleep(0.2)
        assert not arriving.done()
    assert await arriving == b"3"


async def _send_and_receive(
    links: Links, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Send and receive a byte during a cut of other links."""
    async with links.cut([("another", "node 0"), ("own", "node 1")]):
        writer.write(b"2")
        assert await reader.readexactly(1) == b"2"


async def test_a_process_that_was_unknown_when_it_connected_is_cut_off(echo_port: int) -> None:
    known: dict[str, list[int]] = {}
    links = Links(lambda: known)
    port = links.advertise(echo_port)
    async with links:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"1")
        assert await reader.readexactly(1) == b"1"
        with pytest.raises(NotCut, match="no known process"):
            async with links.cut([("own", "node 0")]):
                pass
        known["own"] = [os.getpid()]
        await _is_delayed(links, reader, writer)
        writer.close()


async def test_connections_that_open_at_once_are_all_cut_off(echo_port: int) -> None:
    links = Links(lambda: {"own": [os.getpid()]})
    port = links.advertise(echo_port)
    async with links:
        opened = await asyncio.gather(*(asyncio.open_connection(HOST, port) for _ in range(20)))
        async with links.cut([("own", "node 0")]):
            for _, writer in opened:
                writer.write(b"1")
            arriving = [asyncio.ensure_future(reader.readexactly(1)) for reader, _ in opened]
            await asyncio.sleep(0.2)
            assert not any(each.done() for each in arriving)
        assert await asyncio.gather(*arriving) == [b"1"] * 20
        for _, writer in opened:
            writer.close()


async def test_the_end_of_a_connection_passes(echo_port: int) -> None:
    links = Links(dict)
    port = links.advertise(echo_port)
    async with links:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
