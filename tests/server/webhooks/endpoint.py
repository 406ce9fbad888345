"""An HTTP endpoint for webhooks, in this process."""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

# Instead of an answer: a record of TLS that cannot be decrypted.
BAD_RECORD = b"\x17\x03\x03\x00\x20" + b"x" * 32


@dataclass
class Received:
    """A request that the endpoint got."""

    headers: dict[str, str]
    body: bytes


@dataclass
class Endpoint:
    """An HTTP server whose next answers the test defines; then it answers 204."""

    port: int = 0
    answers: list[bytes] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(asyncio.create_task(self.serve(reader, writer)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")[1:-2]
                headers = {name.lower(): text for name, text in (x.split(": ", 1) for x in lines)}
                body = await reader.readexactly(int(headers["content-length"]))
                self.received.append(Received(headers, body))
                answer = self.answers.pop(0) if self.answers else answer_of(204)
                if not answer:
                    await asyncio.Event().wait()
                if answer is BAD_RECORD:  # past the TLS of the connection
                    raw: socket.socket = writer.get_extra_info("socket")
                    with socket.socket(fileno=os.dup(raw.fileno())) as copy:
                        copy.send(answer)
                    continue
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def answer_of(status: int, headers: str = "", body: bytes = b"") -> bytes:
    """Return an HTTP answer."""
    head = f"HTTP/1.1 {status} Some\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


@asynccontextmanager
async def endpoint(tls: ssl.SSLContext | None = None, *, port: int = 0) -> AsyncIterator[Endpoint]:
    """Listen on this machine; port 0: any free one."""
    found = Endpoint()
    server = await asyncio.start_server(found.accept, "127.0.0.1", port, ssl=tls)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        for task in found.tasks:
            task.cancel()
        await asyncio.gather(*found.tasks, return_exceptions=True)
