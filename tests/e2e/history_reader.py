"""Read one user's history through the SDK in a process of its own, and print what it took.

Run as `python history_reader.py HOST:PORT USER_ID`. It prints a JSON object: the number of
entries, whether they came in order, the sum of their credits, and by how many bytes the process
grew after the first of them.
"""

import asyncio
import json
import re
import sys
from pathlib import Path

from credit_client import CreditClient


def memory_bytes(pid: int | str, field: str) -> int:
    """Read `VmRSS` (resident memory now) or `VmHWM` (its peak) of a process, in bytes."""
    status = Path("/proc", str(pid), "status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


async def read(target: str, user_id: int) -> dict[str, int | bool]:
    """Stream the history and count."""
    count = total = start_bytes = 0
    in_order = True
    async with CreditClient(target) as client:
        async for entry in client.transactions(user_id=user_id):
            count += 1
            total += entry.credits
            in_order &= entry.sequence == count
            if count == 1:
                start_bytes = memory_bytes("self", "VmRSS")
    grown_bytes = memory_bytes("self", "VmHWM") - start_bytes
    return {"count": count, "in_order": in_order, "total": total, "grown_bytes": grown_bytes}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(read(sys.argv[1], int(sys.argv[2])))))  # noqa: T201
