"""What `credit-server doctor` looks at, and what it says about it.

Facts are gathered at the rim (`examination`, `store.inspection`); each check is a function from
facts to findings, so that every verdict can be tested without the fault it is about.
"""

from credit_server.doctor.examination import examine
from credit_server.doctor.finding import Finding, Verdict
from credit_server.doctor.machine import invalid_settings
from credit_server.doctor.report import as_json, as_text, exit_code

__all__ = [
    "Finding",
    "Verdict",
    "as_json",
    "as_text",
    "examine",
    "exit_code",
    "invalid_settings",
]
