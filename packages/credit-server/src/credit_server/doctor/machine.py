"""Check this machine: settings, addresses, limits, and the files that a server writes."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from credit_models.http2_engine import Engine, chosen

from credit_server.doctor.credentials import readable_by_others
from credit_server.doctor.report import Finding, counted, fails, ok, warning
from credit_server.doctor.subject import Subject
from credit_server.embedded import FREE_BYTES_MIN
from credit_server.http2.unix_socket import socket_path
from credit_server.settings import is_loopback

_FREE_BYTES_FAILS = 256 * 1024 * 1024
_FREE_BYTES_WARNING = 2 * 1024 * 1024 * 1024

# The storage engine, the driver, the logs, and other files that the process opens.
_FILES_BESIDES_CONNECTIONS = 200


def check_settings(subject: Subject) -> Iterator[Finding]:
    """Check for settings that are valid but risky."""
    check, settings = "settings", subject.settings
    if settings.insecure and not is_loopback(settings.host):
        yield warning(
            check,
            f"other machines can reach {settings.host}, and --insecure is set",
            "use TLS and identities, or make sure that the network is trusted",
        )
    else:
        yield ok(check, "all settings are valid")


def check_variables(subject: Subject) -> Iterator[Finding]:
    """Check for variables that the server ignores, such as a setting with a typing error."""
    check = "variables"
    if subject.unknown_variables:
        yield warning(
            check,
            f"no setting has the name {', '.join(subject.unknown_variables)}",
            "correct or unset them; credit-server serve --help lists all settings",
        )
    else:
        yield ok(check, "every variable that begins with CREDIT_ is a setting")


def check_http2(subject: Subject) -> Iterator[Finding]:
    """Check which library reads and writes HTTP/2."""
    check, engine = "HTTP/2", subject.settings.http2
    used = chosen(engine)
    if engine is Engine.AUTO and used is Engine.H2:
        yield warning(
            check,
            "the server uses h2, which is written in Python",
            "install credit-server[fast]: a call then takes about half the CPU",
        )
    else:
        yield ok(check, f"the server uses {used}")


def check_address(subject: Subject) -> Iterator[Finding]:
    """Check whether a server can listen on the address, or a credit-server already does."""
    check, settings, error = "address", subject.settings, subject.address_error
    path = socket_path(settings.host)
    where = f"{settings.host} port {settings.port}" if path is None else f"the socket {path}"
    if settings.port == 0 and path is None:
        yield ok(check, "the server uses any free port")
    elif error is None:
        yield ok(check, f"{where} is free")
    elif error.errno != errno.EADDRINUSE:
        yield fails(
            check,
            f"a server cannot listen on {where}: {error.strerror}",
            "change --host or --port",
        )
    elif subject.address_serving is None:
        yield warning(
            check,
            f"{where} is in use by a program that does not report its health",
            "if it is not your credit-server, stop it, or choose another port with --port",
        )
    elif subject.address_serving:
        yield ok(check, f"a credit-server listens on {where} and serves")
    else:
        yield warning(
            check, f"a credit-server listens on {where} and does not serve", "read its log"
        )


def check_metrics(subject: Subject) -> Iterator[Finding]:
    """Check whether a server can export its metrics on their address."""
    check, settings, error = "metrics", subject.settings, subject.metrics_error
    host, port = settings.metrics_host, settings.metrics_port
    where = f"{host} port {port}"
    remedy = "choose another address with --metrics-host and --metrics-port, or set --no-metrics"
    if not settings.metrics:
        yield ok(check, "metrics are disabled")
    elif port == 0:
        yield ok(check, "metrics use any free port")
    elif (host, port) == (settings.host, settings.port):
        yield fails(check, f"{where} is the address of the calls", remedy)
    elif error is None:
        yield ok(check, f"{where} is free")
    elif error.errno != errno.EADDRINUSE:
        yield fails(check, f"a server cannot listen on {where}: {error.strerror}", remedy)
    elif subject.metrics_served and subject.address_serving is not None:
        yield ok(check, f"a credit-server serves its metrics on {where}")
    else:
        # If no credit-server answers on the address of the calls, this one has other settings.
        user = (
            "another credit-server"
            if subject.metrics_served
            else "a program that serves no metrics of a credit-server"
        )
        if "metrics_port" in settings.model_fields_set:
            yield fails(check, f"{where} is in use by {user}: no server starts with it", remedy)
        else:
            yield warning(
                check,
                f"{where} is in use by {user}: a server takes another port, which Prometheus does"
                " not scrape",
                "choose a free port with --metrics-port, or stop that program",
            )


def check_workers(subject: Subject) -> Iterator[Finding]:
    """Check whether there is a CPU for each worker."""
    check, workers, cpus = "workers", subject.settings.workers, subject.cpus
    if workers > cpus:
        yield warning(
            check,
            f"{workers} workers share {cpus} CPUs",
            "set --workers auto: more workers than CPUs use more memory and serve no more calls",
        )
    else:
        yield ok(check, f"{counted(workers, 'worker')} for {counted(cpus, 'usable CPU')}")


def check_open_files(subject: Subject) -> Iterator[Finding]:
    """Check whether a server can open as many connections as its settings allow."""
    check, limit = "open files", subject.open_files_max
    connections_max = subject.settings.of_one_worker().connection.connections_max
    needed = connections_max + _FILES_BESIDES_CONNECTIONS
    if limit < needed:
        yield warning(
            check,
            f"a process may open {limit} files, and {connections_max} connections need about"
            f" {needed}",
            f"raise the limit (ulimit -n {needed}, or LimitNOFILE of the systemd unit), or lower"
            " CREDIT_CONNECTIONS_MAX",
        )
    else:
        yield ok(check, f"a process may open {limit} files; about {needed} are needed")


def check_audit_log(subject: Subject) -> Iterator[Finding]:
    """Check whether a server can append to the audit log. Create no file."""
    path = subject.settings.audit_log
    if path is None:
        return
    check = "audit log"
    fault = _append_fault(path)
    if fault:
        yield fails(
            check,
            f"{path} cannot be opened: {fault}; no server starts with it",
            "choose another file with --audit-log, or create its folder",
        )
    elif not path.exists():
        yield ok(check, f"{path} does not exist yet; the first start creates it")
    else:
        yield readable_by_others(path, check) or ok(check, f"{path} is writable")


def _append_fault(path: Path) -> str:
    """Return why a process cannot append to a file; empty if it can, or can create the file."""
    try:
        # Not blocking: it may be a pipe without a reader.
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK))
    except FileNotFoundError:
        # If the path is a symbolic link, the file is created in the folder of its target.
        folder = Path(os.path.realpath(path)).parent
        if not folder.is_dir():
            return f"there is no folder {folder}"
        if not os.access(folder, os.W_OK | os.X_OK):
            return f"no file can be created in {folder}"
    except OSError as error:
        return str(error.strerror)
    return ""


def check_data_directory(subject: Subject) -> Iterator[Finding]:
    """Check whether the embedded store's directory is writable and private."""
    directory = subject.data_directory
    if directory is None:
        return
    check, path, mode = "data directory", directory.path, directory.mode
    if not directory.writable:
        yield fails(check, f"{path} is not writable", "set CREDIT_DATA_DIR to another directory")
    elif mode is None:
        yield ok(check, f"{path} does not exist yet; the first start creates it")
    elif mode & 0o077:
        yield warning(
            check, f"other users can access {path} (mode {mode:04o})", f"run: chmod 700 {path}"
        )
    else:
        yield ok(check, f"only its owner can access {path}")


def check_disk(subject: Subject) -> Iterator[Finding]:
    """Check the free space on the disk of the embedded store."""
    if subject.data_directory is None:
        return
    check, free = "disk", subject.data_directory.free_bytes
    found = f"{free / 1e6:,.0f} MB are free on the disk of {subject.data_directory.path}"
    remedy = (
        "free some space, or move the data directory; mongod exits if the disk is full, and starts"
        f" again in a running server when {FREE_BYTES_MIN // 1_000_000} MB are free"
    )
    if free < _FREE_BYTES_FAILS:
        yield fails(check, found, remedy)
    elif free < _FREE_BYTES_WARNING:
        yield warning(check, found, remedy)
    else:
        yield ok(check, found)
