"""What pages and deployment files name exists, and the code that they show runs."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped] # it ships no types
from credit_client import ClientSettings
from credit_server.settings import ServerSettings, settings_of

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("packages/*/README.md")]
)
DEPLOY = sorted(path for path in (ROOT / "deploy").rglob("*") if path.is_file())

CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
VARIABLE = re.compile(r"\bCREDIT_[A-Z0-9_]*[A-Z0-9]\b")
SETTINGS = {
    *(setting.variable for setting in settings_of(ServerSettings)),
    *(f"CREDIT_{name.upper()}" for name in ClientSettings.model_fields),
    *("CREDIT_ASK_ABOVE", "CREDIT_BY"),  # of the `credit` command alone
}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _blocks() -> Iterator[object]:
    for page in PAGES:
        for number, match in enumerate(CODE.finditer(page.read_text()), start=1):
            yield pytest.param(match[1], id=f"{_name(page)}-{number}")


@pytest.mark.parametrize("code", list(_blocks()))
def test_the_code_of_a_page_is_python(code: str) -> None:
    compile(code, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("page", [*PAGES, *DEPLOY], ids=_name)
def test_each_variable_that_a_page_names_is_a_setting(page: Path) -> None:
    # `CREDIT_…` with an ending that is left out stands for several, and is no name.
    assert set(VARIABLE.findall(page.read_text())) - SETTINGS == set()


def _hints() -> Iterator[object]:
    """Yield each pip command, with its continuation lines, in pages and in messages."""
    sources = [*ROOT.glob("packages/*/src/**/*.py"), *ROOT.glob("tools/*/README.md")]
    for path in [*PAGES, *sources]:
        text = re.sub(r'\\\n|"\n', " ", path.read_text())
        for number, match in enumerate(re.finditer(r"pip install [^#\n]*", text), start=1):
            yield pytest.param(match[0], id=f"{_name(path)}-{number}")


@pytest.mark.parametrize("hint", list(_hints()))
def test_a_hint_for_pip_names_where_our_packages_come_from(hint: str) -> None:
    # They are on no package index.
    if re.search(r"credit-(client|server|models)|contract-check|grpc-fuzz", hint):
        assert re.search(r"/dist/\S*\*\.whl|git\+https://|\./(credit/)?tools/", hint)


@pytest.mark.parametrize("path", [p for p in DEPLOY if p.suffix in (".yaml", ".yml")], ids=_name)
def test_a_deployment_file_is_yaml(path: Path) -> None:
    assert all(yaml.safe_load_all(path.read_text()))


def test_the_examples_for_tests_pass_as_tests(tmp_path: Path) -> None:
    for number, page in enumerate(["getting-started", "flask-django-celery"]):
        code = CODE.findall((ROOT / "docs" / f"{page}.md").read_text())[-1]
        (tmp_path / f"test_{number}.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-o", "asyncio_mode=auto"],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr
