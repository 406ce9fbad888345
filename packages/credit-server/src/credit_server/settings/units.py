"""Ranges that several settings share."""

from typing import Annotated

from pydantic import Field

Seconds = Annotated[float, Field(gt=0, le=3600)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
