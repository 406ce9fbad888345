"""The options that all commands share: which server, how to reach it, and who calls."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from credit_client.client import CreditClient


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """What the options say; None leaves it to the environment.

    There is no option for a token itself: what stands on a command line is seen by everybody who
    lists the machine's processes, and stays in the shell's history.
    """

    target: Annotated[
        str | None,
        typer.Option(
            "--target", help="The server: host:port, or unix:path. [CREDIT_TARGET; localhost:50051]"
        ),
    ] = None
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", help="Seconds for the call. [CREDIT_TIMEOUT_SECONDS; 10]"),
    ] = None
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="File with the token. [CREDIT_TOKEN_FILE]"),
    ] = None
    tls: Annotated[
        bool | None,
        typer.Option("--tls/--no-tls", help="Encrypt, with the system's CAs. [CREDIT_TLS; no]"),
    ] = None
    tls_ca: Annotated[
        Path | None,
        typer.Option("--tls-ca", help="Encrypt, with the CAs in this file. [CREDIT_TLS_CA]"),
    ] = None
    client_certificate: Annotated[
        Path | None,
        typer.Option(
            "--client-certificate",
            help="File with the client's certificate. [CREDIT_TLS_CLIENT_CERTIFICATE]",
        ),
    ] = None
    client_key: Annotated[
        Path | None,
        typer.Option("--client-key", help="File with its key. [CREDIT_TLS_CLIENT_KEY]"),
    ] = None
    insecure: Annotated[
        bool | None,
        typer.Option(
            "--insecure",
            help="Send a token to another machine without TLS. [CREDIT_TOKEN_INSECURE; no]",
        ),
    ] = None

    def client(self) -> CreditClient:
        """Makes a client for one call.

        Raises:
            ValueError: An option or a variable cannot be, or does not fit another.
        """
        return CreditClient(
            self.target,
            token=self.token_file,
            tls=self.tls if self.tls_ca is None else self.tls_ca,
            client_certificate=self.client_certificate,
            client_key=self.client_key,
            insecure=self.insecure,
            timeout_seconds=self.timeout,
            # A person who waits wants to know soon that no server runs.
            wait_for_ready=False,
        )

    def words(self, target: str) -> list[str]:
        """Return the options as words of a command line.

        Args:
            target: The server, which a retry must find also where the environment has changed: in
                another server's ledger a write would count again.
        """
        words = ["--target", target]
        for name, value in (
            ("timeout", self.timeout),
            ("token-file", self.token_file),
            ("tls-ca", self.tls_ca),
            ("client-certificate", self.client_certificate),
            ("client-key", self.client_key),
        ):
            words += [] if value is None else [f"--{name}", str(value)]
        if self.tls is not None:
            words.append("--tls" if self.tls else "--no-tls")
        if self.insecure:
            words.append("--insecure")
        return words


def with_connection(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of `Connection`, and passes one as its argument `connection`.

    typer reads options off a function's signature, so that sharing them would else mean to repeat
    them in each command.
    """
    hints = get_type_hints(Connection, include_extras=True)
    own = inspect.signature(command).parameters
    options = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in fields(Connection)
    ]

    @functools.wraps(command)
    def run(**values: Any) -> None:  # Any: each option has a type of its own
        given = {option.name: values.pop(option.name) for option in options}
        command(**values, connection=Connection(**given))

    parameters = [
        *(
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in own.values()
            if parameter.name != "connection"
        ),
        *options,
    ]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run
