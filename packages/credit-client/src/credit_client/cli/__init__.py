"""The `credit` command. Beyond the SDK it needs the extra `cli`."""

import gc
import sys

from credit_client.cli.exits import Exit, open_standard_streams

_EXTRA = {"rich", "typer"}


def main() -> None:
    """Run the command on the arguments of the process, and exit with one of `exits.Exit`.

    The objects that the imports create live until the process ends. The garbage collector skips
    them, both during the imports and at the end: a scan would take a sixth of the CPU time of a
    short command.
    """
    open_standard_streams()
    gc.disable()
    try:
        from credit_client.cli.commands import run  # noqa: PLC0415 - needs the extra
    except KeyboardInterrupt:  # the modules take some tenths of a second to load
        sys.exit(Exit.INTERRUPTED)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write(
            "credit needs the extra cli: run make wheels in a clone of the repository, then"
            " pip install ./dist/*.whl 'credit-client[cli]'\n"
        )
        sys.exit(Exit.MISUSE)
    gc.freeze()
    gc.enable()
    run()
