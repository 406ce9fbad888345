"""Describe a value that pydantic rejects, for the user who set it in a file or an option.

pydantic's own messages ("Input should be a valid integer, unable to parse string as an integer")
describe its input. These messages describe the setting: "must be a whole number, got 'abc'".
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from pydantic import ValidationError
from pydantic_core import ErrorDetails

# A longer value is cut to this length.
_CHARACTERS_MAX = 80

# The rule that a value breaks, by the type of pydantic's error or the prefix of the type. The names
# in braces are fields of the error's context:
# https://docs.pydantic.dev/latest/errors/validation_errors/
_RULES: Mapping[str, str] = MappingProxyType(
    {
        "bool_": "must be true or false",
        "dict_type": "must be an object",
        "enum": "must be {expected}",
        "extra_forbidden": "is not known",
        "finite_number": "must be a finite number",
        "float_": "must be a number",
        "greater_than": "must be above {gt}",
        "greater_than_equal": "must be at least {ge}",
        "int_": "must be a whole number",
        "less_than": "must be below {lt}",
        "less_than_equal": "must be at most {le}",
        "list_type": "must be a list",
        "literal_error": "must be {expected}",
        "missing": "is missing",
        "model_type": "must be an object",
        "path_type": "must be a path",
        "set_type": "must be a list",
        "string_too_long": "must have at most {max_length} characters",
        "string_too_short": "must have at least {min_length} characters",
        "string_type": "must be text",
        "too_long": "must have at most {max_length} entries",
        "too_short": "must have at least {min_length} entries",
        "tuple_type": "must be a list",
    }
)


def rule(error: ErrorDetails) -> str:
    """Return the rule that a value breaks, such as "must be at most 65535".

    It does not contain the value, unless the message of one of our own validators does.
    """
    kind = error["type"]
    if kind == "value_error":  # the message of one of our validators
        return error["msg"].partition(" error, ")[2].removesuffix(".")
    form = _RULES.get(kind) or _RULES.get(kind.partition("_")[0] + "_")
    context = error.get("ctx", {})
    if context.get("min_length") == 1:
        return "must not be empty"
    if form is not None:
        return form.format_map({name: _short(value) for name, value in context.items()})
    return "is not valid: " + error["msg"].replace("Input should be", "it should be")


def _short(value: object) -> object:
    """Return a float that is a whole number as an `int`, and any other value unchanged."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def fault(error: ErrorDetails, *, secret: bool = False) -> str:
    """Return the rule that a value breaks, and the value unless it is a secret."""
    own = error["type"] in ("value_error", "missing", "extra_forbidden")
    if own or secret:
        return rule(error)
    value = repr(_short(error["input"]))
    shown = value if len(value) <= _CHARACTERS_MAX else value[:_CHARACTERS_MAX] + "…"
    return f"{rule(error)}, got {shown}"


@contextmanager
def described_faults() -> Iterator[None]:
    """Replace the message of a rejected option by the rule that its value breaks.

    Recent versions of typer check options with pydantic, and show the `message` of their own error.
    """
    try:
        yield
    except Exception as error:
        cause = error.__cause__
        if isinstance(cause, ValidationError):
            vars(error)["message"] = fault(cause.errors()[0])
        raise
