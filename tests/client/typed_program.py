"""A program of an app: `make lint` checks it with mypy, and a test with pyright."""

from datetime import timedelta

from credit_client import BatchOperation, CreditTransaction, Hold, ImportReport, ImportRow, Receipt
from credit_client.sync import Batch, CreditClient, HoldHandle
from credit_client.sync.testing import FakeCreditService, fake_credits


def work(client: CreditClient) -> int:
    receipt: Receipt = client.add(user_id=7, app_id=1, credits=120, created_by=1)
    with client.hold(
        user_id=7, app_id=1, credits=20, created_by=1, expires_after=timedelta(hours=1), note="n"
    ) as hold:
        handle: HoldHandle = hold
        captured: Receipt = handle.capture(5, report_id="r", report_name="Report")
    with client.batch(atomic=True) as batch:
        collected: Batch = batch
        operation: BatchOperation = collected.add(user_id=7, app_id=1, credits=1, created_by=1)
    entries: list[CreditTransaction] = list(client.transactions(user_id=7))
    holds: list[Hold] = list(client.holds(user_id=7, app_id=1))
    rows = (ImportRow(user_id=number, app_id=1, credits=1, created_by=1) for number in range(1, 9))
    report: ImportReport = client.import_(rows, name="spring")
    balances = receipt.balance + captured.balance + operation.receipt.balance
    return balances + report.rows + len([*entries, *holds])


def main() -> None:
    service = FakeCreditService()
    with fake_credits(service) as client:
        assert work(client) > 0
