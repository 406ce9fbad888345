"""The rules of the writes, written from the contract alone."""
