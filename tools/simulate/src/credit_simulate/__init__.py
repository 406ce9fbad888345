"""Simulate servers, their store, their network and their callers from a seed."""
