"""The identities file: read by the server's own parser, and changeable by its owner alone."""

from pathlib import Path

from credit_server.access import FileUnusable
from credit_server.access.certificates import identity_parser
from credit_server.access.watched_file import WatchedFile
from credit_server.doctor.finding import Finding, fails, ok
from credit_server.doctor.permissions import changeable_by_others

_CHECK = "identities"


def check_identities(path: Path) -> Finding:
    """Judge the file of what the owners of client certificates may do."""
    try:
        owners = WatchedFile(path, identity_parser(path)).current()
    except FileUnusable as error:
        return fails(_CHECK, str(error), "correct it: no server starts with it")
    return changeable_by_others(path, _CHECK) or ok(
        _CHECK, f"{path} lists {len(owners)} owners of certificates"
    )
