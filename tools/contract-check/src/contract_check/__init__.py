"""Fails a change of the contract that would break an installed SDK, and says what to do instead."""
