"""The version of a released contract."""

import re
from dataclasses import dataclass
from typing import Self

from contract_check.errors import GateError

# https://semver.org, without pre-releases: a contract is released or it is not.
_FORM = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A semantic version; ordered."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a version such as `1.20.3`.

        Raises:
            GateError: The text is none.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise GateError(f'"{text}" is no version: it has the form 1.20.3')
        return cls(*map(int, match.groups()))

    def may_break(self, earlier: Self) -> bool:
        """Whether a release of this version may break one of an earlier version.

        A new major version may, and before 1.0.0 a new minor version.
        """
        if earlier.major == 0:
            return (self.major, self.minor) > (0, earlier.minor)
        return self.major > earlier.major

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"
