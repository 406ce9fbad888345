"""`contract-check release` adds a baseline, and retires one only with a reason and a version."""

import datetime as dt

import pytest
from contract_check.changelog import recorded, with_release
from contract_check.errors import CheckError
from contract_check.image import Image
from contract_check.released import baselines, retired
from contract_check.version import Version

from tests.contract.conftest import Copy
from tests.contract.mutations import USE, add_second_version

FIELD = "  uint32 balance = 2;\n"
RESERVED = '  reserved 2;\n  reserved "balance";\n'
TODAY = dt.date(2030, 1, 2)


def _versions(copy: Copy) -> list[str]:
    return [str(release.version) for release in baselines(copy.contracts)]


def _retired(copy: Copy) -> list[str]:
    return [str(release.version) for release in retired(copy.contracts)]


def _changelog(copy: Copy) -> str:
    return (copy.contracts / "CHANGELOG.md").read_text()


def _add_field(copy: Copy) -> None:
    copy.edit(FIELD, "  uint32 balance = 2;\n\n  // In words.\n  string words = 60;\n")


def test_a_release_is_an_image_and_a_changelog_entry(fresh: Copy) -> None:
    (release,) = baselines(fresh.contracts)
    image = Image(release.path.read_bytes())
    assert "credit.v1.CreditService.AddCredits" in image.methods
    assert image.places == {}
    assert recorded(_changelog(fresh)) == {Version(0, 5, 0)}
    assert fresh.check("check").status == 0


def test_a_compatible_release_keeps_the_earlier_baselines(fresh: Copy) -> None:
    _add_field(fresh)
    assert fresh.check("release", "0.5.1").status == 0
    assert (_versions(fresh), _retired(fresh)) == (["0.5.0", "0.5.1"], [])


def test_a_breaking_release_needs_a_reason_before_1(fresh: Copy) -> None:
    fresh.edit(FIELD, RESERVED)
    refused = fresh.check("release", "0.6.0")
    assert refused.status != 0
    assert "REASON" in refused.said
    assert "FIELD_NO_DELETE" in refused.said
    assert _versions(fresh) == ["0.5.0"]
    assert fresh.check("release", "0.6.0", "--reason", "No client reads it.").status == 0
    assert (_versions(fresh), _retired(fresh)) == (["0.6.0"], ["0.5.0"])
    assert "- Replaces 0.5.0: No client reads it.\n" in _changelog(fresh)
    assert fresh.check("check").status == 0


def test_a_blank_reason_does_not_count(fresh: Copy) -> None:
    fresh.edit(FIELD, RESERVED)
    assert fresh.check("release", "0.6.0", "--reason", "  ").status != 0


def test_a_patch_release_before_1_may_not_break(fresh: Copy) -> None:
    fresh.edit(FIELD, RESERVED)
    refused = fresh.check("release", "0.5.1", "--reason", "No client reads it.")
    assert refused.status != 0
    assert "new minor version" in refused.said


def test_a_reason_does_not_allow_a_break_within_a_major_version(fresh: Copy) -> None:
    _add_field(fresh)
    assert fresh.check("release", "1.0.0").status == 0
    fresh.edit("  string words = 60;", '  reserved 60;\n  reserved "words";')
    refused = fresh.check("release", "1.1.0", "--reason", "No client reads it.")
    assert refused.status != 0
    assert "new major version" in refused.said
    assert _versions(fresh) == ["0.5.0", "1.0.0"]
    assert fresh.check("release", "2.0.0", "--reason", "No client reads it.").status == 0
    # 0.5.0 never had the field, so it is not broken.
    assert (_versions(fresh), _retired(fresh)) == (["0.5.0", "2.0.0"], ["1.0.0"])


@pytest.mark.parametrize(
    ("edited", "rule"),
    [
        ("", "FIELD_NOT_RESERVED"),
        ("  reserved 2;\n", "FIELD_NOT_RESERVED"),
        ('  reserved "balance";\n', "FIELD_NOT_RESERVED"),
        ("  string currency = 2;\n", "FIELD_REUSED"),
        ("  uint32 balance = 60;\n", "FIELD_REUSED"),
        ("  string balance = 2;\n", "FIELD_REUSED"),
    ],
)
def test_a_reason_does_not_allow_a_number_or_name_to_be_reused(
    fresh: Copy, edited: str, rule: str
) -> None:
    fresh.edit(FIELD, edited)
    refused = fresh.check("release", "0.6.0", "--reason", "No client reads it.")
    assert refused.status != 0
    assert refused.rules == {rule}


@pytest.mark.parametrize(
    ("edited", "rule"),
    [
        ("", "ENUM_VALUE_NOT_RESERVED"),
        ("  // Lent.\n  TRANSACTION_TYPE_LOAN = 2;\n", "ENUM_VALUE_REUSED"),
        ("  // Spent.\n  TRANSACTION_TYPE_USE = 70;\n", "ENUM_VALUE_REUSED"),
    ],
)
def test_a_reason_does_not_allow_an_enum_value_to_be_reused(
    fresh: Copy, edited: str, rule: str
) -> None:
    fresh.edit(
        USE,
        edited,
    )
    refused = fresh.check("release", "0.6.0", "--reason", "No client reads it.")
    assert refused.rules == {rule}


def test_an_enum_value_may_be_removed_if_it_is_reserved(fresh: Copy) -> None:
    fresh.edit(
        USE,
        '  reserved 2;\n  reserved "TRANSACTION_TYPE_USE";\n',
    )
    assert fresh.check("release", "0.6.0", "--reason", "No client reads it.").status == 0


def test_numbers_and_names_of_a_retired_release_cannot_be_reused(fresh: Copy) -> None:
    fresh.edit(FIELD, RESERVED)
    fresh.check("release", "0.6.0", "--reason", "No client reads it.")
    # Releasing the number would also break 0.6.0, so the test removes 0.6.0.
    baselines(fresh.contracts)[0].path.unlink()
    fresh.edit(RESERVED, "  string currency = 2;\n")
    assert "FIELD_REUSED" in fresh.check("check").rules


def test_the_rules_apply_to_a_second_version_once_it_is_released(fresh: Copy) -> None:
    add_second_version(fresh)
    assert fresh.check("release", "0.6.0").status == 0
    line = "    option (errors) = ERROR_REASON_BALANCE_OVERFLOW;\n"
    fresh.edit(line, "", file="credit/v2/credit.proto")
    fresh.edit('metadata: ["total"]\n', "", file="credit/v2/error_reason.proto")
    assert fresh.check("check").rules == {"ERROR_NO_DELETE", "REASON_METADATA_NO_DELETE"}


def test_a_reason_without_a_break_exits_with_status_2(fresh: Copy) -> None:
    _add_field(fresh)
    assert fresh.check("release", "0.6.0", "--reason", "For fun.").status == 2
    assert _versions(fresh) == ["0.5.0"]


def test_a_release_without_a_change_is_rejected(fresh: Copy) -> None:
    assert "nothing has changed" in fresh.check("release", "0.5.1").said


def test_a_major_version_needs_no_change(fresh: Copy) -> None:
    assert fresh.check("release", "1.0.0").status == 0
    assert _versions(fresh) == ["0.5.0", "1.0.0"]


@pytest.mark.parametrize("version", ["0.5.0", "0.4.9"])
def test_a_release_must_come_after_all_others(fresh: Copy, version: str) -> None:
    _add_field(fresh)
    assert "does not come after" in fresh.check("release", version).said


@pytest.mark.parametrize("text", ["1", "1.0", "v1.0.0", "01.0.0", "1.0.0-rc1", ""])
def test_an_invalid_version_is_rejected(text: str) -> None:
    with pytest.raises(CheckError, match="is not a version"):
        Version.parse(text)


def test_an_image_without_an_entry_and_an_entry_without_an_image_fail(fresh: Copy) -> None:
    (release,) = baselines(fresh.contracts)
    release.path.rename(release.path.with_name("0.7.0.binpb"))
    outcome = fresh.check("check")
    assert outcome.rules == {"RELEASE_NOT_RECORDED"}
    assert "Version 0.5.0" in outcome.said
    assert "Version 0.7.0" in outcome.said


def test_unreleased_entries_move_to_the_release() -> None:
    text = with_release("## Unreleased\n- New.\n", Version(1, 2, 3), today=TODAY)
    assert text == (
        "## Unreleased\n\n## 1.2.3 - 2030-01-02\n- Breaks no earlier baseline.\n- New.\n"
    )


def test_a_changelog_without_its_heading_is_rejected() -> None:
    with pytest.raises(CheckError, match="Unreleased"):
        with_release("# Changelog\n", Version(1, 2, 3), today=TODAY)
