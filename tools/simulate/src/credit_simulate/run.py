"""Run a seed and audit the answers and histories."""

import asyncio
import gc
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from random import Random

import structlog
from credit_client.errors import HistoryAltered
from credit_client.request import request_id
from credit_client.verification import HistoryVerifier
from credit_models import Receipt
from credit_testing.accounts.auditor import audit_replayed
from credit_testing.accounts.journal import Journal
from credit_testing.accounts.replay import History, Inexplicable, Replay
from structlog.types import EventDict

from credit_simulate.alerts import event_findings
from credit_simulate.loop import VirtualLoop
from credit_simulate.plan import Step, plan
from credit_simulate.simulation import EVERYONE, WEBHOOK, Played, Simulation
from credit_simulate.trace import Trace

STEPS = 20
_GARBAGE = 20_000
"""The number of new objects that triggers a garbage collection. With 700, runs take 4% longer."""
_TURNS_MAX, _TURNS_OF_STEP_MAX = 20_000, 500
"""Several times what a run takes: 2,700 turns for 40 steps, and 17,000 turns for 200 steps."""
_SKEW = timedelta(seconds=4)
"""How far the clocks of two servers may differ."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """The result of a run.

    Attributes:
        seed: The seed.
        steps: The steps that were taken.
        findings: The violations of the contract; empty if there are none.
        struck: The faults that happened: the number of the place, and the fault.
        trace: The events of the run.
        calls: How many calls were made.
    """

    seed: int
    steps: Sequence[Step]
    findings: Sequence[str]
    struck: Sequence[tuple[int, str]]
    trace: Trace
    calls: int


def run(
    seed: int,
    steps: int | Sequence[Step] = STEPS,
    *,
    withheld: Collection[int] = (),
) -> Run:
    """Simulate and audit.

    Args:
        seed: Decides the whole run.
        steps: How many steps are planned, or the steps themselves.
        withheld: The places where faults are suppressed.
    """
    planned = plan(seed, steps) if isinstance(steps, int) else steps
    random = Random(f"order-{seed}")
    loop = VirtualLoop(
        random,
        reorders=random.random() < 0.5,
        turns_max=_TURNS_MAX + _TURNS_OF_STEP_MAX * len(planned),
    )
    findings: list[str] = []
    simulations: list[Simulation] = []

    async def play() -> Played:
        simulations.append(Simulation(seed, planned, withheld))
        with request_id("simulated"):  # otherwise, the SDK draws one for each call
            return await simulations[0].run()

    try:
        played = loop.run_until_complete(play())
        findings += audit(played)
    except Exception as error:  # noqa: BLE001 - whatever ends a simulation is a finding
        findings.append(f"the simulation has ended: {error!r}")
    finally:
        _close(loop)
    world = simulations[0].world
    return Run(
        seed=seed,
        steps=planned,
        findings=[*world.bugs, *loop.faults, *findings],
        struck=world.faults.struck,
        trace=world.trace,
        calls=len(simulations[0].callers.journal.calls),
    )


def audit(played: Played) -> list[str]:
    """Return the violations of the contract."""
    journal = played.callers.journal
    try:
        replay = Replay(
            journal,
            EVERYONE,
            played.world.policies.rules(),
            clocks_differ=True,
            alert_changes=played.alerts.changes,
        )
    except Inexplicable as finding:
        return [str(finding)]
    found = audit_replayed(journal, replay, skew=_SKEW)
    found += event_findings(played.events, journal, replay.histories, played.world.policies)
    found += played.policies.findings(played.last_policies)
    crossed = {
        event.id: (event.user_id, event.sequence, event.balance, event.alert.credits)
        for event in played.events
        if event.app_id == WEBHOOK.app_id and event.alert is not None
    }
    found += played.world.receiver.findings(crossed, played.deliveries)
    found += _hash_findings(journal, replay.histories)
    found += played.queries.findings(replay.histories)
    found += played.names.findings()
    for watcher in played.watchers:
        found += watcher.findings(replay.histories)
    return found


def _hash_findings(journal: Journal, histories: Mapping[int, History]) -> Iterator[str]:
    """Yield each entry whose hash does not agree with its fields, the chain or a receipt."""
    answers = [answer for call in journal.calls for _, answer in call.writes()]
    verifier = HistoryVerifier(receipts=[each for each in answers if isinstance(each, Receipt)])
    try:
        for history in histories.values():
            for entry in history.shown:
                verifier.add(entry)
        verifier.end()
    except HistoryAltered as finding:
        yield str(finding)


def _close(loop: VirtualLoop) -> None:
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@contextmanager
def quiet() -> Iterator[None]:
    """Drop the log lines of the servers, and run the garbage collector less often, in a context.

    Simulations produce thousands of log lines. Garbage collections skip everything that exists
    when the context begins, such as all imported modules.
    """
    configured, thresholds = structlog.get_config(), gc.get_threshold()
    structlog.configure(processors=[_drop])
    gc.freeze()
    gc.set_threshold(_GARBAGE, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
        structlog.configure(**configured)


def _drop(*_: object) -> EventDict:
    raise structlog.DropEvent
