"""Compare the documented errors of each call with the reasons that an installed SDK knows."""

from collections.abc import Iterator

from google.protobuf.descriptor import EnumDescriptor, MethodDescriptor, ServiceDescriptor

from contract_check.image import Image
from contract_check.rules.scopes import OF_EACH_OPERATION, scope_of
from contract_check.violation import Violation

# In each package that has services, by convention.
_ENUM = "ErrorReason"
_EXTENSION = "errors"
_ACCESS_EXTENSION = "access_errors"
# The option of each reason.
OPTION = "credit.options.v1.error"

# The statuses of faults of the server: UNKNOWN, INTERNAL and DATA_LOSS.
_OF_THE_SERVER = (2, 13, 15)


def reasons(image: Image) -> dict[str, EnumDescriptor]:
    """Return the enums of reasons by full name: at most one for each package."""
    return {name: enum for name, enum in image.enums.items() if enum.name == _ENUM}


def reasons_of(image: Image, method: MethodDescriptor) -> EnumDescriptor | None:
    """Return the enum of reasons of a call's package; None if it has none."""
    return image.enums.get(f"{method.containing_service.file.package}.{_ENUM}")


def documented(image: Image, method: MethodDescriptor) -> tuple[str, ...]:
    """Return the reasons with which a call may be rejected, in the order of precedence."""
    enum = reasons_of(image, method)
    if enum is None:
        return ()
    extension = f"{method.containing_service.file.package}.{_EXTENSION}"
    numbers = image.option(method, extension) or ()
    return tuple(enum.values_by_number[number].name for number in numbers)


def access_documented(image: Image, service: ServiceDescriptor) -> tuple[str, ...]:
    """Return the reasons with which every call of a service may be rejected, in their order."""
    enum = image.enums.get(f"{service.file.package}.{_ENUM}")
    if enum is None:
        return ()
    numbers = image.option(service, f"{service.file.package}.{_ACCESS_EXTENSION}") or ()
    return tuple(enum.values_by_number[number].name for number in numbers)


def error_violations(before: Image, after: Image) -> Iterator[Violation]:
    """Find changes of documented errors that break an installed SDK."""
    for name, old in before.methods.items():
        new = after.methods.get(name)
        if new is None:
            continue
        enum = reasons_of(before, old)
        known = set() if enum is None else set(enum.values_by_name)
        known |= _never_sent(before, after, new) | _faults(after, new)
        differences = _differences(documented(before, old), documented(after, new), known)
        for rule, message in differences:
            yield Violation(
                rule=rule, where=after.where(name), message=f'Call "{new.name}": {message}.'
            )


def _never_sent(before: Image, after: Image, method: MethodDescriptor) -> set[str]:
    """Return the reasons of a call that no client receives that does not use new features.

    These are the reasons of checks that are made on demand, and the reasons of operations that an
    installed SDK cannot send: of calls that it does not know.
    """
    enum = reasons_of(after, method)
    if enum is None:
        return set()
    rules = {name: after.option(value, OPTION) for name, value in enum.values_by_name.items()}
    on_demand = {name for name, rule in rules.items() if getattr(rule, "opt_in", False)}
    if scope_of(after, method) != OF_EACH_OPERATION:
        return on_demand
    calls = [call for name, call in after.methods.items() if name not in before.methods]
    return on_demand | {reason for call in calls for reason in documented(after, call)}


def _faults(image: Image, method: MethodDescriptor) -> set[str]:
    """Return the reasons of a call that are faults of the server.

    Any call can fail with such a status and without a reason. An installed SDK handles it by the
    status, so a new reason is compatible.
    """
    enum = reasons_of(image, method)
    if enum is None:
        return set()
    rules = {name: image.option(value, OPTION) for name, value in enum.values_by_name.items()}
    return {name for name, rule in rules.items() if getattr(rule, "status", 0) in _OF_THE_SERVER}


def _differences(
    earlier: tuple[str, ...], later: tuple[str, ...], known: set[str]
) -> Iterator[tuple[str, str]]:
    for reason in earlier:
        if reason not in later:
            yield "ERROR_NO_DELETE", f"the documented error {reason} was removed"
    for reason in later:
        if reason not in known:
            yield "ERROR_ADDED_UNKNOWN", f"the error {reason} is unknown to installed SDKs"
    kept_before = [reason for reason in earlier if reason in later]
    kept_after = [reason for reason in later if reason in earlier]
    if kept_before != kept_after:
        order = ", ".join(kept_before)
        yield "ERROR_SAME_PRECEDENCE", f"the order of precedence was {order}"
