"""Run attacks one after the other on servers with a bystander, and measure each."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from credit_client import ClientSettings, CreditClient
from credit_server.embedded import EmbeddedMongod
from credit_testing.http2_client import ServerFault

from credit_resilience import usage
from credit_resilience.attack import Attack, Outcome, Target
from credit_resilience.bystander import PERIOD_SECONDS, Bystander, bystander
from credit_resilience.requests import APP_ID, HISTORY_USER_ID
from credit_resilience.row import Cost, Row
from credit_resilience.server import Server, ServerLimits, migrate, serving

DATABASE = "credit_resilience"
HISTORY_ENTRIES = 2_000
_REST_SECONDS = 1.0
"""How long the bystander is observed before an attack."""
_ATTACK_SECONDS_FACTOR = 6
"""An attack is cancelled after this many times the seconds that an attacker waits."""

Progress = Callable[[Row], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetServer:
    """A server under attack and its bystander.

    Attributes:
        server: The server.
        bystander: A well-behaved caller of the server.
        limits: The limits of the server.
    """

    server: Server
    bystander: Bystander
    limits: ServerLimits


async def run_attacks(
    attacks: Sequence[Attack], folder: Path, *, seconds: float, progress: Progress
) -> list[Row]:
    """Run attacks at their full size on a mongod of their own.

    Args:
        attacks: The attacks, in the order to run them.
        folder: The folder for data and logs.
        seconds: How long an attacker waits for the server to act without a request.
        progress: The function to call with each row.

    Raises:
        ServerNotStarted: The server does not start.
        EmbeddedError: The mongod does not start.
    """
    rows: list[Row] = []
    written = False
    async with EmbeddedMongod(data_dir=folder / "data") as mongod, AsyncExitStack() as stack:
        await migrate(mongod.uri, DATABASE)
        attacked: TargetServer | None = None
        for attack in attacks:
            if attacked is None:
                attacked = await stack.enter_async_context(
                    target_server(mongod.uri, DATABASE, folder)
                )
            if attack.lists_history and not written:
                await write_history(attacked.server.target)
                written = True
            row = await run_attack(attack, attacked, seconds=seconds)
            rows.append(row)
            progress(row)
            if attack.heavy or row.failures:
                await stack.aclose()
                attacked = None
    return rows


@asynccontextmanager
async def target_server(
    uri: str,
    database: str,
    folder: Path,
    *,
    limits: ServerLimits | None = None,
    period_seconds: float = PERIOD_SECONDS,
) -> AsyncIterator[TargetServer]:
    """Run a server, and a bystander that calls once per period, until the context exits."""
    limits = limits or ServerLimits()
    async with (
        serving(uri, database, folder, limits=limits) as server,
        bystander(server.target, period_seconds) as caller,
    ):
        yield TargetServer(server=server, bystander=caller, limits=limits)


async def write_history(target: str, entries: int = HISTORY_ENTRIES) -> None:
    """Write a long history for one user.

    Args:
        target: The server's host:port.
        entries: How many transactions.
    """
    async with (
        CreditClient(settings=ClientSettings(target=target)) as client,
        client.batch() as batch,
    ):
        for _ in range(entries):
            batch.add(user_id=HISTORY_USER_ID, app_id=APP_ID, credits=1, created_by=1)


async def run_attack(
    attack: Attack,
    attacked: TargetServer,
    *,
    seconds: float,
    scale: float = 1.0,
    rest_seconds: float = _REST_SECONDS,
) -> Row:
    """Run one attack and measure its effect.

    Args:
        attack: The attack.
        attacked: The server and its bystander.
        seconds: How long an attacker waits for the server to act without a request.
        scale: The size of the attack as a share of its full size.
        rest_seconds: How long to observe the bystander before the attack.
    """
    server, caller = attacked.server, attacked.bystander
    target = Target(server=server, limits=attacked.limits, scale=scale, seconds=seconds)
    await asyncio.sleep(rest_seconds)
    usage.reset_peak(server.pid)
    cpu, resident = usage.cpu_seconds(server.pid), usage.resident_bytes(server.pid)
    begin = time.monotonic()
    outcome = await _outcome(attack, target)
    end = time.monotonic()
    cost = None
    if server.process.returncode is None:
        cost = Cost(
            cpu_seconds=usage.cpu_seconds(server.pid) - cpu,
            growth_bytes=max(0, usage.peak_bytes(server.pid) - resident),
        )
    return Row(
        attack=attack,
        outcome=outcome,
        seconds=end - begin,
        at_rest=await caller.experience(begin - rest_seconds, begin),
        attacked=await caller.experience(begin, end),
        cost=cost,
    )


async def _outcome(attack: Attack, target: Target) -> Outcome:
    limit = target.seconds * _ATTACK_SECONDS_FACTOR
    try:
        async with asyncio.timeout(limit):
            return await attack.run(target)
    except TimeoutError:
        return Outcome(seen=f"not over after {limit:g} s", held=False)
    except ServerFault as fault:
        return Outcome(seen=f"the server broke HTTP/2: {fault}", held=False)
    except OSError as error:
        return Outcome(seen=f"{type(error).__name__}: {error}", held=False)
