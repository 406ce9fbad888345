"""A variable that nobody reads is a warning that names it."""

from credit_server.doctor.finding import Verdict
from credit_server.doctor.variables import check_variables


def test_variables_that_are_settings_are_ok() -> None:
    assert check_variables([]).verdict is Verdict.OK


def test_a_variable_that_nobody_reads_is_a_warning() -> None:
    finding = check_variables(["CREDIT_PROT (CREDIT_PORT?)", "CREDIT_X"])
    assert finding.verdict is Verdict.WARNING
    assert finding.found == "no setting has the name CREDIT_PROT (CREDIT_PORT?), CREDIT_X"
