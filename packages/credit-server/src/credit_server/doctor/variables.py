"""Variables: is there one that nobody reads, such as a setting with a typing error?"""

from collections.abc import Sequence

from credit_server.doctor.finding import Finding, ok, warning


def check_variables(unknown: Sequence[str]) -> Finding:
    """Judge the environment.

    Args:
        unknown: The variables that set nothing, each as a phrase.
    """
    check = "variables"
    if unknown:
        return warning(
            check,
            f"no setting has the name {', '.join(unknown)}",
            "mend or unset them; credit-server serve --help lists all settings",
        )
    return ok(check, "each that begins with CREDIT_ is a setting")
