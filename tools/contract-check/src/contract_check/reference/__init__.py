"""The reference of the contract, `docs/reference.md`, made from its image."""

from contract_check.reference.document import render

__all__ = ["render"]
