"""The client for code that is not asynchronous: threads, Flask, Django, Celery, notebooks.

with CreditClient("localhost:50051") as credits:
    receipt = credits.add(user_id=7, app_id=1, credits=120, created_by=1)

Errors, messages and settings are those of `credit_client`. Calls run on an event loop in a thread
of its own, which all clients of a process share.
"""

from credit_client.sync.client import (
    Batch,
    CreditClient,
    HoldHandle,
    PurchaseQuery,
    TransactionQuery,
)

__all__ = ["Batch", "CreditClient", "HoldHandle", "PurchaseQuery", "TransactionQuery"]
