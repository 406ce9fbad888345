"""A change that would break users of git's main branch fails, even if it was not released."""

import subprocess
from pathlib import Path

import pytest
from contract_check.released import baselines

from tests.contract.conftest import Copy

NEW = "  uint32 balance = 2;\n\n  // In words.\n  string words = 60;\n"
FIELD = "  uint32 balance = 2;\n"


def _git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    settings = [*identity, "-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null"]
    command = ["git", *settings, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(fresh: Copy) -> Copy:
    """Return a copy that is committed to its own main, with a field that no release has."""
    fresh.edit(FIELD, NEW)
    folder = fresh.contracts.parent
    _git(folder, "init", "--initial-branch", "main")
    _git(folder, "add", ".")
    _git(folder, "commit", "--message", "Begin")
    return fresh


def test_the_contract_of_main_passes(repository: Copy) -> None:
    outcome = repository.check("check")
    assert (outcome.status, outcome.said) == (0, "")


def test_a_change_that_breaks_only_main_fails(repository: Copy) -> None:
    repository.edit(NEW, FIELD)
    outcome = repository.check("check")
    assert (outcome.status, outcome.rules) == (1, {"FIELD_NO_DELETE"})
    assert "(against main)" in outcome.said


def test_a_clone_without_a_main_branch_uses_that_of_its_origin(
    repository: Copy, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("clone")
    _git(folder, "clone", str(repository.contracts.parent), "clone")
    _git(folder / "clone", "checkout", "-b", "topic")
    _git(folder / "clone", "branch", "-D", "main")
    clone = Copy(contracts=folder / "clone" / "contracts", captured=repository.captured)
    clone.edit(NEW, FIELD)
    assert "(against origin/main)" in clone.check("check").said


def test_a_check_keeps_what_is_staged(repository: Copy) -> None:
    folder = repository.contracts.parent
    (folder / "new.txt").write_text("a new file")
    _git(folder, "add", "new.txt")
    assert repository.check("check").status == 0
    staged = _git(folder, "diff", "--cached", "--name-only")
    assert staged == "new.txt\n"


def test_a_check_in_a_hook_finds_the_contract_of_main(
    repository: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(repository.contracts.parent / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", "none")
    release = baselines(repository.contracts)[-1].path
    release.write_bytes(release.read_bytes() + b"\x12\x00")
    assert "RELEASED_IMAGE_CHANGED" in repository.check("check").rules


def test_attributes_of_git_apply_to_the_paths_of_the_repository(repository: Copy) -> None:
    folder = repository.contracts.parent
    (folder / ".gitattributes").write_text("*.binpb text eol=crlf\ncontracts/**/*.binpb -text\n")
    assert repository.check("check").status == 0


def test_a_main_without_a_contract_is_not_a_baseline(copy: Copy) -> None:
    folder = copy.contracts.parent
    _git(folder, "init", "--initial-branch", "main")
    _git(folder, "add", "buf.yaml")
    _git(folder, "commit", "--message", "Begin")
    assert copy.check("check").status == 0


def test_a_released_image_cannot_be_removed_or_changed(repository: Copy) -> None:
    release = baselines(repository.contracts)[-1].path
    data = release.read_bytes()
    release.write_bytes(data + b"\x12\x00")
    assert "RELEASED_IMAGE_CHANGED" in repository.check("check").rules
    release.unlink()
    assert "RELEASED_IMAGE_CHANGED" in repository.check("check").rules
    release.write_bytes(data)
    assert repository.check("check").status == 0


def test_a_release_with_a_reason_may_break_main(repository: Copy) -> None:
    repository.edit(
        NEW,
        '  reserved 2;\n  reserved "balance";\n\n  // In words.\n  string words = 60;\n',
    )
    assert "FIELD_NO_DELETE" in repository.check("check").rules
    released = repository.check("release", "0.9.0", "--reason", "No client reads it.")
    assert released.status == 0, released.said
    outcome = repository.check("check")
    assert outcome.status == 0, outcome.said
    assert "only reuse is checked" in outcome.said


def test_a_release_with_a_reason_cannot_reuse_numbers_or_names_of_main(repository: Copy) -> None:
    repository.edit(NEW, '  reserved 2;\n  reserved "balance";\n')
    # No release has "words", so only main shows that 60 is used.
    assert repository.check("release", "0.9.0", "--reason", "No client reads it.").status == 0
    assert repository.check("check").rules == {"FIELD_NOT_RESERVED"}
