"""Choosing methods by globs."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from grpc_fuzz.model import Method


def matches(method: Method, globs: Iterable[str]) -> bool:
    """Whether a method's path, with its leading slash or without, or its name matches a glob."""
    names = (method.path, method.path.removeprefix("/"), method.name)
    return any(fnmatchcase(name, glob) for glob in globs for name in names)
