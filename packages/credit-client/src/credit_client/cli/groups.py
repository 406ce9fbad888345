"""Options that several commands share, and the words of a command line.

typer reads options from a function's signature: without this module each command would repeat them.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, get_type_hints

from typer.models import OptionInfo


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of a command whose type is a dataclass by the fields of the dataclass.

    A parameter `words` is no option. It gets the command line: the command's name and its own
    options with their values, without those of the dataclasses.
    """
    hints = get_type_hints(command, include_extras=True)
    own = inspect.signature(command).parameters
    groups = {name: hints[name] for name in own if is_dataclass(hints.get(name))}
    plain = [
        own[name].replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
        for name in own
        if name not in groups and name != "words"
    ]
    grouped = {name: list(_options(group)) for name, group in groups.items()}

    @functools.wraps(command)
    def run(**values: Any) -> None:  # Any: each option has a type of its own
        made = {
            name: groups[name](**{one.name: values.pop(one.name) for one in options})
            for name, options in grouped.items()
        }
        words = {"words": [command.__name__, *_words(plain, values)]} if "words" in own else {}
        command(**values, **made, **words)

    parameters = [*plain, *(option for options in grouped.values() for option in options)]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    # typeshed knows no such attribute; `inspect.signature` documents it (PEP 362).
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def words_of(group: Any) -> list[object]:  # Any: an instance of any dataclass
    """Return the options of an instance of a dataclass, as words of a command line."""
    options = list(_options(type(group)))
    return _words(options, {one.name: getattr(group, one.name) for one in options})


def _options(group: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )


def _name(parameter: inspect.Parameter) -> str:
    """Return the first name of an option; that of a flag may be `--name/--no-name`."""
    for one in parameter.annotation.__metadata__:
        if isinstance(one, OptionInfo):
            # typer takes the first name as the default until it reads the signature.
            return str(next(each for each in (one.default, *(one.param_decls or ())) if each))
    raise TypeError(f"{parameter.name} is no option")


def _words(parameters: Sequence[inspect.Parameter], values: dict[str, Any]) -> list[object]:
    """Return options with their values as words: none for an option that has no value."""
    words: list[object] = []
    for parameter in parameters:
        name, _, opposite = _name(parameter).partition("/")
        match values[parameter.name]:
            case None | [] | "":
                pass
            case True:
                words.append(name)
            case False:
                words += [opposite] if opposite else []
            case list() as several:
                words += [word for one in several for word in (name, one)]
            case Enum() as chosen:
                words += [name, chosen.value]
            case timedelta() as time:
                words += [name, f"{time // timedelta(seconds=1)}s"]
            case value:
                words += [name, value]
    return words
