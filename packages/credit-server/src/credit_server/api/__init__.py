"""The contract's services."""
