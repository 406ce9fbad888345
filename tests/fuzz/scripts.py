"""Find the script and the settings of `tools/fuzz`, which is no package, and the contract."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tools" / "fuzz"
IMAGE = ROOT / "packages/credit-models/src/credit_models/_generated/image.binpb"
CONFIG = FOLDER / "grpc-fuzz.toml"
RUN = FOLDER / "run.py"


def load_run() -> ModuleType:
    """Return the module that `make fuzz` runs."""
    spec = importlib.util.spec_from_file_location("tools_fuzz_run", RUN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks up its module.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
