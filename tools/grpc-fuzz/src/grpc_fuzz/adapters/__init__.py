"""Adapters that read constraints and declared errors from the options of fields and methods."""

from grpc_fuzz.adapters.adapter import Adapter
from grpc_fuzz.adapters.buf_validate import BufValidate
from grpc_fuzz.adapters.custom_options import (
    CustomErrorOptions,
    CustomFieldOptions,
    CustomOptions,
)

__all__ = ["Adapter", "BufValidate", "CustomErrorOptions", "CustomFieldOptions", "CustomOptions"]
