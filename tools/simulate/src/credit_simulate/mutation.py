"""Plant a bug: change the source text of a published function for the duration of a context."""

import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import CodeType
from typing import Any

# Any: functions of all kinds.
Function = Callable[..., Any]


class MutationStale(Exception):
    """A function does not have the text that a mutation replaces: the mutation must follow it."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of a function.

    Attributes:
        function: The function or method; it refers to no variable of a function around it.
        changes: Texts that its source has exactly once, each with its replacement.
    """

    function: Function
    changes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Mutation:
    """A bug.

    Attributes:
        name: What the bug does.
        edits: The changes that make it.
        seed: A seed that found it when it was added.
    """

    name: str
    edits: tuple[Edit, ...]
    seed: int = 0

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Plant the bug for the duration of the context.

        Raises:
            MutationStale: A function has changed.
        """
        with ExitStack() as stack:
            for edit in self.edits:
                stack.enter_context(_edited(edit))
            yield


@contextmanager
def _edited(edit: Edit) -> Iterator[None]:
    # Unwrap a decorated function. Any: functions have attributes of their own.
    function: Any = inspect.unwrap(edit.function)
    original = function.__code__
    # All modules that import the function share this object, so the change applies to all of them.
    function.__code__ = _changed_code(function, edit.changes)
    try:
        yield
    finally:
        function.__code__ = original


# Any: as above.
def _changed_code(function: Any, changes: Mapping[str, str]) -> CodeType:
    source = textwrap.dedent(inspect.getsource(function))
    for old, new in changes.items():
        if source.count(old) != 1:
            raise MutationStale(f"{function.__qualname__} has {source.count(old)} times: {old}")
        source = source.replace(old, new)
    module = compile(source, inspect.getfile(function), "exec")
    found = [each for each in module.co_consts if isinstance(each, CodeType)]
    return next(code for code in found if code.co_name == function.__name__)
