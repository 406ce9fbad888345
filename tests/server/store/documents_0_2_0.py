"""The documents of release 0.2.0: their models, and examples as bytes.

The models are copies, because the code has changed since that release.
"""

from datetime import datetime
from typing import Annotated, Literal

from bson.objectid import ObjectId
from credit_models.ledger import Account, Kind, Transaction
from pydantic import BaseModel, ConfigDict, Field

_Number = Annotated[int, Field(ge=1, le=2**32 - 1)]
_Credits = Annotated[int, Field(ge=0, le=2**32 - 1)]
_Sequence = Annotated[int, Field(ge=1)]


class _Document(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True
    )


class _BalanceDocument(_Document):
    app_id: _Number
    balance: _Credits


class OldAccountDocument(_Document):
    id: ObjectId | None = Field(default=None, alias="_id")
    user_id: _Number
    balances: list[_BalanceDocument]
    created_at: datetime
    updated_at: datetime
    created_by: _Number
    updated_by: _Number
    revision: _Sequence

    def to_account(self) -> Account:
        return Account(
            id=str(self.id),
            user_id=self.user_id,
            balances={entry.app_id: entry.balance for entry in self.balances},
            revision=self.revision,
            created_at=self.created_at,
            updated_at=self.updated_at,
            created_by=self.created_by,
            updated_by=self.updated_by,
        )


class _FingerprintDocument(_Document):
    report_id: Annotated[str, Field(min_length=1, max_length=128)]
    report_name: Annotated[str, Field(min_length=1, max_length=256)]


class OldTransactionDocument(_Document):
    id: ObjectId = Field(alias="_id")
    user_id: _Number
    app_id: _Number
    credits: _Number
    created_at: datetime
    created_by: _Number
    type: Literal["add", "use"]
    balance_after: _Credits
    sequence: _Sequence
    purchase_id: ObjectId | None = None
    idempotency_key: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    fingerprint: _FingerprintDocument | None = None

    def to_transaction(self) -> Transaction:
        return Transaction(
            id=str(self.id),
            user_id=self.user_id,
            app_id=self.app_id,
            kind=Kind(self.type),
            credits=self.credits,
            balance_after=self.balance_after,
            sequence=self.sequence,
            created_at=self.created_at,
            created_by=self.created_by,
            key=self.idempotency_key or "",
            purchase_id="" if self.purchase_id is None else str(self.purchase_id),
            report_id="" if self.fingerprint is None else self.fingerprint.report_id,
            report_name="" if self.fingerprint is None else self.fingerprint.report_name,
        )


# An account with the balances 4294967295 and 5, an ADD without a key, a USE with one, and its
# purchase, as release 0.2.0 encodes them: `test_documents` has their values.
ACCOUNT = (
    "d900000012757365725f69640007000000000000000462616c616e6365730057000000033000260000001261"
    "70705f69640001000000000000001262616c616e636500ffffffff000000000003310026000000126170705f"
    "69640002000000000000001262616c616e6365000500000000000000000009637265617465645f6174002e8f"
    "a97c9b01000009757064617465645f6174001693a97c9b01000012637265617465645f627900030000000000"
    "000012757064617465645f6279000400000000000000127265766973696f6e00090000000000000000"
)
ADDED = (
    "a7000000075f69640000000000000000000000000112757365725f6964000700000000000000126170705f69"
    "640001000000000000001263726564697473000a0000000000000009637265617465645f6174002e8fa97c9b"
    "01000012637265617465645f627900030000000000000002747970650004000000616464001262616c616e63"
    "655f6166746572000a000000000000001273657175656e636500010000000000000000"
)
USED = (
    "21010000075f69640000000000000000000000000112757365725f6964000700000000000000126170705f69"
    "640001000000000000001263726564697473000a0000000000000009637265617465645f6174002e8fa97c9b"
    "01000012637265617465645f627900030000000000000002747970650004000000757365001262616c616e63"
    "655f61667465720000000000000000001273657175656e63650002000000000000000770757263686173655f"
    "696400000000000000000000000002026964656d706f74656e63795f6b657900040000006b2d31000366696e"
    "6765727072696e74003b000000027265706f72745f69640004000000722d3100027265706f72745f6e616d65"
    "00120000004a61687265736265726963687420e29883000000"
)
BOUGHT = (
    "d4000000075f69640000000000000000000000000212757365725f6964000700000000000000126170705f69"
    "64000100000000000000027265706f72745f69640004000000722d3100027265706f72745f6e616d65001200"
    "00004a61687265736265726963687420e29883001263726564697473000a0000000000000009637265617465"
    "645f6174002e8fa97c9b01000012637265617465645f6279000300000000000000077472616e73616374696f"
    "6e5f6964000000000000000000000000011273657175656e636500020000000000000000"
)
