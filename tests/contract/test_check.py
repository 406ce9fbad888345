"""`contract-check check`, which `make contract` runs, accepts or rejects each change correctly."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from contract_check.advice import OWN_RULES, advice
from contract_check.buf import build_image
from contract_check.changelog import FILE
from contract_check.released import baselines

from tests.contract.conftest import CREDIT, LEDGER, OPTIONS, REASONS, ROOT, Copy
from tests.contract.mutations import (
    ALLOWED,
    BREAKING,
    LAST_REASON,
    NEW_CALL,
    NEW_REASON,
    RANGE,
    Mutation,
)


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture
def newest(copy: Copy) -> Copy:
    """Return a copy whose only baseline is the newest: buf takes 0.3 s of CPU for each."""
    changelog = copy.contracts / FILE
    for release in baselines(copy.contracts)[:-1]:
        release.path.unlink()
        recorded = re.compile(rf"^## {re.escape(str(release.version))} - .*\n", re.MULTILINE)
        changelog.write_text(recorded.sub("", changelog.read_text()))
    return copy


@pytest.mark.parametrize("mutation", BREAKING, ids=lambda mutation: mutation.name)
def test_a_breaking_change_fails_with_its_rule_and_advice(newest: Copy, mutation: Mutation) -> None:
    assert mutation.rule is not None
    mutation.apply(newest)
    outcome = newest.check("check")
    assert outcome.status == 1, outcome.said
    assert mutation.rule in outcome.rules
    assert f"Instead: {advice(mutation.rule)}" in _in_one_line(outcome.said)


@pytest.mark.parametrize("mutation", ALLOWED, ids=lambda mutation: mutation.name)
def test_a_compatible_change_passes(newest: Copy, mutation: Mutation) -> None:
    """All baselines have the same rules, so the change is compared with only the newest one."""
    mutation.apply(newest)
    outcome = newest.check("check")
    assert outcome.status == 0, outcome.said


def test_the_unchanged_contract_passes(copy: Copy) -> None:
    assert copy.check("check").status == 0


def test_every_rule_of_contract_check_about_a_live_contract_has_a_mutation() -> None:
    # The other rules are about retired releases and about the records of releases.
    elsewhere = {rule for rule in OWN_RULES if rule.endswith(("_REUSED", "_NOT_RESERVED"))}
    elsewhere |= {"RELEASED_IMAGE_CHANGED", "RELEASE_NOT_RECORDED"}
    assert OWN_RULES.keys() - elsewhere <= {mutation.rule for mutation in BREAKING}


def test_every_mutation_has_specific_advice() -> None:
    general = advice("A_RULE_THAT_DOES_NOT_EXIST")
    assert [mutation.name for mutation in BREAKING if advice(mutation.rule or "") == general] == []


def test_make_contract_runs_this_command() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\ncontract: ")[2].partition("\n\n")[0]
    assert "$(BIN)/contract-check check\n" in recipe


def test_bufs_strictest_rules_are_enabled_without_exceptions() -> None:
    lines = (ROOT / "buf.yaml").read_text().partition("\nbreaking:\n")[2].splitlines()
    assert [line.strip() for line in lines if "#" not in line] == ["use:", "- FILE"]


def test_a_violation_is_reported_with_its_line_in_the_source(copy: Copy) -> None:
    field = "message UserId {\n  // The user.\n  uint32 user_id = 1" + RANGE
    copy.edit(field, field.replace("4294967295", "9"))
    lines = (copy.contracts / CREDIT).read_text().splitlines()
    line = lines.index("message UserId {") + 3
    assert f"contracts/{CREDIT}:{line}:3: REQUEST_CONSTRAINT_TIGHTENED" in copy.check("check").said


def test_several_violations_are_reported_at_once(copy: Copy) -> None:
    copy.edit("rpc AddCredits(", "rpc GrantCredits(")
    copy.edit("  uint32 balance = 2;\n", "")
    assert {"RPC_NO_DELETE", "FIELD_NO_DELETE"} <= copy.check("check").rules


def test_a_reserved_number_cannot_be_released(copy: Copy, tmp_path: Path) -> None:
    copy.edit("message Empty {}", 'message Empty {\n  reserved 1;\n  reserved "old";\n}')
    image = tmp_path / "reserved.binpb"
    image.write_bytes(build_image(copy.contracts, source_info=False))
    copy.edit('  reserved 1;\n  reserved "old";\n', "  // New.\n  string new = 1;\n")
    outcome = copy.check("check", "--against", str(image))
    assert outcome.status == 1
    assert outcome.rules == {"RESERVED_MESSAGE_NO_DELETE"}


def test_a_call_cannot_change_its_scope(copy: Copy, tmp_path: Path) -> None:
    image = tmp_path / "scoped.binpb"
    image.write_bytes(build_image(copy.contracts, source_info=False))
    assert copy.check("check", "--against", str(image)).status == 0
    copy.edit("= SCOPE_CREDITS_SPEND;", "= SCOPE_CREDITS_ISSUE;")
    outcome = copy.check("check", "--against", str(image))
    assert (outcome.status, outcome.rules) == (1, {"CALL_SAME_SCOPE"})
    assert "required credits:spend and requires credits:issue now" in _in_one_line(outcome.said)


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("items_min: 1", "items_min: 2", "items_min raised from 1 to 2"),
        ("items_max: 1000", "items_max: 999", "items_max lowered from 1000 to 999"),
        ("signed_minimum: -4294967295", "signed_minimum: -9", "minimum raised from -4294967295"),
        ("signed_maximum: 4294967295", "signed_maximum: 9", "maximum lowered from 4294967295"),
        ("      length_max: 64\n      text", "      length_max: 9\n      text", "keys: length_max"),
        ("values: {length_max: 256}", "values: {length_max: 9}", "values: length_max lowered"),
    ],
)
def test_a_constraint_of_a_request_cannot_become_stricter(
    copy: Copy, tmp_path: Path, old: str, new: str, difference: str
) -> None:
    image = tmp_path / "before.binpb"
    image.write_bytes(build_image(copy.contracts, source_info=False))
    name = "transfer" if "length_max" in old else "correction" if "signed" in old else "ledger"
    copy.edit(old, new, file=f"credit/v1/{name}.proto")
    outcome = copy.check("check", "--against", str(image))
    assert (outcome.status, outcome.rules) == (1, {"REQUEST_CONSTRAINT_TIGHTENED"})
    assert difference in _in_one_line(outcome.said)


def test_a_call_with_operations_may_gain_the_reasons_of_a_new_call(
    copy: Copy, tmp_path: Path
) -> None:
    image = tmp_path / "before.binpb"
    image.write_bytes(build_image(copy.contracts, source_info=False))
    frozen = "    option (errors) = ERROR_REASON_FROZEN;\n"
    aborted = "    option (errors) = ERROR_REASON_BATCH_ABORTED;\n"
    copy.edit(LAST_REASON, LAST_REASON.removesuffix("}\n") + NEW_REASON, file=REASONS)
    copy.edit(aborted, frozen + aborted, file=LEDGER)
    void = "  // Takes back what is left of one grant, and ends it."
    copy.edit(void, NEW_CALL % "FROZEN" + void, file=LEDGER)
    assert copy.check("check", "--against", str(image)).said == ""
    # A call without operations cannot gain it, because installed SDKs make this call.
    empty = (
        "    option (errors) = ERROR_REASON_GRANT_EMPTY;\n    option (errors) = ERROR_REASON_REV"
    )
    copy.edit(empty, frozen + empty, file=LEDGER)
    outcome = copy.check("check", "--against", str(image))
    assert (outcome.status, outcome.rules) == (1, {"ERROR_ADDED_UNKNOWN"})
    assert 'Call "VoidGrant"' in outcome.said


def test_an_image_without_rules_on_characters_accepts_any(copy: Copy, tmp_path: Path) -> None:
    path = copy.contracts / OPTIONS
    text = path.read_text()
    begin = text.index("\n  // Which characters a string may hold. An empty")
    end = text.index("// How the server sends one reason for an error.")
    path.write_text(text[:begin] + "}\n\n" + text[end:])
    # The copy has no rules on items either, so it must not contain the files that use them.
    unreleased = {path: path.read_bytes() for path in copy.unreleased()}
    for later in unreleased:
        later.unlink()
    credit = copy.contracts / CREDIT
    ruled = credit.read_text()
    credit.write_text(re.sub(r" *text: TEXT_[A-Z]+\n", "", ruled))
    image = tmp_path / "older.binpb"
    image.write_bytes(build_image(copy.contracts, source_info=False))
    path.write_text(text)
    credit.write_text(ruled)
    for later, data in unreleased.items():
        later.write_bytes(data)
    outcome = copy.check("check", "--against", str(image))
    assert (outcome.status, outcome.rules) == (1, {"REQUEST_CONSTRAINT_TIGHTENED"})
    assert (
        'Field "report_name" of message "PurchaseRequest": text changed from any to TEXT_NAME.'
        in (_in_one_line(outcome.said))
    )


def test_a_contract_that_does_not_compile_exits_with_status_2(copy: Copy) -> None:
    copy.edit("uint32 balance = 2;", "uint32 balance = 1;")
    outcome = copy.check("check")
    assert outcome.status == 2
    assert "does not compile" in outcome.said
    assert "credit.proto:" in outcome.said


def test_a_file_that_is_not_an_image_exits_with_status_2(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "broken.binpb").write_bytes(b"\xff")
    outcome = copy.check("check", "--against", str(tmp_path / "broken.binpb"))
    assert (outcome.status, "not an image" in outcome.said) == (2, True)


def test_the_command_exits_with_the_status_of_the_check(copy: Copy) -> None:
    assert _status(copy) == 0
    copy.edit("rpc AddCredits(", "rpc GrantCredits(")
    assert _status(copy) == 1


def _status(copy: Copy) -> int:
    command = str(Path(sys.executable).with_name("contract-check"))
    folder = copy.contracts.parent
    return subprocess.run(
        [command, "check"], cwd=folder, check=False, capture_output=True
    ).returncode
