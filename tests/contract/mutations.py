"""Changes of the contract, each with the rule that forbids it, or None where it is allowed."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.contract.conftest import CREDIT, REASONS, Copy

RANGE = """ [(credit.options.v1.constraint) = {
    minimum: 1
    maximum: 4294967295
  }]"""
BALANCE = "  uint32 balance = 2;\n"
ADD = "  rpc AddCredits(CreditRequest) returns (Empty) {"
NEW_CALL = """  // Takes credits back.
  rpc RevokeCredits(CreditRequest) returns (Empty) {
    option idempotency_level = IDEMPOTENCY_UNKNOWN;
    option (credit.options.v1.scope) = SCOPE_CREDITS_ISSUE;
    option (errors) = ERROR_REASON_%s;
  }

"""
ADD_COMMENT = "  // Adds credits to a user's balance in an app.\n"
NEW_REASON = """
  // ABORTED. The account is frozen.
  ERROR_REASON_FROZEN = 70 [(credit.options.v1.error) = {status: STATUS_ABORTED}];
}
"""
KEY_RULE = """ [(credit.options.v1.constraint) = {
    length_max: 128
    text: TEXT_IDENTIFIER
  }]"""
KEY_OF_REQUEST = f"""Empty: every call is a new one.
  string idempotency_key = 5{KEY_RULE};"""
KEY_OF_ENTRY = "  string idempotency_key = 11 [(credit.options.v1.constraint) = {length_max: 128}];"
WHOM = "  // The user who receives the credits.\n  uint32 user_id = 1" + RANGE
REPORT = (
    "  // The app whose credits pay for the report.\n  uint32 app_id = 2"
    + RANGE
    + """;

  // The report, as the app names it.
  string report_id = 3 [(credit.options.v1.constraint) = {
    length_min: 1
    length_max: 128
    required: true
    text: TEXT_IDENTIFIER
  }];"""
)
NAME = """    length_max: 256
    required: true
    text: TEXT_NAME
"""
LAST_REASON = """_DATA_UNREADABLE = 66 [(credit.options.v1.error) = {status: STATUS_DATA_LOSS}];
}
"""
KEY_REUSED = """    status: STATUS_ALREADY_EXISTS
    metadata: ["fields"]
"""
USE = (
    "  // Credits were spent on a purchase (-): `UseCredits`, `CaptureHold`.\n"
    "  TRANSACTION_TYPE_USE = 2;\n"
)
OVERLOADED = """    status: STATUS_UNAVAILABLE
    details: ["RetryInfo"]
    retryable: true
  }];

  // UNAVAILABLE. The server cannot"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutation:
    """One change of the contract.

    Attributes:
        name: What changes; the id of the test.
        apply: Applies the change to a copy of the contract.
        rule: The rule that forbids the change; None where it is allowed.
    """

    name: str
    apply: Callable[[Copy], None]
    rule: str | None


def _edit(name: str, rule: str | None, old: str, new: str, file: str = CREDIT) -> Mutation:
    return Mutation(name=name, rule=rule, apply=lambda copy: copy.edit(old, new, file=file))


def _remove_ledger(copy: Copy) -> None:
    """Remove the files that are not part of a release yet."""
    for path in copy.unreleased():
        path.unlink()


def _remove_service(copy: Copy) -> None:
    text = (copy.contracts / CREDIT).read_text()
    begin, end = text.index("// Adds, spends and shows"), text.index("// One report bought")
    (copy.contracts / CREDIT).write_text(text[:begin] + text[end:])


def _remove_receipt(copy: Copy) -> None:
    _remove_ledger(copy)
    text = (copy.contracts / CREDIT).read_text()
    (copy.contracts / CREDIT).write_text(text[: text.index("// What a successful write did.")])


def _remove_call(copy: Copy) -> None:
    text = (copy.contracts / CREDIT).read_text()
    begin = text.index("  // Streams a user's purchases")
    end = text.index("  // Streams a user's transactions")
    (copy.contracts / CREDIT).write_text(text[:begin] + text[end:])


def _move_file(copy: Copy) -> None:
    _remove_ledger(copy)
    (copy.contracts / CREDIT).rename(copy.contracts / "credit/v1/accounts.proto")


def _rename_package(copy: Copy) -> None:
    _remove_ledger(copy)
    for file in (CREDIT, REASONS):
        copy.edit("package credit.v1;", "package credit.v9;", file=file)


def add_second_version(copy: Copy) -> None:
    """Add credit.v2, which is incompatible with credit.v1, beside it."""
    (copy.contracts / "credit/v2").mkdir()
    for file in (CREDIT, REASONS):
        text = (copy.contracts / file).read_text()
        text = text.replace("package credit.v1;", "package credit.v2;")
        # The extensions of each options message share their number space with those of v1.
        text = text.replace('"credit/v1/', '"credit/v2/').replace(
            "access_errors = 50003", "access_errors = 50004"
        )
        text = text.replace(" errors = 50002", " errors = 50003")
        text = text.replace("uint32 balance = 2;", "uint64 balance = 2;")
        (copy.contracts / file.replace("v1", "v2")).write_text(text)


def _remove_reason(copy: Copy) -> None:
    copy.edit("    option (errors) = ERROR_REASON_APP_TOTAL_OVERFLOW;\n", "")
    text = (copy.contracts / REASONS).read_text()
    begin, end = text.index("  // OUT_OF_RANGE. The sum"), text.index("  // UNAVAILABLE. More")
    (copy.contracts / REASONS).write_text(text[:begin] + text[end:])


def _add_new_reason_to(anchor: str, call: str, reason: str = NEW_REASON) -> Callable[[Copy], None]:
    def apply(copy: Copy) -> None:
        copy.edit(LAST_REASON, LAST_REASON.removesuffix("}\n") + reason, file=REASONS)
        copy.edit(anchor, call)

    return apply


BREAKING = [
    _edit("a field is removed", "FIELD_NO_DELETE", BALANCE, ""),
    _edit(
        "a field is removed and its number and name are reserved",
        "FIELD_NO_DELETE",
        BALANCE,
        '  reserved 2;\n  reserved "balance";\n',
    ),
    _edit("a field is renamed", "FIELD_SAME_NAME", BALANCE, "  uint32 credits = 2;\n"),
    _edit("a field is renumbered", "FIELD_NO_DELETE", BALANCE, "  uint32 balance = 60;\n"),
    _edit("a field is retyped", "FIELD_SAME_TYPE", BALANCE, "  uint64 balance = 2;\n"),
    _edit(
        "a field becomes optional",
        "FIELD_SAME_CARDINALITY",
        BALANCE,
        "  optional uint32 balance = 2;\n",
    ),
    _edit(
        "a field becomes repeated",
        "FIELD_SAME_CARDINALITY",
        BALANCE,
        "  repeated uint32 balance = 2;\n",
    ),
    _edit(
        "a field moves into a oneof",
        "FIELD_SAME_ONEOF",
        BALANCE,
        "  // Either.\n  oneof amount {\n    // This.\n    uint32 balance = 2;\n  }\n",
    ),
    _edit(
        "a field loses its explicit presence",
        "FIELD_SAME_CARDINALITY",
        "optional uint32 user_id = 2",
        "uint32 user_id = 2",
    ),
    _edit(
        "an enum becomes a number",
        "FIELD_SAME_TYPE",
        "TransactionType type = 7 [(credit.options.v1.constraint) = {required: true}]",
        "int32 type = 7 [(credit.options.v1.constraint) = {required: true}]",
    ),
    _edit(
        "a number is reused for something else",
        "FIELD_SAME_NAME",
        BALANCE,
        "  string currency = 2;\n",
    ),
    _edit(
        "a name is reused for something else",
        "FIELD_NO_DELETE",
        BALANCE,
        "  string balance = 60;\n",
    ),
    _edit(
        "an enum value is removed",
        "ENUM_VALUE_NO_DELETE",
        USE,
        "",
    ),
    _edit(
        "an enum value is renamed",
        "ENUM_VALUE_SAME_NAME",
        "TRANSACTION_TYPE_USE = 2",
        "TRANSACTION_TYPE_SPEND = 2",
    ),
    _edit(
        "an enum value is renumbered",
        "ENUM_VALUE_NO_DELETE",
        "TRANSACTION_TYPE_USE = 2",
        "TRANSACTION_TYPE_USE = 70",
    ),
    Mutation(name="a reason is removed", rule="ENUM_VALUE_NO_DELETE", apply=_remove_reason),
    Mutation(name="a call is removed", rule="RPC_NO_DELETE", apply=_remove_call),
    _edit("a call is renamed", "RPC_NO_DELETE", "rpc AddCredits(", "rpc GrantCredits("),
    _edit(
        "a call has another request type",
        "RPC_SAME_REQUEST_TYPE",
        "AddCredits(CreditRequest)",
        "AddCredits(PurchaseRequest)",
    ),
    _edit(
        "a call has another response type",
        "RPC_SAME_RESPONSE_TYPE",
        "AddCredits(CreditRequest) returns (Empty)",
        "AddCredits(CreditRequest) returns (Receipt)",
    ),
    _edit(
        "a stream of responses becomes one response",
        "RPC_SAME_SERVER_STREAMING",
        "returns (stream Purchase)",
        "returns (Purchase)",
    ),
    _edit(
        "one request becomes a stream",
        "RPC_SAME_CLIENT_STREAMING",
        "AddCredits(CreditRequest)",
        "AddCredits(stream CreditRequest)",
    ),
    _edit(
        "a call becomes less idempotent",
        "RPC_SAME_IDEMPOTENCY_LEVEL",
        "returns (UserCredits) {\n    option idempotency_level = NO_SIDE_EFFECTS",
        "returns (UserCredits) {\n    option idempotency_level = IDEMPOTENCY_UNKNOWN",
    ),
    Mutation(name="the service is removed", rule="SERVICE_NO_DELETE", apply=_remove_service),
    _edit("the service is renamed", "SERVICE_NO_DELETE", "CreditService {", "AccountService {"),
    Mutation(name="the package is renamed", rule="FILE_SAME_PACKAGE", apply=_rename_package),
    Mutation(name="a file is moved", rule="FILE_NO_DELETE", apply=_move_file),
    Mutation(name="a message is removed", rule="MESSAGE_NO_DELETE", apply=_remove_receipt),
    _edit(
        "a request's minimum is raised",
        "REQUEST_CONSTRAINT_TIGHTENED",
        WHOM,
        WHOM.replace("minimum: 1", "minimum: 10"),
    ),
    _edit(
        "a request's maximum is lowered",
        "REQUEST_CONSTRAINT_TIGHTENED",
        WHOM,
        WHOM.replace("4294967295", "4294967294"),
    ),
    _edit(
        "a request's minimum length is raised",
        "REQUEST_CONSTRAINT_TIGHTENED",
        REPORT,
        REPORT.replace("length_min: 1", "length_min: 2"),
    ),
    _edit(
        "a request's maximum length is lowered",
        "REQUEST_CONSTRAINT_TIGHTENED",
        KEY_OF_REQUEST,
        KEY_OF_REQUEST.replace("128", "127"),
    ),
    _edit(
        "a request's field must match a pattern",
        "REQUEST_CONSTRAINT_TIGHTENED",
        REPORT,
        REPORT.replace("required: true", 'required: true\n    pattern: "[a-z]+"'),
    ),
    _edit(
        "a request's optional field becomes required",
        "REQUEST_CONSTRAINT_TIGHTENED",
        KEY_OF_REQUEST,
        KEY_OF_REQUEST.replace("length_max: 128", "length_max: 128\n    required: true"),
    ),
    _edit(
        "a request's name accepts fewer characters",
        "REQUEST_CONSTRAINT_TIGHTENED",
        NAME,
        NAME.replace("TEXT_NAME", "TEXT_IDENTIFIER"),
    ),
    _edit(
        "a new field of a request must be set",
        "REQUEST_FIELD_ADDED_MUST_BE_SET",
        KEY_OF_REQUEST,
        KEY_OF_REQUEST + "\n  // Why.\n  uint32 cause = 60" + RANGE + ";",
    ),
    _edit(
        "a new optional field of a request is required",
        "REQUEST_FIELD_ADDED_MUST_BE_SET",
        KEY_OF_REQUEST,
        KEY_OF_REQUEST
        + "\n  // Why.\n  optional uint32 cause = 60"
        + " [(credit.options.v1.constraint) = {required: true}];",
    ),
    _edit(
        "a response's field gets a constraint",
        "ANSWER_CONSTRAINT_TIGHTENED",
        BALANCE,
        "  uint32 balance = 2 [(credit.options.v1.constraint) = {maximum: 1000}];\n",
    ),
    _edit(
        "a response's string may be longer",
        "ANSWER_CONSTRAINT_LOOSENED",
        KEY_OF_ENTRY,
        KEY_OF_ENTRY.replace("128", "129"),
    ),
    _edit(
        "a response's string must be shorter",
        "ANSWER_CONSTRAINT_TIGHTENED",
        KEY_OF_ENTRY,
        KEY_OF_ENTRY.replace("128", "127"),
    ),
    _edit(
        "a response's string accepts fewer characters",
        "ANSWER_CONSTRAINT_TIGHTENED",
        KEY_OF_ENTRY,
        KEY_OF_ENTRY.replace("length_max: 128", "length_max: 128, text: TEXT_IDENTIFIER"),
    ),
    _edit(
        "a response may omit a required field",
        "ANSWER_CONSTRAINT_LOOSENED",
        "google.protobuf.Timestamp created_at = 7 [(credit.options.v1.constraint) = "
        "{required: true}];",
        "google.protobuf.Timestamp created_at = 7;",
    ),
    _edit(
        "the receipt may omit a required field",
        "ANSWER_CONSTRAINT_LOOSENED",
        "uint64 sequence = 4 [(credit.options.v1.constraint) = {minimum: 1}];",
        "uint64 sequence = 4;",
    ),
    _edit(
        "a documented error is removed from a call",
        "ERROR_NO_DELETE",
        "    option (errors) = ERROR_REASON_BALANCE_OVERFLOW;\n",
        "",
    ),
    Mutation(
        name="an error that is unknown to installed SDKs is added to a call",
        rule="ERROR_ADDED_UNKNOWN",
        apply=_add_new_reason_to(
            "    option (errors) = ERROR_REASON_BALANCE_OVERFLOW;\n",
            "    option (errors) = ERROR_REASON_BALANCE_OVERFLOW;\n"
            "    option (errors) = ERROR_REASON_FROZEN;\n",
        ),
    ),
    _edit(
        "the precedence of errors is changed",
        "ERROR_SAME_PRECEDENCE",
        "    option (errors) = ERROR_REASON_BALANCE_OVERFLOW;\n"
        "    option (errors) = ERROR_REASON_TOO_MANY_APPS;\n",
        "    option (errors) = ERROR_REASON_TOO_MANY_APPS;\n"
        "    option (errors) = ERROR_REASON_BALANCE_OVERFLOW;\n",
    ),
    _edit(
        "a call loses its scope",
        "CALL_WITHOUT_SCOPE",
        "    option (credit.options.v1.scope) = SCOPE_CREDITS_SPEND;\n",
        "",
    ),
    _edit(
        "a call changes its scope",
        "CALL_SAME_SCOPE",
        "= SCOPE_CREDITS_SPEND;",
        "= SCOPE_CREDITS_ISSUE;",
    ),
    _edit(
        "a call without a scope is added",
        "CALL_WITHOUT_SCOPE",
        ADD_COMMENT,
        (NEW_CALL % "INSUFFICIENT_CREDITS").replace(
            "    option (credit.options.v1.scope) = SCOPE_CREDITS_ISSUE;\n", ""
        )
        + ADD_COMMENT,
    ),
    _edit(
        "a reason changes its status",
        "REASON_SAME_STATUS",
        KEY_REUSED,
        KEY_REUSED.replace("ALREADY_EXISTS", "ABORTED"),
        REASONS,
    ),
    _edit(
        "a reason loses its option",
        "REASON_SAME_STATUS",
        f""" [(credit.options.v1.error) = {{
{KEY_REUSED}  }}];""",
        ";",
        REASONS,
    ),
    _edit(
        "a reason loses a metadata key",
        "REASON_METADATA_NO_DELETE",
        '      "available",\n',
        "",
        REASONS,
    ),
    _edit(
        "a reason loses a detail",
        "REASON_DETAILS_NO_DELETE",
        """INVALID_FIELD = 1 [(credit.options.v1.error) = {
    status: STATUS_INVALID_ARGUMENT
    details: ["BadRequest"]
""",
        """INVALID_FIELD = 1 [(credit.options.v1.error) = {
    status: STATUS_INVALID_ARGUMENT
""",
        REASONS,
    ),
    _edit(
        "a reason is no longer retryable",
        "REASON_SAME_RETRYABLE",
        OVERLOADED,
        OVERLOADED.replace("    retryable: true\n", ""),
        REASONS,
    ),
]

ALLOWED = [
    _edit(
        "a comment is changed",
        None,
        "// The number of credits that can be spent.",
        "// How many credits.",
    ),
    _edit("a field is deprecated", None, BALANCE, "  uint32 balance = 2 [deprecated = true];\n"),
    _edit(
        "a field is added to a response",
        None,
        BALANCE,
        "  uint32 balance = 2;\n\n  // In words.\n  string words = 60;\n",
    ),
    _edit(
        "a constrained field is added to a response",
        None,
        BALANCE,
        "  uint32 balance = 2;\n\n  // Id.\n  uint32 owner = 60" + RANGE + ";\n",
    ),
    _edit(
        "a field that may be omitted is added to a request",
        None,
        KEY_OF_REQUEST,
        KEY_OF_REQUEST
        + "\n  // Why.\n  string cause = 60 [(credit.options.v1.constraint) = {length_max: 9}];",
    ),
    _edit(
        "an optional field with a range is added to a request",
        None,
        KEY_OF_REQUEST,
        KEY_OF_REQUEST + "\n  // Why.\n  optional uint32 cause = 60" + RANGE + ";",
    ),
    _edit("a call is added", None, ADD_COMMENT, NEW_CALL % "INSUFFICIENT_CREDITS" + ADD_COMMENT),
    Mutation(
        name="a call with a new reason is added",
        rule=None,
        apply=_add_new_reason_to(ADD_COMMENT, NEW_CALL % "FROZEN" + ADD_COMMENT),
    ),
    Mutation(
        name="a new reason that is a fault of the server is added to a call",
        rule=None,
        apply=_add_new_reason_to(
            "    option (errors) = ERROR_REASON_BALANCE_OVERFLOW;\n",
            "    option (errors) = ERROR_REASON_FROZEN;\n"
            "    option (errors) = ERROR_REASON_BALANCE_OVERFLOW;\n",
            NEW_REASON.replace("STATUS_ABORTED", "STATUS_DATA_LOSS").replace(
                "ABORTED", "DATA_LOSS"
            ),
        ),
    ),
    Mutation(
        name="a new reason that is checked on demand is added to a call",
        rule=None,
        apply=_add_new_reason_to(
            "    option (errors) = ERROR_REASON_BALANCE_OVERFLOW;\n",
            "    option (errors) = ERROR_REASON_FROZEN;\n"
            "    option (errors) = ERROR_REASON_BALANCE_OVERFLOW;\n",
            NEW_REASON.replace("STATUS_ABORTED", "STATUS_ABORTED, opt_in: true"),
        ),
    ),
    _edit(
        "an enum value is added",
        None,
        "  TRANSACTION_TYPE_USE = 2;\n",
        "  TRANSACTION_TYPE_USE = 2;\n  // Lent.\n  TRANSACTION_TYPE_LOAN = 70;\n",
    ),
    _edit(
        "a message is added",
        None,
        "// The answer to a successful write",
        "// A new one.\nmessage Refund {\n  // Id.\n  string id = 1;\n}\n\n"
        "// The answer to a successful write",
    ),
    _edit(
        "an error that is known to installed SDKs is added to a call",
        None,
        "    option (errors) = ERROR_REASON_APP_TOTAL_OVERFLOW;\n",
        "    option (errors) = ERROR_REASON_APP_TOTAL_OVERFLOW;\n"
        "    option (errors) = ERROR_REASON_INSUFFICIENT_CREDITS;\n",
    ),
    _edit(
        "a reason gets one more metadata key",
        None,
        'metadata: ["total"]',
        'metadata: [\n      "total",\n      "app_id"\n    ]',
        REASONS,
    ),
    _edit(
        "a request's string may be longer",
        None,
        KEY_OF_REQUEST,
        KEY_OF_REQUEST.replace("128", "256"),
    ),
    _edit(
        "a request's id accepts more characters",
        None,
        REPORT,
        REPORT.replace("TEXT_IDENTIFIER", "TEXT_NAME"),
    ),
    _edit(
        "a request's name accepts any characters",
        None,
        NAME,
        NAME.replace("    text: TEXT_NAME\n", ""),
    ),
    _edit("a request's number may be smaller", None, WHOM, WHOM.replace("minimum: 1\n", "")),
    _edit(
        "a request's constraint is dropped",
        None,
        KEY_OF_REQUEST,
        KEY_OF_REQUEST.replace(KEY_RULE, ""),
    ),
    _edit(
        "a constraint repeats the range of its type",
        None,
        BALANCE,
        "  uint32 balance = 2 [(credit.options.v1.constraint) = {maximum: 4294967295}];\n",
    ),
    Mutation(name="a second version is added", rule=None, apply=add_second_version),
]
