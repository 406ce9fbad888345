"""How field and method options become constraints and declared errors."""

from grpc_fuzz.adapters.adapter import Adapter
from grpc_fuzz.adapters.buf_validate import BufValidate
from grpc_fuzz.adapters.house import House, HouseErrors, HouseFields

__all__ = ["Adapter", "BufValidate", "House", "HouseErrors", "HouseFields"]
