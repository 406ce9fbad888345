"""Builds every package's wheel into `dist/`, and installs each in empty environments.

A wheel that works in the workspace may lack a file, a dependency or a marker elsewhere. pip takes
the wheels from there: `pip install --find-links dist credit-client`. Each package is also installed
from this repository by its git URL, as far as it is committed.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
DIST = ROOT / "dist"
UV = Path(sys.executable).with_name("uv")
PACKAGES = ("credit-models", "credit-server", "credit-client")
PROBES = {
    "credit-models": ["-c", "from credit_models.codec import encode; import credit_models"],
    "credit-server": ["-m", "credit_server.main", "--version"],
    "credit-client": ["-c", "from credit_client import CreditClient; import credit_client.testing"],
}


def main() -> None:
    """Build, check and try all wheels.

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
    (DIST / ".gitignore").unlink(missing_ok=True)  # uv's own; the folder is ignored as a whole
    with tempfile.TemporaryDirectory() as folder:
        for package in PACKAGES:
            wheel = next(DIST.glob(f"{package.replace('-', '_')}-*.whl"))
            _check_contents(wheel, package)
            _install(package, Path(folder) / package, "--find-links", DIST, wheel)
            print(f"{wheel.name} installs alone and works")  # noqa: T201
        for package in PACKAGES:
            _install(package, Path(folder) / f"{package}-git", *_git_requirements(package))
            print(f"{package} installs by git URL and works")  # noqa: T201


def _git_requirements(package: str) -> list[str]:
    """Return what pip takes to install a package, and the models that it needs, from git."""
    url = f"git+{ROOT.resolve().as_uri()}"
    names = dict.fromkeys(("credit-models", package))
    return [f"{name} @ {url}#subdirectory=packages/{name}" for name in names]


def _check_contents(wheel: Path, package: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(name for name in names if name.endswith("dist-info/METADATA"))
        text = archive.read(metadata).decode()
    module = package.replace("-", "_")
    wanted = {
        f"{module}/py.typed": f"{module}/py.typed" in names,
        "a licence file": any("licenses/LICENSE" in name for name in names),
        "License-Expression: Apache-2.0": "License-Expression: Apache-2.0" in text,
        "Classifier: Typing :: Typed": "Classifier: Typing :: Typed" in text,
    }
    if package != "credit-models":
        wanted["credit-models pinned exactly"] = "Requires-Dist: credit-models==" in text
    missing = [what for what, there in wanted.items() if not there]
    if missing:
        sys.exit(f"{wheel.name} lacks: {', '.join(missing)}")


def _install(package: str, environment: Path, *what: str | Path) -> None:
    _run(UV, "venv", "--quiet", "--python", sys.executable, environment)
    python = environment / "bin" / "python"
    # The locked versions, so that this run installs what the tests ran with.
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
        *("--constraint", constraints, *what),
    )
    _run(python, *PROBES[package], cwd=environment)


def _run(*command: str | Path, cwd: Path = ROOT) -> None:
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{result.stdout}{result.stderr}")


if __name__ == "__main__":
    main()
