"""Sharing the work of a phase among the workers."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from grpc_fuzz.model import Case

if TYPE_CHECKING:
    # The phases that the session plays import this module.
    from grpc_fuzz.session import Session


class Stopped(BaseException):
    """Ends a search of hypothesis at once: what is no Exception, it does not take for a failure."""


def share(session: "Session", tasks: Iterable[Callable[[], None]]) -> None:
    """Runs independent tasks on as many threads as the settings say, and waits for all.

    Raises:
        BaseException: What a task has raised, or what has interrupted the waiting; the tasks that
            run have ended then.
    """

    def stopping(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException:
            # Here, and not only below: the next task may begin before the wait ends.
            session.stop()
            raise

    with ThreadPoolExecutor(max_workers=session.settings.workers) as pool:
        outcomes = [pool.submit(stopping, task) for task in tasks]
        try:
            for outcome in outcomes:
                outcome.result()
        except BaseException:
            session.stop()
            raise


def send_all(session: "Session", cases: Iterable[Case]) -> None:
    """Sends cases one after the other, and records what fails."""
    for case in cases:
        if session.stopped:
            return
        if session.given_up(case.method):
            continue
        for failure in session.attempt(case):
            session.record(failure)
