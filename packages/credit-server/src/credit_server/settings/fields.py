"""Models of settings: each setting has one name, in whichever object its value is.

A setting `port` is the variable CREDIT_PORT and the option `--port`. Most are fields of a model in
this package. The others are fields of a value object that belongs to the package it limits, such
as `ConnectionLimits`: a model holds the object, and its `Group` gives each field its name.
"""

import ast
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from textwrap import dedent
from typing import Any, ClassVar, TypeVar, get_args, get_type_hints

from credit_models.faults import fault
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError, model_validator

PREFIX = "CREDIT_"


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Declares the fields of a value object as settings.

    Attributes:
        title: The settings' title in the help.
        names: The fields by the names of their settings. A field that is not among them keeps its
            default: it is for tests and measurements.
    """

    title: str
    names: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        name: Its name, such as `connection_idle_seconds`.
        path: The path of its value: the model's field, and the field of the value object if the
            model's field holds one.
        owner: The class that has the field.
        type: The type of its values. Any: whatever an annotation can be.
        default: Its value if it is not set.
        title: The title of its group in the help.
    """

    name: str
    path: tuple[str, ...]
    owner: type
    type: Any
    default: object
    title: str

    @property
    def description(self) -> str:
        """What the setting does, in a few sentences; read from the source at the first use."""
        return " ".join(_descriptions(self.owner).get(self.path[-1], "").split())

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return PREFIX + self.name.upper()

    @property
    def option(self) -> str:
        """The option that sets it."""
        return "--" + self.name.replace("_", "-")

    @property
    def default_text(self) -> str | None:
        """The default as one writes it in the environment; None if there is none."""
        match self.default:
            case None:
                return None
            case bool():
                return str(self.default).lower()
            case float():
                return f"{self.default:g}"
            case tuple():
                return ",".join(self.default)
            case _:
                return str(self.default)


class Settings(BaseModel):
    """A set of settings, made from values by the settings' names."""

    model_config = ConfigDict(extra="forbid")

    title: ClassVar[str] = ""
    """The title, in the help, of the settings that a class declares itself."""

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, given: object) -> object:
        """Put the settings of value objects where the model's fields expect them."""
        if not isinstance(given, Mapping):
            return given
        values, objects = dict(given), dict[str, dict[str, object]]()
        for setting in settings_of(cls):
            group, *field = setting.path
            if field and setting.name in values and group not in given:
                objects.setdefault(group, {})[field[0]] = values.pop(setting.name)
        return {**values, **objects}


_Settings = TypeVar("_Settings", bound=Settings)


def load(
    model: type[_Settings], options: Mapping[str, object], environment: Mapping[str, str]
) -> _Settings:
    """Return the settings: each from its option, else from its variable, else its default.

    Args:
        model: What to load.
        options: The values that the command line gives, by setting.
        environment: Values by name; a name may be in any case, and an empty value sets nothing.

    Raises:
        ValidationError: A value is not valid; `explain` describes which.
    """
    variables = {name.upper(): value for name, value in environment.items() if value}
    given = {
        setting.name: variables[setting.variable]
        for setting in settings_of(model)
        if setting.variable in variables
    }
    return model.model_validate({**given, **options})


def explain(model: type[Settings], error: ValidationError) -> list[str]:
    """Describe each value that is not valid in a line that names its option and its variable."""
    by_path = {setting.path: setting for setting in settings_of(model)}
    lines: dict[str, str] = {}
    for problem in error.errors(include_url=False):
        place = tuple(str(part) for part in problem["loc"])
        # The place of a list's element is one step longer.
        setting = by_path.get(place[:2]) or by_path.get(place[:1])
        if setting is None:  # settings that conflict: the message names them
            lines[fault(problem)] = fault(problem)
            continue
        secret = SecretStr in get_args(setting.type)
        line = f"{setting.option} ({setting.variable}): {fault(problem, secret=secret)}"
        # A list with several bad elements has one line.
        lines.setdefault(setting.name, line)
    return list(lines.values())


@cache
def settings_of(model: type[Settings]) -> tuple[Setting, ...]:
    """Return the settings of a model, in the order of its fields."""
    return tuple(
        setting for name in model.model_fields for setting in _settings_of_field(model, name)
    )


def _settings_of_field(model: type[Settings], name: str) -> list[Setting]:
    field = model.model_fields[name]
    (group,) = [each for each in field.metadata if isinstance(each, Group)] or (None,)
    if group is not None:
        return _settings_of_object(name, field.annotation, group)
    owner = next(each for each in model.__mro__ if name in inspect.get_annotations(each))
    return [
        Setting(
            name=name,
            path=(name,),
            type=field.annotation,
            default=field.default,
            owner=owner,
            title=owner.title if issubclass(owner, Settings) else "",
        )
    ]


# Any: a dataclass, whichever it is.
def _settings_of_object(place: str, owner: Any, group: Group) -> list[Setting]:
    types = get_type_hints(owner)
    defaults = {field.name: field.default for field in fields(owner)}
    return [
        Setting(
            name=name,
            path=(place, field),
            type=types[field],
            default=defaults[field],
            owner=owner,
            title=group.title,
        )
        for name, field in group.names.items()
    ]


@cache
def _descriptions(owner: type) -> dict[str, str]:
    """Read the docstrings below a class's fields; Python keeps them only in the source.

    All of them take 23 ms of CPU, so a start without `--help` does not read them.
    """
    (definition,) = ast.parse(dedent(inspect.getsource(owner))).body
    assert isinstance(definition, ast.ClassDef)  # noqa: S101 - for the type checker
    found = {}
    for above, below in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(above, ast.AnnAssign) and isinstance(below, ast.Expr):
            found[ast.unparse(above.target)] = str(ast.literal_eval(below.value))
    return found
