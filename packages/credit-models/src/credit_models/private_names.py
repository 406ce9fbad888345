"""Checks that libraries have the private names that a package relies on.

These libraries are pinned to a minor version. Where another version is installed anyway, the check
fails at import and names what is missing. Without the check, a library could stop calling an
override that closes a security hole, and nothing would report it.
"""

import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from types import FunctionType, ModuleType

# Names by owner. An owner is a module, `h2.connection`, or a class, `h2.connection:H2Connection`.
# A method is written with its parameters after `self`, `_receive_frame(frame)`, because an override
# relies on them. Every other name is written without parentheses.
PrivateNames = Mapping[str, Sequence[str]]


def check_private_names(user: str, names: PrivateNames) -> None:
    """Check that all names exist and that methods have the expected parameters.

    Args:
        user: The package that relies on the names, for the error message.
        names: The names, by owner.

    Raises:
        ImportError: A name is missing, or a method has other parameters.
    """
    for owner, wanted in names.items():
        for name in wanted:
            problem = _problem(owner, name)
            if problem is not None:
                library = owner.partition(".")[0]
                raise ImportError(
                    f"{library} {version(library)} {problem}, which {user} relies on:"
                    f" install the version of {library} that {user} requires",
                    name=library,
                )


def _problem(owner: str, wanted: str) -> str | None:
    module_name, _, class_name = owner.partition(":")
    name, is_method, parameters = wanted.rstrip(")").partition("(")
    where = class_name or module_name
    try:
        module = importlib.import_module(module_name)
    except ImportError:
        return f"has no module {module_name}"
    holder: object = getattr(module, class_name, None) if class_name else module
    if not isinstance(holder, type | ModuleType):
        return f"has no class {module_name}.{class_name}"
    if not is_method:
        return None if _has(holder, name) else f"has no {where}.{name}"
    method = getattr(holder, name, None)
    if not callable(method):
        return f"has no method {where}.{name}"
    found = ", ".join(list(inspect.signature(method).parameters)[1:])
    if found != parameters:
        return f"has {where}.{name}({found}) instead of {name}({parameters})"
    return None


def _has(holder: ModuleType | type, name: str) -> bool:
    """Return whether a module or class defines a name, or methods of the class use it."""
    return hasattr(holder, name) or (
        isinstance(holder, type)
        and any(
            name in getattr(base, "__annotations__", {}) or name in method.__code__.co_names
            for base in holder.__mro__
            for method in _methods(base)
        )
    )


def _methods(owner: type) -> Iterator[FunctionType]:
    return (member for member in vars(owner).values() if isinstance(member, FunctionType))
