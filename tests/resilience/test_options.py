"""Test the options of `credit-resilience`."""

import pytest
from credit_resilience.attacks import ATTACKS
from credit_resilience.options import parse


def test_all_rows_run_by_default() -> None:
    assert parse([]).attacks == ATTACKS


def test_names_and_groups_select_rows_in_the_order_of_the_table() -> None:
    names = [attack.name for attack in parse(["--rows", "idle, rapid-reset,flood:ping"]).attacks]
    assert names == ["rapid-reset", "flood:ping", "idle:one-peer", "idle:many-peers"]


@pytest.mark.parametrize(
    ("option", "value"), [("--rows", "no-such"), ("--seconds", "0"), ("--seconds", "nan")]
)
def test_an_invalid_value_is_rejected(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse([option, value])
    assert ended.value.code == 2
    assert option in capsys.readouterr().err


def test_the_error_for_an_unknown_row_lists_all_rows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parse(["--rows", "rapid-reset,no-such"])
    error = capsys.readouterr().err
    assert "there is no row no-such; there are" in error
    assert not [attack.name for attack in ATTACKS if attack.name not in error]


def test_row_names_are_unique() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
