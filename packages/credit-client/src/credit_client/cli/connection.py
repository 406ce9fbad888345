"""The options that all commands share: the server, the connection to it, and the identity."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from credit_client.client import CreditClient
from credit_client.settings import ClientSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """The values of the options; None leaves the value to the environment.

    There is no option for a token itself: a command line is visible to everyone who lists the
    machine's processes, and stays in the shell's history.
    """

    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            help="The server: host:port, or unix:path."
            " [env var: CREDIT_TARGET; default: localhost:50051]",
        ),
    ] = None
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            help="The time for the call, in seconds."
            " [env var: CREDIT_TIMEOUT_SECONDS; default: 10]",
        ),
    ] = None
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="File with the token. [env var: CREDIT_TOKEN_FILE]"),
    ] = None
    tls: Annotated[
        bool | None,
        typer.Option(
            "--tls/--no-tls",
            help="Encrypt, and trust the system's CAs. [env var: CREDIT_TLS; default: no-tls]",
        ),
    ] = None
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            "--tls-ca", help="Encrypt, and trust the CAs in this file. [env var: CREDIT_TLS_CA]"
        ),
    ] = None
    client_certificate: Annotated[
        Path | None,
        typer.Option(
            "--client-certificate",
            help="File with the client's certificate. [env var: CREDIT_TLS_CLIENT_CERTIFICATE]",
        ),
    ] = None
    client_key: Annotated[
        Path | None,
        typer.Option(
            "--client-key",
            help="File with the key of that certificate. [env var: CREDIT_TLS_CLIENT_KEY]",
        ),
    ] = None
    insecure: Annotated[
        bool | None,
        typer.Option(
            "--insecure",
            help="Allow sending a token to another machine without TLS."
            " [env var: CREDIT_TOKEN_INSECURE; default: no]",
        ),
    ] = None

    users_app: Annotated[
        int | None,
        typer.Option(
            "--users-app",
            help="The app whose directory has the users that are texts."
            " [env var: CREDIT_USERS_APP_ID; default: that of --app]",
        ),
    ] = None

    def client(self) -> CreditClient:
        """Return a client for one call.

        Raises:
            ValueError: An option or a variable is not allowed, or contradicts another one.
        """
        return CreditClient(
            self.target,
            token=self.token_file,
            tls=self.tls if self.tls_ca is None else self.tls_ca,
            client_certificate=self.client_certificate,
            client_key=self.client_key,
            insecure=self.insecure,
            timeout_seconds=self.timeout,
            users_app_id=self.users_app,
            # A person should learn soon that no server runs.
            wait_for_ready=False,
        )

    def words(self, settings: ClientSettings) -> list[str]:
        """Return the options as words of a command line.

        Args:
            settings: The settings of the client. A retry must reach the same server and the same
                user even if the environment has changed: otherwise the write would count again.
        """
        words = ["--target", settings.target]
        for name, value in (
            ("users-app", settings.users_app_id),
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
