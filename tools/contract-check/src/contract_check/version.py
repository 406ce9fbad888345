"""Semantic versions of released contracts."""

import re
from dataclasses import dataclass
from typing import Self

from contract_check.errors import CheckError

# https://semver.org, without pre-releases.
_FORM = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A semantic version; ordered."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a version such as `1.20.3`.

        Raises:
            CheckError: The text is not a version.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise CheckError(f'"{text}" is not a version: write it as 1.20.3')
        return cls(*map(int, match.groups()))

    def may_break(self, earlier: Self) -> bool:
        """Return whether a release of this version may break an earlier release.

        A new major version may, and before 1.0.0 a new minor version.
        """
        if earlier.major == 0:
            return (self.major, self.minor) > (0, earlier.minor)
        return self.major > earlier.major

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"
