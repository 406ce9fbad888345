"""Fuzz the real server on a real mongod, then check its ledger: the command behind `make fuzz`.

The first part runs without identities, the second with tokens: first two tenants attack each other,
then the fuzzer, which may do everything, makes each call without its token too. In the last part
two servers on one database are killed in turn.

Run as `.venv/bin/python tools/fuzz/run.py`. Variables: MINUTES, how long, 5 by default; SEED, to
send the same cases again; STATE, the folder for the server's log and for failures, which the next
run sends first: `.grpc-fuzz` by default, and `guarded` in it for the second half. Exit codes: 0
passed, 1 failures or a ledger that does not add up, 2 a wrong variable, 3 a fault of grpc-fuzz
itself, 130 stopped by a signal.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from credit_models.scopes import SCOPES
from credit_server.development.command import AUDIENCE, ISSUER
from credit_server.development.files import SECRET, write_new_file
from credit_server.development.token import Grant, issue_token, make_keys
from credit_server.embedded import EmbeddedMongod
from credit_testing.child import started

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
CONFIG = FOLDER / "grpc-fuzz.toml"
STATE = ROOT / ".grpc-fuzz"
SERVER_LOG = "server.log"
DATABASE = "credit"

MINUTES, MINUTES_MAX = 5.0, 24 * 60
FAILURES_MAX = 20
"""A broken server fails in hundreds of ways; more failures are of no use to a reader."""
TENANTS_SHARE = 0.3
"""The share of the time with tokens that two tenants attack each other."""
TWO_SERVERS_SHARE = 0.2
"""The share of the time in which two servers write to one database and are killed."""
SLACK_MINUTES = 60.0
"""How much longer than the run a token is valid."""
EXPIRED_MINUTES = -10.0
"""When the expired token expired: well beyond the leeway for clocks that differ."""
FAILED, MISUSE, STOPPED = 1, 2, 128 + signal.SIGINT


class Misuse(Exception):
    """Raised when a variable has a wrong value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """The files of keys and tokens.

    Attributes:
        key: Signs tokens.
        public_keys: Verify them.
        token: Holds a token with all scopes, for all apps and in the name of any actor.
        expired: Holds one that would be the same, had it not expired.
    """

    key: Path
    public_keys: Path
    token: Path
    expired: Path

    @property
    def server_options(self) -> list[str | Path]:
        """Return options of a server that verifies tokens and has no rate limits.

        With a limit on failures it would soon reject callers without a token unseen.
        """
        return [
            *("--token-keys", self.public_keys),
            *("--token-issuer", ISSUER, "--token-audience", AUDIENCE),
            *("--rate-per-second", "0", "--failures-per-second", "0"),
        ]

    @property
    def fuzzer_options(self) -> list[str | Path]:
        """Return options that make grpc-fuzz send the tokens."""
        return ["--token-file", self.token, "--expired-token-file", self.expired]


def make_tokens(directory: Path, minutes: float) -> Tokens:
    """Make keys and tokens.

    Args:
        directory: Where to; it must not have any.
        minutes: How long they are needed.
    """
    key, public_keys = make_keys(directory)
    tokens = Tokens(
        key=key,
        public_keys=public_keys,
        token=directory / "token",
        expired=directory / "expired-token",
    )
    for path, lasting in (
        (tokens.token, minutes + SLACK_MINUTES),
        (tokens.expired, EXPIRED_MINUTES),
    ):
        write_new_file(path, issue_token(key, _everything(lasting)).encode(), SECRET)
    return tokens


def _everything(minutes: float) -> Grant:
    return Grant(
        subject="fuzzer",
        scopes=sorted(SCOPES),
        apps=None,
        actor=None,
        impersonate=True,
        minutes=minutes,
        issuer=ISSUER,
        audience=AUDIENCE,
    )


async def fuzz(*, minutes: float, seed: int, state: Path) -> int:
    """Fuzz a server without identities, then one with tokens, then two on one database.

    Returns:
        The exit code: of the first of all parts that has not passed.
    """
    seconds = minutes * 60 * (1 - TWO_SERVERS_SHARE) / 2
    with tempfile.TemporaryDirectory(prefix="credit-fuzz-") as folder:
        _say("without identities")
        open_to_all = await _round(
            Path(folder) / "open", state, [], [_fuzzer(state, seed, seconds)]
        )
        _say("with tokens")
        tokens = make_tokens(Path(folder) / "keys", minutes)
        state = state / "guarded"
        guarded = await _round(
            Path(folder) / "guarded",
            state,
            tokens.server_options,
            [
                _tenants(tokens, seed, seconds * TENANTS_SHARE),
                _fuzzer(state, seed, seconds * (1 - TENANTS_SHARE), *tokens.fuzzer_options),
            ],
        )
    _say("two servers, one of which is killed")
    alone = minutes * 60 * TWO_SERVERS_SHARE
    two_servers = await _run(
        sys.executable, "-m", "tests.fuzz.play_two_servers", str(seed), str(alone)
    )
    return open_to_all or guarded or two_servers


Part = Callable[[str], Sequence[str | Path]]
"""A function that returns the command of a part, given the server's address."""


def _fuzzer(state: Path, seed: int, seconds: float, *options: str | Path) -> Part:
    return lambda address: [
        _command("grpc-fuzz"),
        *("fuzz", "--config", CONFIG, "--target", address, "--seed", str(seed)),
        *("--state-directory", state, "--max-time", str(seconds)),
        *("--max-failures", str(FAILURES_MAX), *options),
    ]


def _tenants(tokens: Tokens, seed: int, seconds: float) -> Part:
    return lambda address: [
        *(sys.executable, "-m", "tests.fuzz.play_tenants"),
        *(address, tokens.key, str(seed), str(seconds)),
    ]


async def _round(
    data: Path, state: Path, options: Sequence[str | Path], parts: Sequence[Part]
) -> int:
    """Start a server, run all parts against it, stop it, and check its ledger."""
    log = state / SERVER_LOG
    status = 0
    async with _server(data, log, options) as (server, address):
        for part in parts:
            ended = await _run(*part(address))
            status = status or ended
    if server.returncode != 0:
        _say(f"the server ended with {server.returncode}; its log is {log}")
        status = status or FAILED
    # A new mongod reads what was written; what was only in memory does not count.
    async with EmbeddedMongod(data_dir=data) as mongod:
        ledger = await _run(
            sys.executable, "-m", "credit_testing.ledger_check", mongod.uri, DATABASE
        )
    return status or ledger


@contextlib.asynccontextmanager
async def _server(
    data: Path, log: Path, options: Sequence[str | Path]
) -> AsyncIterator[tuple[Process, str]]:
    """Run a server with its embedded mongod, and yield it with its address."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stderr:
        async with started(
            _command("credit-server"),
            *("serve", "--port", "0", "--data-dir", data, "--log-level", "warning"),
            # The fuzzer and its model have the contract's own bounds.
            *("--credits-max", str(2**32 - 1), *options),
            stdout=PIPE,
            stderr=stderr,
        ) as server:
            yield server, await _address(server, log)


async def _address(server: Process, log: Path) -> str:
    assert server.stdout is not None  # noqa: S101 - for the type checker; it is a pipe
    banner = (await server.stdout.readline()).decode()
    if " listens on " not in banner:
        raise SystemExit(f"the server did not start, and says why in {log}: {banner}")
    return banner.partition(" listens on ")[2].partition(" ")[0]


async def _run(*command: str | Path) -> int:
    """Run a command to its end, or stop it when this task is cancelled."""
    async with started(*command, folder=ROOT) as process:
        return await process.wait()


def _command(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)  # noqa: T201 - a script speaks


async def main() -> int:
    """Fuzz as the environment asks; SIGINT and SIGTERM stop everything that was started."""
    minutes, seed, state = _minutes(), _seed(), _state()
    _say(f"replay with: make fuzz SEED={seed}")
    task = asyncio.ensure_future(fuzz(minutes=minutes, seed=seed, state=state))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        _say("stopped")
        return STOPPED


def _state() -> Path:
    # Relative to this folder: the commands run in the repository's folder.
    return Path(os.environ.get("STATE") or STATE).absolute()


def _minutes() -> float:
    given = os.environ.get("MINUTES") or str(MINUTES)
    with contextlib.suppress(ValueError):
        if 0 < (minutes := float(given)) <= MINUTES_MAX:
            return minutes
    raise Misuse(f"MINUTES={given} is not above 0 and at most {MINUTES_MAX}")


def _seed() -> int:
    given = os.environ.get("SEED") or str(secrets.randbits(32))
    if not given.isdecimal():
        raise Misuse(f"SEED={given} is not an integer from 0")
    return int(given)


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except Misuse as misuse:
        _say(str(misuse))
        sys.exit(MISUSE)
