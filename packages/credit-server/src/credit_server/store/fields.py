"""The base of all documents, and the types of their fields.

Integers are stored as int64 (`long`), because uint32 does not fit MongoDB's int32.
"""

from typing import Annotated, Any, ClassVar

from bson.codec_options import CodecOptions, DatetimeConversion
from bson.int64 import Int64
from credit_models.ledger import UINT32_MAX, Pairs
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

# How documents are decoded. A date that Python cannot represent must not fail the read of other
# documents, so it is decoded as another type, which the models reject.
# Any: documents hold values of many types.
DECODED: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO
)

# Where a server reads documents of many users: text that is not UTF-8 must not end the read either.
# It is decoded with surrogates, which the models and the contract's messages reject.
TEXT_ERRORS = "surrogateescape"

Long = Annotated[int, PlainSerializer(Int64)]
# An id or a number of credits.
Number = Annotated[Long, Field(ge=1, le=UINT32_MAX)]
# A number of credits that may be 0.
Credits = Annotated[Long, Field(ge=0, le=UINT32_MAX)]
# A balance, which is negative if the user owes credits.
Signed = Annotated[Long, Field(ge=-UINT32_MAX, le=UINT32_MAX)]
Sequence = Annotated[Long, Field(ge=1)]
Key = Annotated[str, Field(min_length=1, max_length=128)]
ReportId = Annotated[str, Field(min_length=1, max_length=128)]
ReportName = Annotated[str, Field(min_length=1, max_length=256)]


class Document(BaseModel):
    """A document or a part of one. Fields that are None are absent in the store."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True
    )
    # Whether the validator of the collection checks the values of the fields, or only that the
    # fields are there.
    values_are_validated: ClassVar[bool] = True

    def to_bson(self) -> dict[str, Any]:
        """Return the document that the driver stores."""
        return self.model_dump(by_alias=True, exclude_none=True)


class PairDocument(Document):
    """A name and a value. A caller's names may have dots, so they are no names of fields."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    value: Annotated[str, Field(max_length=512)]


def from_pairs(pairs: Pairs) -> list[PairDocument] | None:
    """Translate names and values from the ledger."""
    return [PairDocument(name=name, value=value) for name, value in pairs] or None


def to_pairs(documents: list[PairDocument] | None) -> Pairs:
    """Translate names and values to the ledger."""
    return tuple((each.name, each.value) for each in documents or ())
