"""Give each option of a command line a bad value, and check how the value is rejected."""

from collections.abc import Iterator
from typing import Any

import typer

_NOT_OUR_WORDS = ("pydantic", "Input should be", "For further information", "Value error", "parse")


def has_our_words(message: str) -> None:
    """Check that a message about a bad value is one line and has no words of pydantic."""
    assert "\n" not in message
    assert not [words for words in _NOT_OUR_WORDS if words in message], message


def rejections(application: typer.Typer) -> dict[str, str]:
    """Return the message for each option, such as `verify --jobs`, that rejects a bad value.

    No command is run. An option that accepts any text is left out.
    """
    found: dict[str, str] = {}
    for words, command in _commands(typer.main.get_command(application)):
        for parameter in command.params:
            if getattr(parameter, "is_flag", True):
                continue
            option = parameter.opts[0]
            try:
                command.make_context(words[-1], [option, "☃"])
            except typer.BadParameter as error:
                if error.param is parameter:
                    found[" ".join([*words, option])] = error.format_message()
            except typer.TyperException:
                pass  # a parameter is missing: this value was accepted
    return found


# Any: in earlier versions of typer, the classes of commands are those of another library.
def _commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    commands = getattr(command, "commands", None)
    if commands is None:
        yield words, command
        return
    for name, each in commands.items():
        yield from _commands(each, (*words, name))
