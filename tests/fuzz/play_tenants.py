"""Let two tenants attack each other on a running server for a time: a part of `make fuzz`.

Run in the repository's folder as `.venv/bin/python -m tests.fuzz.play_tenants HOST:PORT KEY SEED
SECONDS`; the server verifies tokens with KEY, and has no other callers. Exit codes: 0 passed, 1 a
failure, which is printed with the shortest calls that show it.
"""

import sys
import time
from pathlib import Path
from random import Random

from tests.fuzz.tenant_calls import Calls
from tests.fuzz.tenant_calls_machine import TenantCallsMachine
from tests.fuzz.tenant_history_machine import TenantHistoryMachine
from tests.fuzz.tenant_policies_machine import TenantPoliciesMachine
from tests.fuzz.tenant_writes_machine import TenantWritesMachine
from tests.fuzz.tenants_machine import TenantsMachine
from tests.fuzz.two_tenants import explore

EXAMPLES_AT_A_TIME = 20
GAMES = (
    TenantsMachine,
    TenantHistoryMachine,
    TenantWritesMachine,
    TenantPoliciesMachine,
    TenantCallsMachine,
)


def main(address: str, key_file: str, seed: str, seconds: str) -> int:
    """Explore with new seeds, derived from the given one, until the time is over."""
    end = time.monotonic() + float(seconds)
    random = Random(int(seed))
    calls = Calls(address, Path(key_file))
    try:
        while True:
            for game in GAMES:
                explore(game, calls, seed=random.getrandbits(32), examples=EXAMPLES_AT_A_TIME)
            if time.monotonic() >= end:
                break
    except AssertionError as failure:
        notes = "\n".join(getattr(failure, "__notes__", ()))
        print(f"the wall between two tenants has a hole: {failure}\n{notes}", file=sys.stderr)  # noqa: T201 - a script speaks
        return 1
    finally:
        calls.close()
    answered = ", ".join(f"{count} {name}" for name, count in calls.answers.most_common())
    print(f"the tenants are kept apart: {answered}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
