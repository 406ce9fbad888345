"""The reference of the contract, written from its image: `docs/reference.md`."""

from contract_gate.reference.document import render

__all__ = ["render"]
