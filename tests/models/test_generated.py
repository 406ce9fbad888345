"""The generated code that is committed is what the contract gives."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from credit_testing.scripts import load_script

SCRIPT = Path(__file__).parents[2] / "tools" / "generate.py"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    return load_script(SCRIPT)


def test_the_generated_code_is_fresh() -> None:
    # With an empty PATH, as the script has to find buf, its plugin and ruff by itself.
    finished = subprocess.run(
        [sys.executable, SCRIPT, "--check"],
        env={"PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr


def test_a_difference_is_shown_with_its_file_and_lines(generate: ModuleType) -> None:
    lines = generate.differences({"a.py": b"x = 1\ny = 2\n"}, {"a.py": b"x = 1\ny = 3\n"})
    assert lines == [
        "--- committed/a.py",
        "+++ fresh/a.py",
        "@@ -1,2 +1,2 @@",
        " x = 1",
        "-y = 2",
        "+y = 3",
    ]


def test_missing_and_left_over_files_are_differences(generate: ModuleType) -> None:
    lines = generate.differences({"old.py": b""}, {"new.py": b""})
    assert lines == ["new.py: missing", "old.py: should not be there"]


def test_an_image_is_compared_by_its_bytes(generate: ModuleType) -> None:
    lines = generate.differences({"image.binpb": b"\xff"}, {"image.binpb": b"\xfe\x00"})
    assert lines == ["image.binpb: differs (1 bytes, should be 2)"]


def test_a_stale_tree_fails_and_names_the_command_to_run(
    generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh, root = tmp_path / "fresh", tmp_path / "root"
    fresh.mkdir()
    (fresh / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(generate, "ROOT", root)
    with pytest.raises(SystemExit, match=r"a\.py: missing\nRun: make generate"):
        generate.check(fresh)
    generate.replace(fresh)
    generate.check(fresh)
    (root / generate.GENERATED / "left_over.py").write_text("")
    generate.replace(fresh)
    generate.check(fresh)


# `datetime` is another object here than in the generated module.
COMPLETE = """
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pydantic import ValidationError
import credit_models
messages = [getattr(credit_models, name) for name in credit_models.__all__]
messages = [message for message in messages if hasattr(message, "__pydantic_complete__")]
assert len(messages) > 50
assert not any(message.__pydantic_complete__ for message in messages)
with ThreadPoolExecutor(8) as threads:
    list(threads.map(lambda message: message(), messages * 4))
assert all(message.__pydantic_complete__ for message in messages)
try:
    credit_models.CreditRequest(user_id=-1)
except ValidationError as error:
    assert "user_id" in str(error)
else:
    raise AssertionError("a value that does not fit its field was accepted")
print(credit_models.AppPolicy(updated_at=datetime(2024, 1, 1, tzinfo=UTC)).updated_at)
"""


def test_a_message_is_complete_once_one_of_its_class_is_constructed() -> None:
    # A process of its own, because this one has constructed messages.
    ended = subprocess.run(
        [sys.executable, "-c", COMPLETE], check=False, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout) == (0, "2024-01-01 00:00:00+00:00\n"), ended.stderr
