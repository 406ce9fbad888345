"""Build all generated code, data and the reference, or check that the committed files are fresh.

Run as `.venv/bin/python tools/generate.py [--check]`. Everything is first built in a folder of its
own, from copies of the contract and of buf's settings: the plugin formats its output with ruff,
which takes its settings from the working directory, and a change of the workspace's lint rules must
not change generated code. Needs no network.
"""

import argparse
import difflib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from contract_check.buf import build_image
from contract_check.errors import CheckError
from contract_check.image import Image
from contract_check.reference import render
from credit_server.settings import ServerSettings, settings_of

ROOT = Path(__file__).resolve().parent.parent
GENERATED = Path("packages/credit-models/src/credit_models/_generated")
IMAGE = GENERATED / "image.binpb"
REFERENCE = Path("docs/reference.md")
SETTINGS = Path("docs/settings.md")
SETTINGS_HEAD = """\
# Settings of the server

<!-- Made from the settings' definitions by `make generate`. Do not edit. -->

Each setting is an environment variable and an option of `credit-server serve`:
`CREDIT_PORT=50052` is `--port 50052`. An option takes precedence over its variable.
Times are in seconds.

- `serve` logs a warning for a variable `CREDIT_…` that is not a setting, or was removed. It rejects
  such an option, and names what applies instead.
- `migrate`, `verify`, `export` and `import` take the settings of the store; `doctor` takes all.
- The SDK has settings of its own: see its README, in `packages/credit-client`.
"""
INPUTS = ("buf.yaml", "buf.gen.yaml", "contracts")
# What ruff formats generated code with, whatever the workspace or the user have set.
RUFF_SETTINGS = 'line-length = 100\ntarget-version = "py311"\n'
DIFFERENCES_SHOWN_MAX = 60
# The compiler's check of a oneof, and the same check in the form that pydantic does not deprecate.
# With the compiler's form each import of the generated code would log a DeprecationWarning.
ONEOF_CHECK = """\
    def check_oneof(cls, values):
        return cls._validate_field_groups(values)
"""
ONEOF_CHECK_OF_INSTANCE = """\
    def check_oneof(self):
        return self._validate_field_groups(self)
"""
# `credit_models` builds the validator of a message when the first one is constructed.
CONFIG = 'config={"extra": "forbid"}'
DEFERRED_CONFIG = 'config={"extra": "forbid", "defer_build": True}'


def run_buf(arguments: list[str], folder: Path) -> None:
    """Run this environment's buf in a folder, with its plugin and ruff found first.

    Args:
        arguments: What follows `buf` on the command line.
        folder: The working directory.

    Raises:
        SystemExit: buf failed; what it said is part of the message.
    """
    # Not resolved: a virtual environment's python is a link to one outside it.
    executables = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{executables}{os.pathsep}{os.environ.get('PATH', '')}"}
    finished = subprocess.run(  # noqa: S603 - our own buf with our own arguments
        [str(executables / "buf"), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        sys.exit(f"buf {' '.join(arguments)} failed:\n{finished.stdout}{finished.stderr}")


def build(folder: Path) -> Path:
    """Build everything generated inside a folder.

    Args:
        folder: An empty folder.

    Returns:
        The folder that holds what belongs into `GENERATED`.
    """
    for name in INPUTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        else:
            shutil.copy(source, folder / name)
    (folder / "ruff.toml").write_text(RUFF_SETTINGS, encoding="utf-8")
    run_buf(["generate"], folder)
    for module in (folder / GENERATED).rglob("*.py"):
        code = module.read_text(encoding="utf-8")
        code = code.replace(ONEOF_CHECK, ONEOF_CHECK_OF_INSTANCE)
        if "credit" in module.relative_to(folder / GENERATED).parts:
            code = code.replace(CONFIG, DEFERRED_CONFIG)
        module.write_text(code, encoding="utf-8")
    # A plain FileDescriptorSet, imports included: buf's own additions would travel with reflection.
    image_flags = ["--exclude-source-info", "--as-file-descriptor-set", "--output", str(IMAGE)]
    run_buf(["build", *image_flags], folder)
    return folder / GENERATED


def reference() -> str:
    """Write the reference of the contract.

    Raises:
        SystemExit: A call has no example; the message says where to write one.
    """
    try:
        return render(Image(build_image(ROOT / "contracts", source_info=True)))
    except CheckError as error:
        sys.exit(str(error))


def settings_page() -> str:
    """Return the page of the server's settings, made from their definitions."""
    groups: dict[str, list[str]] = {}
    for setting in settings_of(ServerSettings):
        default = "" if setting.default_text is None else f"`{setting.default_text}`"
        meaning = setting.description.replace("|", r"\|")
        row = f"| `{setting.variable}` | {default} | {meaning} |"
        groups.setdefault(setting.title, []).append(row)
    blocks = [SETTINGS_HEAD]
    for title, rows in groups.items():
        table = "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])
        blocks.append(f"## {title}\n\n{table}\n")
    return "\n".join(blocks)


PAGES = {REFERENCE: reference, SETTINGS: settings_page}


def contents(folder: Path) -> dict[str, bytes]:
    """Read all files below a folder, without Python's caches.

    Args:
        folder: The folder; one that does not exist has no files.

    Returns:
        The files' bytes by their path relative to the folder.
    """
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def differences(committed: dict[str, bytes], fresh: dict[str, bytes]) -> list[str]:
    """Compare the committed files with a fresh build.

    Args:
        committed: Files by path, as they are.
        fresh: Files by path, as they should be.

    Returns:
        Lines for people to read; none when both are the same.
    """
    lines: list[str] = []
    for name in sorted(committed.keys() | fresh.keys()):
        before, after = committed.get(name), fresh.get(name)
        if before == after:
            continue
        if before is None or after is None:
            lines.append(f"{name}: {'missing' if before is None else 'should not be there'}")
        elif name.endswith(".binpb"):
            lines.append(f"{name}: differs ({len(before)} bytes, should be {len(after)})")
        else:
            old, new = before.decode().splitlines(), after.decode().splitlines()
            lines += difflib.unified_diff(
                old, new, f"committed/{name}", f"fresh/{name}", "", "", 1, ""
            )
    return lines


def check(fresh: Path) -> None:
    """Fail if the committed files are not those that the contract gives.

    Args:
        fresh: The folder of the fresh build.

    Raises:
        SystemExit: They differ; the message shows where, and what to run.
    """
    lines = differences(contents(ROOT / GENERATED), contents(fresh))
    if not lines:
        return
    hidden = len(lines) - DIFFERENCES_SHOWN_MAX
    shown = lines[:DIFFERENCES_SHOWN_MAX] + ([f"... and {hidden} lines more"] if hidden > 0 else [])
    summary = "\n".join(shown)
    sys.exit(f"{GENERATED} is not what the contract gives:\n{summary}\nRun: make generate")


def check_pages() -> None:
    """Fail if a committed page is not the one that its source gives.

    Raises:
        SystemExit: They differ; the message says what to run.
    """
    for page, render_page in PAGES.items():
        path = ROOT / page
        committed = path.read_text(encoding="utf-8") if path.exists() else ""
        if committed != render_page():
            sys.exit(f"{page} is not what its source gives.\nRun: make generate")


def replace_pages() -> None:
    """Write the pages."""
    for page, render_page in PAGES.items():
        (ROOT / page).write_text(render_page(), encoding="utf-8")


def replace(fresh: Path) -> None:
    """Replace the committed files by a fresh build.

    Args:
        fresh: The folder of the fresh build.
    """
    shutil.rmtree(ROOT / GENERATED, ignore_errors=True)
    shutil.copytree(fresh, ROOT / GENERATED)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="change nothing; fail when what is committed is stale"
    )
    checking = parser.parse_args().check
    with tempfile.TemporaryDirectory(prefix="generate-") as folder:
        fresh = build(Path(folder))
        if checking:
            check(fresh)
            check_pages()
        else:
            replace(fresh)
            replace_pages()


if __name__ == "__main__":
    main()
