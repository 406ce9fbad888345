"""The reference of the contract, written from its image: `docs/reference.md`."""

from contract_check.reference.document import render

__all__ = ["render"]
