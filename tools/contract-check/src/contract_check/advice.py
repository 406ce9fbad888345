"""For each rule, what to do instead of the change that it forbids."""

_REMOVED_FIELD = (
    "Keep the field, mark it [deprecated = true], and name its replacement in the comment."
)
_RENAMED = "Put the old name back. For a better name add a new element and deprecate the old one."
_RETYPED = (
    "Put the field back as it was and add a new field, with a new number and name, of the new "
    "type; deprecate the old one."
)
_REMOVED_VALUE = "Keep the value and mark it [deprecated = true]; servers may stop sending it."
_REMOVED_ELEMENT = (
    "Keep it and mark it deprecated. To remove it for good, make "
    "credit.v2 beside credit.v1, as contracts/README.md shows."
)
_CHANGED_CALL = (
    "Put the call back as it was and add a new call with the request, response and streaming "
    "that you want; deprecate the old one."
)
_RESERVED = "Put the `reserved` statement back: what it reserves can never be used again."
_REUSED = (
    "Take a number and a name that were never used, and reserve the old ones: "
    '`reserved 4; reserved "old_name";`.'
)
_CONSTRAINT = (
    "Put the constraint back. If you need a narrower rule, add a new field or call with "
    "it, and deprecate the old one."
)
_REASON = (
    "Put the option back and add a new reason with the status and details that you want; "
    "document it for new calls."
)

# For buf's own rules, those of its category FILE.
_BUF_RULES = {
    "ENUM_NO_DELETE": _REMOVED_ELEMENT,
    "ENUM_VALUE_NO_DELETE": _REMOVED_VALUE,
    "ENUM_VALUE_SAME_NAME": _RENAMED,
    "EXTENSION_NO_DELETE": _REMOVED_ELEMENT,
    "FIELD_NO_DELETE": _REMOVED_FIELD,
    "FIELD_SAME_CARDINALITY": _RETYPED,
    "FIELD_SAME_JSON_NAME": _RENAMED,
    "FIELD_SAME_NAME": _RENAMED,
    "FIELD_SAME_ONEOF": _RETYPED,
    "FIELD_SAME_TYPE": _RETYPED,
    "FILE_NO_DELETE": _REMOVED_ELEMENT,
    "FILE_SAME_PACKAGE": (
        "Put the package back. A new package is a new contract: it goes into files of its own, "
        "beside the old ones, as contracts/README.md shows for credit.v2."
    ),
    "MESSAGE_NO_DELETE": _REMOVED_ELEMENT,
    "ONEOF_NO_DELETE": _RETYPED,
    "RESERVED_ENUM_NO_DELETE": _RESERVED,
    "RESERVED_MESSAGE_NO_DELETE": _RESERVED,
    "RPC_NO_DELETE": _REMOVED_ELEMENT,
    "RPC_SAME_CLIENT_STREAMING": _CHANGED_CALL,
    "RPC_SAME_IDEMPOTENCY_LEVEL": (
        "Put the level back: installed SDKs and proxies decide by it whether to retry. "
        "Add a new call for the new behaviour."
    ),
    "RPC_SAME_REQUEST_TYPE": _CHANGED_CALL,
    "RPC_SAME_RESPONSE_TYPE": _CHANGED_CALL,
    "RPC_SAME_SERVER_STREAMING": _CHANGED_CALL,
    "SERVICE_NO_DELETE": _REMOVED_ELEMENT,
}

# For the rules of this tool.
OWN_RULES = {
    "ANSWER_CONSTRAINT_LOOSENED": (
        "Put the constraint back: readers rely on it, for example with the width of a column. "
        "Return larger values in a new field."
    ),
    "ANSWER_CONSTRAINT_TIGHTENED": (
        "Put the constraint back: the server still returns history written under the wider rule."
    ),
    "CALL_SAME_SCOPE": (
        "Put the scope back: tokens were issued for it, and their holders would be rejected. Let a "
        "new call require the other scope, and deprecate the old one."
    ),
    "CALL_WITHOUT_SCOPE": (
        "Declare the scope that the call requires, such as "
        "`option (credit.options.v1.scope) = SCOPE_CREDITS_READ;`. The server serves no call "
        "without one."
    ),
    "ENUM_VALUE_NOT_RESERVED": 'Reserve both: `reserved 4; reserved "OLD_NAME";` in the enum.',
    "ENUM_VALUE_REUSED": _REUSED,
    "ERROR_ADDED_UNKNOWN": (
        "Reject with a reason that installed SDKs know, or add a new call: callers of the new call "
        "know the new reason too."
    ),
    "ERROR_NO_DELETE": (
        "Put the option back: callers handle that error, and other servers may still send it. Note "
        "in the comment that it is no longer sent."
    ),
    "ERROR_SAME_PRECEDENCE": "Put the errors in their old order; append new ones at the end.",
    "FIELD_NOT_RESERVED": 'Reserve both: `reserved 4; reserved "old_name";` in the message.',
    "FIELD_REUSED": _REUSED,
    "REASON_DETAILS_NO_DELETE": _REASON,
    "REASON_METADATA_NO_DELETE": (
        "Put the key back: installed SDKs read it. A new key may be added beside it."
    ),
    "REASON_SAME_RETRYABLE": _REASON,
    "REASON_SAME_STATUS": _REASON,
    "RELEASED_IMAGE_CHANGED": (
        "Put the image back as it was: `git checkout main -- contracts/released`. To give up "
        "compatibility before 1.0.0, run "
        '`make release-contract VERSION=0.N.0 REASON="…"`, which retires it and records the reason.'
    ),
    "RELEASE_NOT_RECORDED": (
        "Images and contracts/CHANGELOG.md are written by `make release-contract` and nothing "
        "else: put back what is missing."
    ),
    "REQUEST_CONSTRAINT_TIGHTENED": _CONSTRAINT,
    "REQUEST_FIELD_ADDED_MUST_BE_SET": (
        "Make the unset field valid: no `required`, and a minimum and length_min of 0, or make "
        "it `optional`. Define unset so that the call works as before."
    ),
}

_OTHERWISE = (
    "Put it back as it was, and add a new element beside it; contracts/README.md has recipes."
)


def advice(rule: str) -> str:
    """Says what to do instead of what a rule forbids."""
    return OWN_RULES.get(rule) or _BUF_RULES.get(rule, _OTHERWISE)
