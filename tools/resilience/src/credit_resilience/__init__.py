"""Attacks the credit service over raw sockets and tells how it and its callers fared."""
