"""Test the channel between the supervisor and a worker."""

import asyncio
import socket

from credit_server.workers.channel import Channel, channel_pair


async def test_a_message_is_sent_later_if_the_other_end_reads_nothing() -> None:
    ours, its = channel_pair()
    received: list[str] = []
    sender = Channel(ours, lambda *_: None)
    with socket.socket() as connection:
        while sender.send("connection", connection):
            pass
        assert sender.send("drain")
        assert not sender.send("connection", connection)  # none may follow "drain"
    ended = asyncio.Event()

    def receive(message: str, passed: socket.socket | None) -> None:
        received.append(message)
        if passed is None:
            ended.set()
        else:
            passed.close()

    receiver = Channel(its, receive)
    await ended.wait()
    assert set(received[:-1]) == {"connection"}
    assert received[-1] == "drain"
    assert sender.send("stop")
    sender.close()
    receiver.close()


async def test_what_was_not_sent_is_dropped_when_the_other_end_is_closed() -> None:
    ours, its = channel_pair()
    sender = Channel(ours, lambda *_: None)
    with socket.socket() as connection:
        while sender.send("connection", connection):
            pass
    assert sender.send("drain")
    its.close()
    await sender.closed.wait()
    assert not sender.send("stop")
    sender.close()
    assert not sender.send("stop")
