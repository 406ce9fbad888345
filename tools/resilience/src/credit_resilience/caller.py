"""Write and read at a fixed rate, in a process of its own, and print one line for each call.

Run it as `python -m credit_resilience.caller HOST:PORT PERIOD`. PERIOD is the time between two
calls in seconds. The process ends when its standard input ends. Each call begins on schedule,
whether or not the earlier calls were answered. The measurement therefore contains the whole wait
for a stalled server.
"""

import asyncio
import sys
import time

from credit_client import ClientSettings, CreditClient, CreditError

TIMEOUT_SECONDS = 10.0
OK = "OK"
_USER_ID = 4_000_000_002
_APP_ID = 2


async def main(target: str, period_seconds: float) -> None:
    """Call until standard input ends."""
    # Retries are off, so that each failure is visible.
    settings = ClientSettings(
        target=target, retry_attempts_max=1, timeout_seconds=TIMEOUT_SECONDS, channels=1
    )
    async with CreditClient(settings=settings) as client, asyncio.TaskGroup() as calls:
        end = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        due, number = time.monotonic(), 0
        while not end.done():
            calls.create_task(_call(client, number, due))
            number, due = number + 1, due + period_seconds
            await asyncio.sleep(due - time.monotonic())


async def _call(client: CreditClient, number: int, due: float) -> None:
    try:
        if number % 2:
            await client.balance(app_id=_APP_ID, user_id=_USER_ID)
        else:
            await client.add(user_id=_USER_ID, app_id=_APP_ID, credits=1, created_by=1)
        outcome = OK
    except CreditError as error:
        outcome = type(error).__name__
    print(number, due, time.monotonic(), outcome, flush=True)  # noqa: T201 - the bystander reads it


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
