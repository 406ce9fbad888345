"""A channel of a client has one connection to the server, and opens a new one after its loss."""

import asyncio
import errno
from typing import cast

from credit_models.http2_engine import Engine
from credit_models.timeouts import Timeout
from credit_models.transports import abort
from grpclib.client import Channel
from grpclib.encoding.base import CodecBase, StatusDetailsCodecBase
from grpclib.protocol import Connection, H2Protocol

from credit_client.addresses import Resolve, in_turn, open_socket, resolve
from credit_client.bearer import keep_tokens_out_of_logs
from credit_client.connection import ClientProtocol, Watcher
from credit_client.keepalive import KeepaliveTimes
from credit_client.target import Target
from credit_client.tls import Tls, check_handshake, problem_of

# Half of the default deadline of a call. TCP sends a lost SYN again after 1 s and after 3 s.
CONNECT_TIMEOUT_SECONDS = 5.0

_CLOSE_SECONDS_MAX = 1.0


class ClientChannel(Channel):
    """One connection to the server; `connect` opens it, also again after its loss."""

    _protocol: ClientProtocol | None

    def __init__(
        self,
        target: Target,
        *,
        turn: int,
        connect_timeout_seconds: float,
        keepalive: KeepaliveTimes,
        codec: CodecBase,
        status_details_codec: StatusDetailsCodecBase,
        tls: Tls | None = None,
        resolver: Resolve = resolve,
        engine: Engine = Engine.AUTO,
    ) -> None:
        """Create a channel without a connection.

        Args:
            target: The server.
            turn: Which channel of the client this is: see `addresses.in_turn`.
            connect_timeout_seconds: The time to open a connection, from the name's look-up to the
                server's greeting.
            keepalive: When to send the server a PING.
            codec: Reads and writes messages.
            status_details_codec: Reads the details of a status.
            tls: Encrypts the connections; None: they are not encrypted.
            resolver: Finds the addresses of the target's host.
            engine: The library for HTTP/2.
        """
        super().__init__(
            target.host,
            target.port,
            codec=codec,
            status_details_codec=status_details_codec,
            ssl=None if tls is None else tls.context(),
        )
        self._authority = target.authority
        keep_tokens_out_of_logs()
        self._target = target
        self._turn = turn
        self._connect_timeout_seconds = connect_timeout_seconds
        self._keepalive_times = keepalive
        self._tls = tls
        self._resolver = resolver
        self._engine = engine
        self._failures = 0
        self._connect_error: BaseException | None = None
        self._leaving: set[ClientProtocol] = set()
        self._watcher: Watcher | None = None

    @property
    def connected(self) -> bool:
        """Whether a call can be sent now: the server has not announced the connection's end."""
        protocol = self._protocol
        return (
            protocol is not None
            and not protocol.handler.connection_lost
            and not protocol.processor.goaway_received
        )

    @property
    def tls_problem(self) -> str | None:
        """Why there is no safe connection, in a sentence that names the remedy; None otherwise."""
        if self._tls is None:
            return None
        ended_by = None if self._protocol is None else self._protocol.ended_by
        return problem_of(self._connect_error or ended_by, host=self._host)

    def is_leaving(self, connection: Connection) -> bool:
        """Return whether the server has announced the end of a connection of this channel."""
        known = self._leaving if self._protocol is None else {*self._leaving, self._protocol}
        return any(
            protocol.connection is connection and protocol.processor.goaway_received
            for protocol in known
        )

    def watch(self, watcher: Watcher) -> None:
        """Report this channel's connections to a watcher."""
        self._watcher = watcher

    def answered(self) -> None:
        """See `Watcher.answered`."""
        self._failures = 0
        if self._watcher is not None:
            self._watcher.answered()

    def lost(self) -> None:
        """See `Watcher.lost`."""
        self._failures += 1
        if self._watcher is not None:
            self._watcher.lost()

    async def connect(self) -> None:
        """Open a connection, unless there is one.

        Only one call of this method may run at a time.

        Raises:
            OSError: No connection was opened: no address answers, the handshake fails, or the time
                is up.
        """
        if self.connected:
            return
        self._keep_leaving()
        self._connect_error = None
        try:
            self._protocol = await self._in_time()
        except OSError as error:
            self._failures += 1
            if self._connect_error is None:
                self._connect_error = error
            raise

    async def __connect__(self) -> H2Protocol:
        """Return the connection for a call; grpclib calls this before it sends the call."""
        if not self.connected:
            await self.connect()
        return cast(H2Protocol, self._protocol)

    async def _in_time(self) -> ClientProtocol:
        try:
            async with Timeout(self._connect_timeout_seconds) as limit:
                protocol = await self._opened()
                try:
                    self._check(protocol)
                    await protocol.greeted()
                except BaseException:
                    abort(protocol.transport)
                    self._connect_error = protocol.ended_by
                    raise
                return protocol
        except TimeoutError as error:
            if not limit.expired():
                raise  # the operating system's own ETIMEDOUT
            raise TimeoutError(
                errno.ETIMEDOUT, f"no greeting within {self._connect_timeout_seconds:g} s"
            ) from error

    async def _opened(self) -> ClientProtocol:
        loop = asyncio.get_running_loop()
        # Each connection gets a new context, because certificates may be renewed meanwhile.
        context = None if self._tls is None else self._tls.context()
        name = None if context is None else self._host
        if self._target.path is not None:
            _, protocol = await loop.create_unix_connection(
                self._protocol_factory, self._target.path, ssl=context, server_hostname=name
            )
        else:
            found = await self._resolver(self._target.host, self._target.port)
            sock = await open_socket(in_turn(found, turn=self._turn, failures=self._failures))
            _, protocol = await loop.create_connection(
                self._protocol_factory, sock=sock, ssl=context, server_hostname=name
            )
        return protocol

    def _protocol_factory(self) -> ClientProtocol:
        return ClientProtocol(
            self._config, self._h2_config, self._keepalive_times, self, self._engine
        )

    def _check(self, protocol: ClientProtocol) -> None:
        if self._tls is not None:
            check_handshake(protocol.transport.get_extra_info("ssl_object"))

    def _keep_leaving(self) -> None:
        """Remember connections whose calls still run, so that `aclose` closes them too."""
        self._leaving = {each for each in self._leaving if not each.lost.done()}
        if self._protocol is not None and not self._protocol.lost.done():
            self._leaving.add(self._protocol)

    async def aclose(self) -> None:
        """Close all connections, also the leaving ones, and wait until their sockets are closed."""
        self._keep_leaving()
        protocols = list(self._leaving)
        self.close()
        for protocol in protocols:
            protocol.processor.close()
        if not protocols:
            return
        _, unsent = await asyncio.wait(
            [protocol.lost for protocol in protocols], timeout=_CLOSE_SECONDS_MAX
        )
        for protocol in protocols:
            if protocol.lost in unsent:
                # The socket's buffer cannot be sent: the other end does not read.
                abort(protocol.transport)
                await protocol.lost
