"""The `credit` command. Beyond the SDK it needs the extra `cli`."""

import gc
import sys

from credit_client.cli.exits import Exit, open_standard_streams

_EXTRA = {"rich", "typer"}


def main() -> None:
    """Run the command on the arguments of the process, and exit with one of `exits.Exit`.

    What the modules make lives until the end. The garbage collector does not look at it, neither
    while they load nor at the end: that would take a sixth of the CPU time of a short command.
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
            "credit needs its extra: pip install ./dist/*.whl 'credit-client[cli]', with the wheels"
            " that make wheels builds\n"
        )
        sys.exit(Exit.MISUSE)
    gc.freeze()
    gc.enable()
    run()
