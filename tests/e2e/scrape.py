"""Read the metrics of a real server, as Prometheus does."""

import asyncio
import re
import urllib.request

from credit_testing.server import ServerProcess
from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""Values by name and labels."""


async def scrape(server: ServerProcess) -> Samples:
    """Return the samples that a server exports at the address in its banner."""
    (url,) = re.findall(r"  scrape (http://\S+)", server.banner)

    def read() -> str:
        with urllib.request.urlopen(url) as response:
            return str(response.read().decode())

    text = await asyncio.to_thread(read)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
