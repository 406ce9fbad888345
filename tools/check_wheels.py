"""Builds the wheel of every package into `dist/` and installs each in an empty environment.

A wheel that works in the workspace may lack a file, a dependency or a marker elsewhere. The wheels
in `dist/` can be installed with `pip install --find-links dist credit-client`. The script also
installs all packages by their git URLs from this repository into one environment. These packages
include only committed changes.
"""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
DIST = ROOT / "dist"
UV = Path(sys.executable).with_name("uv")
PACKAGES = ("credit-models", "credit-server", "credit-client")
PROBES = {
    "credit-models": ["-c", "from credit_models.codec import encode; import credit_models"],
    # Imports the whole server without the extra `fast`.
    "credit-server": ["-c", "import credit_server.app, credit_server.doctor"],
    "credit-client": ["-c", "import credit_client.sync.testing, credit_client.testing"],
}


def main() -> None:
    """Build, check and test all wheels.

    Raises:
        SystemExit: A wheel cannot be built, is incomplete or does not work.
    """
    for old in DIST.glob("*.whl"):
        old.unlink()
    for package in PACKAGES:
        _run(
            UV,
            *("build", "--quiet", "--wheel", "--no-build-isolation"),
            *("--python", sys.executable, "--out-dir", DIST, ROOT / "packages" / package),
        )
    (DIST / ".gitignore").unlink(missing_ok=True)  # uv writes it; git ignores the whole folder
    with tempfile.TemporaryDirectory() as folder:
        for package in PACKAGES:
            wheel = next(DIST.glob(f"{package.replace('-', '_')}-*.whl"))
            _check_contents(wheel, package)
            _install([package], Path(folder) / package, "--find-links", DIST, wheel)
            print(f"{wheel.name} works in an empty environment")  # noqa: T201
        url = f"git+{ROOT.resolve().as_uri()}"
        from_git = [f"{package} @ {url}#subdirectory=packages/{package}" for package in PACKAGES]
        _install(PACKAGES, Path(folder) / "git", *from_git)
        print("all packages can be installed by their git URLs, and work")  # noqa: T201


def _check_contents(wheel: Path, package: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(name for name in names if name.endswith("dist-info/METADATA"))
        text = archive.read(metadata).decode()
    module = package.replace("-", "_")
    checks = {
        f"{module}/py.typed": f"{module}/py.typed" in names,
        "a licence file": any("licenses/LICENSE" in name for name in names),
        "License-Expression: Apache-2.0": "License-Expression: Apache-2.0" in text,
        "Classifier: Typing :: Typed": "Classifier: Typing :: Typed" in text,
    }
    if package != "credit-models":
        checks["credit-models pinned exactly"] = "Requires-Dist: credit-models==" in text
    missing = [name for name, passed in checks.items() if not passed]
    if missing:
        sys.exit(f"{wheel.name} lacks: {', '.join(missing)}")


def _install(packages: Sequence[str], environment: Path, *requirements: str | Path) -> None:
    _run(UV, "venv", "--quiet", "--python", sys.executable, environment)
    python = environment / "bin" / "python"
    # The locked versions, which are the versions that the tests use.
    constraints = environment / "constraints.txt"
    constraints.write_text(
        "".join(
            line.split(" \\")[0].strip() + "\n"
            for line in (ROOT / "requirements.lock").read_text().splitlines()
            if line and not line.startswith((" ", "#"))
        )
    )
    _run(
        UV,
        *("pip", "install", "--quiet", "--python", python),
        # The version stays the same between releases: uv's cache may hold an older build.
        *("--refresh-package", "credit-models"),
        *("--constraint", constraints, *requirements),
    )
    for package in packages:
        _run(python, *PROBES[package], cwd=environment)


def _run(*command: str | Path, cwd: Path = ROOT) -> None:
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{result.stdout}{result.stderr}")


if __name__ == "__main__":
    main()
