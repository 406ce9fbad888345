"""The scripts of `tools/fuzz`, which is no package: where they are, and one of them as a module."""

import importlib.util
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[2] / "tools" / "fuzz"
CONFIG = FOLDER / "grpc-fuzz.toml"
RUN = FOLDER / "run.py"


def load_books() -> ModuleType:
    """The audit of a database."""
    spec = importlib.util.spec_from_file_location("books", FOLDER / "books.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
