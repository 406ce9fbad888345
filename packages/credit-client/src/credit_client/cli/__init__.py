"""The `credit` command. Beyond the SDK it needs the extra `cli`."""

import sys

from credit_client.cli.exits import Exit, open_standard_streams

_EXTRA = {"rich", "typer"}


def main() -> None:
    """Run the command on the arguments of the process, and exit with one of `exits.Exit`."""
    open_standard_streams()
    try:
        from credit_client.cli.commands import run  # noqa: PLC0415 - needs the extra
    except KeyboardInterrupt:  # the modules take some tenths of a second to load
        sys.exit(Exit.INTERRUPTED)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write(
            "credit needs its extra: pip install ./dist/*.whl 'credit-client[cli]', with the wheels"
            " that make wheels builds\n"
        )
        sys.exit(Exit.MISUSE)
    run()
