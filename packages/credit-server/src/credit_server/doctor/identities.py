"""The file of identities: can it be read, and by nobody else be changed?"""

import json
import tomllib
from pathlib import Path

from credit_server.doctor.finding import Finding, fails, ok
from credit_server.doctor.permissions import changeable_by_others

_CHECK = "identities"


def check_identities(path: Path) -> Finding:
    """Judge the file that says what the holders of certificates may do.

    What it says is checked by the server, which does not start with what it does not understand.
    """
    try:
        content = path.read_text(encoding="utf-8")
        if path.suffix == ".toml":
            tomllib.loads(content)
        else:
            json.loads(content)
    except OSError as error:
        return fails(_CHECK, f"{path} cannot be read: {error.strerror}", "see its permissions")
    except ValueError as error:
        return fails(_CHECK, f"{path} is neither JSON nor TOML: {error}", "mend it")
    return changeable_by_others(path, _CHECK) or ok(_CHECK, f"{path} can be read")
