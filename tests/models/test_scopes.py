"""Every method requires a scope, and a contract with a method without one cannot be imported."""

import subprocess
import sys

from credit_models.reasons import method_reasons
from credit_models.scopes import METHOD_SCOPES, SCOPED_BY_OPERATION, SCOPES

SERVICE = "/credit.v1.CreditService/"
LEDGER = "/credit.v1.LedgerService/"
HISTORY = "/credit.v1.HistoryService/"
ALERT = "/credit.v1.AlertService/"
DIRECTORY = "/credit.v1.DirectoryService/"

# Hides the option of one method.
SCOPE_FORGOTTEN = """
from credit_models import image
read = image.option
image.option = lambda carrier, name: None if carrier.name == "UseCredits" else read(carrier, name)
import credit_models.scopes
"""


def test_every_method_requires_the_scope_of_its_operation() -> None:
    assert METHOD_SCOPES == {
        SERVICE + "AddCredits": "credits:issue",
        SERVICE + "UseCredits": "credits:spend",
        SERVICE + "GetUserCredits": "credits:read",
        SERVICE + "GetAppBalance": "credits:read",
        SERVICE + "ListUserPurchases": "credits:read",
        SERVICE + "ListUserTransactions": "credits:read",
        HISTORY + "QueryTransactions": "credits:read",
        HISTORY + "QueryPurchases": "credits:read",
        HISTORY + "GetBalanceAt": "credits:read",
        HISTORY + "Summarize": "credits:read",
        HISTORY + "ListCheckpoints": "credits:read",
        HISTORY + "GetCheckpoint": "credits:read",
        HISTORY + "Watch": "credits:read",
        HISTORY + "GetTransaction": "credits:read",
        DIRECTORY + "ResolveUser": "credits:issue",
        DIRECTORY + "FindUser": "credits:read",
        LEDGER + "GrantCredits": "credits:issue",
        LEDGER + "VoidGrant": "credits:issue",
        LEDGER + "PlaceHold": "credits:spend",
        LEDGER + "CaptureHold": "credits:spend",
        LEDGER + "ReleaseHold": "credits:spend",
        LEDGER + "ExtendHold": "credits:spend",
        LEDGER + "ReverseTransaction": "credits:refund",
        LEDGER + "TransferCredits": "credits:transfer",
        LEDGER + "AdjustBalance": "credits:admin",
        LEDGER + "SetSpendingCap": "credits:admin",
        LEDGER + "SetAppPolicy": "credits:admin",
        LEDGER + "GetAppPolicy": "credits:read",
        LEDGER + "GetSpendingCap": "credits:read",
        LEDGER + "ListGrants": "credits:read",
        LEDGER + "ListHolds": "credits:read",
        LEDGER + "GetForecast": "credits:read",
        ALERT + "SetAlert": "credits:admin",
        ALERT + "RemoveAlert": "credits:admin",
        ALERT + "ListAlerts": "credits:read",
        ALERT + "ListAlertEvents": "credits:read",
        ALERT + "SetWebhook": "credits:admin",
        ALERT + "ListWebhooks": "credits:admin",
        ALERT + "RemoveWebhook": "credits:admin",
        ALERT + "ListDeadLetters": "credits:admin",
        ALERT + "ResendDeadLetters": "credits:admin",
    }
    assert {LEDGER + "BatchWrite", LEDGER + "Write"} == SCOPED_BY_OPERATION
    assert METHOD_SCOPES.keys() | SCOPED_BY_OPERATION == method_reasons().keys()


def test_scopes_have_the_names_that_tokens_use() -> None:
    assert {
        "credits:issue",
        "credits:spend",
        "credits:read",
        "credits:refund",
        "credits:transfer",
        "credits:admin",
    } == SCOPES


def test_a_contract_with_a_method_without_a_scope_cannot_be_imported() -> None:
    # A process of its own, because this process has imported the contract.
    ended = subprocess.run(
        [sys.executable, "-c", SCOPE_FORGOTTEN], check=False, capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert "CreditService.UseCredits has no option credit.options.v1.scope; add one" in ended.stderr
