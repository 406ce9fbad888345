"""Run the command `credit-server` with lower constants, so that a test need not wait for them.

The constants are defaults of value objects that no setting changes. A child process gets them as
JSON in its first argument; its other arguments are the command line.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from unittest.mock import patch

from credit_server import app, main
from credit_server.commit import Clock
from credit_server.settings import ServerSettings
from credit_server.telemetry import HealthWatch
from credit_server.workers.worker import Assignment

from credit_testing.child import module

Constants = Mapping[str, Mapping[str, float]]
"""The values by name for `health` (arguments of `HealthWatch`), for `clock` (arguments of `Clock`),
and for each value object of `ServerSettings`, such as `connection`."""


def command(constants: Constants) -> list[str]:
    """Return the command that runs `credit-server` with these constants."""
    if not constants:
        return module("credit_server.main")
    return module("credit_testing.constants", json.dumps(constants))


def _run() -> None:
    """Run the command line with the constants of the first argument."""
    changes = dict(json.loads(sys.argv.pop(1)))
    serve, watch = app.serve, partial(HealthWatch, **changes.pop("health", {}))
    clock = partial(Clock, **changes.pop("clock", {}))

    async def serve_with_constants(
        settings: ServerSettings, assignment: Assignment | None = None
    ) -> None:
        limits = {name: replace(getattr(settings, name), **changes[name]) for name in changes}
        await serve(settings.model_copy(update=limits), assignment)

    with patch.multiple(app, serve=serve_with_constants, HealthWatch=watch, Clock=clock):
        main.main()


if __name__ == "__main__":
    _run()
