"""The private names that packages rely on are listed, and a missing one is reported at import."""

import ast
import builtins
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType

import credit_client
import credit_server
import pytest
from credit_client.private_names import PRIVATE_NAMES as CLIENT_NAMES
from credit_models.private_names import PrivateNames, check_private_names
from credit_server.http2.private_names import PRIVATE_NAMES as HTTP2_NAMES
from credit_server.store.pipeline import PRIVATE_NAMES as STORE_NAMES
from grpclib.protocol import Buffer
from h2.connection import H2Connection

LIBRARIES = ("grpclib", "h2", "hpack", "hyperframe", "pymongo")
SERVER_NAMES = {**HTTP2_NAMES, **STORE_NAMES}
STANDARD = {name for kind in (type, FunctionType, ModuleType) for name in dir(kind)} | {
    *dir(builtins.object), *dir(builtins.list), *dir(builtins.BaseException),
    "__aenter__", "__aexit__", "__name__", "__next__", "__signature__", "_fields", "_replace",
    "_id", "_get_running_loop",  # a field of MongoDB's documents, and a function of asyncio
}  # fmt: skip


def is_private(name: str) -> bool:
    return name.startswith("_") and name not in STANDARD


def bases(owner: type) -> Iterator[type]:
    return (base for base in owner.__mro__ if base.__module__.partition(".")[0] in LIBRARIES)


def names_of(owner: type) -> set[str]:
    """Return the private names that a class defines or that its methods use."""
    methods = [value for value in vars(owner).values() if isinstance(value, FunctionType)]
    used = {name for method in methods for name in method.__code__.co_names}
    return {name for name in {*vars(owner), *used} if is_private(name)}


def library_names() -> set[str]:
    """Return all private names of the libraries' classes that are imported."""
    modules = [module for name, module in sys.modules.items() if name.startswith(LIBRARIES)]
    members = [value for module in modules for value in vars(module).values()]
    return {
        name
        for owner in members
        if isinstance(owner, type) and owner.__module__.startswith(LIBRARIES)
        for name in names_of(owner)
    }


def of_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == "self"


def used_names(package: ModuleType) -> Iterator[tuple[str, str]]:
    """Yield the libraries' private names that a package uses, each with the module."""
    of_libraries = library_names()
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if found.name.endswith("__main__"):
            continue
        module = importlib.import_module(found.name)
        assert module.__file__ is not None
        tree = ast.parse(Path(module.__file__).read_text())
        own = {
            node.attr if isinstance(node, ast.Attribute) else node.name
            for node in ast.walk(tree)
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and of_self(node)
            )
            or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        for node in ast.walk(tree):
            match node:
                case ast.ImportFrom(module=str(source), names=names) if source.startswith(
                    LIBRARIES
                ):
                    hidden = any(is_private(part) for part in source.split("."))
                    yield from (
                        (alias.name, found.name)
                        for alias in names
                        if hidden or is_private(alias.name)
                    )
                case ast.ClassDef(name=name) if isinstance(getattr(module, name, None), type):
                    inherited = set[str]().union(*map(names_of, bases(getattr(module, name))))
                    for part in ast.walk(node):
                        if isinstance(part, ast.Attribute | ast.FunctionDef | ast.AsyncFunctionDef):
                            used = part.attr if isinstance(part, ast.Attribute) else part.name
                            if used in inherited:
                                yield used, found.name
                case ast.Attribute(attr=attr) if attr in of_libraries and attr not in own:
                    if not of_self(node):
                        yield attr, found.name
                case ast.keyword(arg=str(arg)) if arg in of_libraries and is_private(arg):
                    yield arg, found.name


@pytest.mark.parametrize(
    ("package", "listed"), [(credit_server, SERVER_NAMES), (credit_client, CLIENT_NAMES)]
)
def test_exactly_the_private_names_in_use_are_listed(
    package: ModuleType, listed: PrivateNames
) -> None:
    known = {name.partition("(")[0] for names in listed.values() for name in names}
    used = dict(used_names(package))
    assert {name: where for name, where in used.items() if name not in known} == {}
    assert set(filter(is_private, known)) - set(used) == set()


def test_a_missing_name_is_reported_with_the_installed_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(H2Connection, "_receive_frame")
    with pytest.raises(ImportError) as caught:
        check_private_names("credit-server", SERVER_NAMES)
    assert str(caught.value) == (
        "h2 4.4.1 has no method H2Connection._receive_frame, which credit-server relies on:"
        " install the version of h2 that credit-server requires"
    )


def test_other_parameters_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(self: H2Connection, frame: object, now: float) -> None: ...

    monkeypatch.setattr(H2Connection, "_receive_frame", changed)
    with pytest.raises(
        ImportError, match=r"has H2Connection\._receive_frame\(frame, now\) instead"
    ):
        check_private_names("credit-server", SERVER_NAMES)


def test_an_attribute_that_is_no_longer_set_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def renamed(self: Buffer, ack_callback: object) -> None: ...

    async def read(self: Buffer, size: int) -> bytes:
        return b""

    monkeypatch.setattr(Buffer, "__init__", renamed)
    monkeypatch.setattr(Buffer, "read", read)
    with pytest.raises(ImportError, match=r"grpclib 0\.4\.9 has no Buffer\._ack_callback"):
        check_private_names("credit-client", CLIENT_NAMES)


@pytest.mark.parametrize(
    ("owner", "name", "problem"),
    [
        ("h2.connections", "_x", "has no module h2.connections"),
        ("h2.connection:H2Connections", "_x", "has no class h2.connection.H2Connections"),
        ("h2.connection", "_x", "has no h2.connection._x"),
        ("h2.connection:H2Connection", "_closed_streams()", "has no method H2Connection._closed"),
    ],
)
def test_the_missing_owner_or_name_is_reported(owner: str, name: str, problem: str) -> None:
    with pytest.raises(ImportError, match=problem):
        check_private_names("a test", {owner: (name,)})


@pytest.mark.parametrize(
    ("package", "change"),
    [
        ("credit_server.http2.listener", "del h2.connection.H2Connection._receive_frame"),
        ("credit_client", "del grpclib.client.Channel.__connect__"),
    ],
)
def test_the_check_runs_at_import(package: str, change: str) -> None:
    code = f"import h2.connection, grpclib.client\n{change}\nimport {package}"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "relies on: install the version of" in done.stderr.splitlines()[-1]
