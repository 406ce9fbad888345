"""The scripts of `tools/fuzz`, which is no package, and the contract: where they are."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tools" / "fuzz"
IMAGE = ROOT / "packages/credit-models/src/credit_models/_generated/image.binpb"
CONFIG = FOLDER / "grpc-fuzz.toml"
RUN = FOLDER / "run.py"


def load_books() -> ModuleType:
    """The audit of a database."""
    return _load(FOLDER / "books.py")


def load_run() -> ModuleType:
    """What `make fuzz` runs."""
    return _load(RUN)


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tools_fuzz_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
