"""The `credit` command. What it needs beyond the SDK is the extra `cli`."""

import sys

from credit_client.cli.streams import open_standard_streams

_EXTRA = {"rich", "typer"}


def main() -> None:
    """Runs the command on the arguments of the process, and exits with one of `exits.Exit`."""
    open_standard_streams()
    try:
        from credit_client.cli.commands import run  # noqa: PLC0415 - needs the extra
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write("credit needs its extra: pip install 'credit-client[cli]'\n")
        sys.exit(2)
    run()
