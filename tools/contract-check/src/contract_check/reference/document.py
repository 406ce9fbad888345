"""Render the reference: calls, messages, enums and reasons, with the contract's comments."""

from collections.abc import Iterable, Iterator

from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    EnumValueDescriptor,
    MethodDescriptor,
    ServiceDescriptor,
)

from contract_check.image import Image
from contract_check.reference.examples import curl, example
from contract_check.reference.words import idempotency, takes, type_of
from contract_check.rules.errors import OPTION as REASON_OPTION
from contract_check.rules.errors import access_documented, documented, reasons_of
from contract_check.rules.scopes import scope_of

_PREFIX = "ERROR_REASON_"
_TEXT = "credit.options.v1.Text"
_ERROR_HEAD = ("reason", "status", "metadata", "further details", "retry")
_HEAD = """\
# Reference of the contract

<!-- Made from contracts/ by `make generate`. Do not edit: change the comments of the contract. -->

For each call: what it takes and returns, the errors that it may return, and an example for
`buf curl` and for the SDK. The examples for the SDK run inside

```python
from credit_client import CreditClient, InsufficientCredits

async with CreditClient("localhost:50051") as credits:
    ...
```

GRANT_ID, HOLD_ID and TRANSACTION_ID stand for the `transaction_id` of the receipts of the earlier
examples of `GrantCredits`, `PlaceHold` and `CaptureHold`.
"""


def render(image: Image) -> str:
    """Return the reference as Markdown.

    Args:
        image: The contract, with source info.

    Raises:
        CheckError: A call has no example.
    """
    packages = {service.file.package: None for service in image.services.values()}
    blocks = [
        _HEAD,
        *(block for package in packages for block in _package(image, package)),
        f"## Characters of strings\n\n{_enum(image, image.enums[_TEXT])}",
    ]
    return "\n".join(block.rstrip() + "\n" for block in blocks)


def _package(image: Image, package: str) -> Iterator[str]:
    yield f"## Package `{package}`\n\n{_comment(image, package)}"
    for service in image.services.values():
        if service.file.package == package:
            yield from _service(image, service)
    yield "## Messages"
    for message in image.messages.values():
        if message.file.package == package:
            yield _message(image, message)
    yield "## Enums"
    for enum in image.enums.values():
        if enum.file.package == package:
            yield _enum(image, enum)


def _service(image: Image, service: ServiceDescriptor) -> Iterator[str]:
    yield f"## Service `{service.full_name}`\n\n{_comment(image, service.full_name)}"
    yield _table(
        ("call", "takes", "returns"),
        (
            (f"[`{method.name}`](#{method.name.lower()})", _input(method), _output(method))
            for method in service.methods
        ),
    )
    yield from _access(image, service)
    for method in service.methods:
        yield _call(image, method)


def _access(image: Image, service: ServiceDescriptor) -> Iterator[str]:
    reasons = access_documented(image, service)
    if not reasons or service is not _first_service(image, service):
        return
    enum = image.enums[f"{service.file.package}.ErrorReason"]
    yield f"""\
### Access

If the server authenticates its callers, every call of every service needs an identity: in the
metadata `authorization: Bearer TOKEN`, or as a client certificate. Every call may then be rejected
for these reasons, in this order, before its own:

{_table(_ERROR_HEAD, (_error(image, enum.values_by_name[name]) for name in reasons))}
An identity has scopes (each call or operation requires one), apps (it reads and writes in these
alone) and a number, which it sends as `created_by`.
"""


def _first_service(image: Image, service: ServiceDescriptor) -> ServiceDescriptor:
    """Return the first service of the same package; its section documents access for all."""
    package = service.file.package
    return next(one for one in image.services.values() if one.file.package == package)


def _call(image: Image, method: MethodDescriptor) -> str:
    path = f"/{method.containing_service.full_name}/{method.name}"
    return f"""\
### {method.name}

{_comment(image, method.full_name)}

- Path: `{path}`
- Takes: {_input(method)}
- Returns: {_output(method)}
- Scope: `{scope_of(image, method)}`
- Retries: {idempotency(method)} (`{_level(method)}`)

Errors, after those of [access](#access), in the order of precedence:

{_errors(image, method)}
```sh
{curl(method.full_name)}
```

{_sdk(method)}"""


def _sdk(method: MethodDescriptor) -> str:
    code = example(method.full_name).sdk
    return f"```python\n{code}\n```\n" if code else ""


def _level(method: MethodDescriptor) -> str:
    options = method.GetOptions()
    level: str = type(options).IdempotencyLevel.Name(options.idempotency_level)
    return level


def _input(method: MethodDescriptor) -> str:
    return _travels(method.input_type, streams=method.client_streaming)


def _output(method: MethodDescriptor) -> str:
    return _travels(method.output_type, streams=method.server_streaming)


def _travels(message: Descriptor, *, streams: bool) -> str:
    shown = f"[`{message.name}`](#{message.name.lower()})"
    return f"a stream of {shown}" if streams else shown


def _errors(image: Image, method: MethodDescriptor) -> str:
    enum = reasons_of(image, method)
    if enum is None:
        return ""
    return _table(
        _ERROR_HEAD,
        (_error(image, enum.values_by_name[name]) for name in documented(image, method)),
    )


def _error(image: Image, value: EnumValueDescriptor) -> tuple[str, ...]:
    rule = image.option(value, REASON_OPTION)
    statuses = image.enums["credit.options.v1.Status"].values_by_number
    name = value.name.removeprefix(_PREFIX)
    return (
        f"[`{name}`](#errorreason)",
        statuses[rule.status].name.removeprefix("STATUS_"),
        ", ".join(f"`{key}`" for key in rule.metadata),
        ", ".join(f"`google.rpc.{detail}`" for detail in rule.details),
        "later, unchanged" if rule.retryable else "",
    )


def _message(image: Image, message: Descriptor) -> str:
    text = f"### {message.name}\n\n{_comment(image, message.full_name)}\n"
    if not message.fields:
        return text
    fields = (
        (
            str(field.number),
            f"`{field.name}`",
            type_of(field),
            takes(image, field),
            _line(image, field.full_name),
        )
        for field in message.fields
    )
    return f"{text}\n{_table(('no.', 'field', 'type', 'takes', 'meaning'), fields)}"


def _enum(image: Image, enum: EnumDescriptor) -> str:
    values = (
        (
            str(value.number),
            f"`{value.name}`",
            _line(image, f"{enum.full_name}.{value.name}"),
        )
        for value in enum.values
    )
    table = _table(("no.", "value", "meaning"), values)
    return f"### {enum.name}\n\n{_comment(image, enum.full_name)}\n\n{table}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines
    )


def _comment(image: Image, full_name: str) -> str:
    place = image.places.get(full_name)
    return "" if place is None else place.comment


def _line(image: Image, full_name: str) -> str:
    """Return a comment as one line, for a cell of a table."""
    return " ".join(_comment(image, full_name).split())
