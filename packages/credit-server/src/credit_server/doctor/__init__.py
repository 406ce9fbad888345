"""Check what a server depends on, for `credit-server doctor`.

`subject` reads the state of the machine, the store and the ledger. Each check is a function from
that state to findings. `examination` lists all checks, and `report` prints the findings.
"""

from credit_server.doctor.examination import examine, invalid_settings
from credit_server.doctor.report import Finding, Verdict, as_json, as_text, exit_code

__all__ = [
    "Finding",
    "Verdict",
    "as_json",
    "as_text",
    "examine",
    "exit_code",
    "invalid_settings",
]
