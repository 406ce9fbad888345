"""Build the commands of each typer application once per process, instead of at each call.

typer inspects the functions behind all commands whenever an application is called: 80 ms of CPU for
`credit`, whose tests call it hundreds of times.
"""

from functools import cache

import typer.main
import typer.testing


def build_once() -> None:
    """Keep the commands of an application from its first call on, in this process."""
    built = cache(typer.main.get_command)
    typer.main.get_command = built
    # `CliRunner` has imported the function under this private name, so it calls this one.
    typer.testing._get_command = built  # type: ignore[attr-defined] # mypy sees public names only
