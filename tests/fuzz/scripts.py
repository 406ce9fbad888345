"""Locate the script and the settings of `tools/fuzz`, and the contract."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tools" / "fuzz"
IMAGE = ROOT / "packages/credit-models/src/credit_models/_generated/image.binpb"
CONFIG = FOLDER / "grpc-fuzz.toml"
RUN = FOLDER / "run.py"
