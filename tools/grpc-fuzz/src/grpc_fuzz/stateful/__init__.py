"""Sequences of calls that take values from each other."""
