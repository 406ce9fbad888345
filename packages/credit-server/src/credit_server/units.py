"""Ranges that the limits of several packages share."""

from typing import Annotated

from annotated_types import Ge, Gt, Le

Seconds = Annotated[float, Gt(0), Le(3600)]
Count = Annotated[int, Ge(1), Le(1_000_000)]
Rate = Annotated[float, Ge(0), Le(1_000_000)]
