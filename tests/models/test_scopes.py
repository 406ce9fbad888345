"""Every call takes a scope, and a contract with one that takes none cannot be imported."""

import subprocess
import sys

from credit_models.reasons import method_reasons
from credit_models.scopes import METHOD_SCOPES, SCOPES

SERVICE = "/credit.v1.CreditService/"

# One call looks as if it had no such option.
SCOPE_FORGOTTEN = """
from credit_models import image
read = image.option
image.option = lambda carrier, name: None if carrier.name == "UseCredits" else read(carrier, name)
import credit_models.scopes
"""


def test_every_call_takes_the_scope_of_what_it_does() -> None:
    assert METHOD_SCOPES == {
        SERVICE + "AddCredits": "credits:issue",
        SERVICE + "UseCredits": "credits:spend",
        SERVICE + "GetUserCredits": "credits:read",
        SERVICE + "GetAppBalance": "credits:read",
        SERVICE + "ListUserPurchases": "credits:read",
        SERVICE + "ListUserTransactions": "credits:read",
    }
    assert METHOD_SCOPES.keys() == method_reasons().keys()


def test_all_scopes_are_named_as_tokens_carry_them() -> None:
    assert {"credits:issue", "credits:spend", "credits:read", "credits:admin"} == SCOPES


def test_a_contract_with_a_call_without_a_scope_cannot_be_imported() -> None:
    # In a process of its own: the contract is imported once.
    ended = subprocess.run(
        [sys.executable, "-c", SCOPE_FORGOTTEN], check=False, capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert "CreditService.UseCredits has no option credit.options.v1.scope" in ended.stderr
