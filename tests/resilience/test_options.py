"""The options of `credit-resilience`."""

import pytest
from credit_resilience.attacks import ATTACKS
from credit_resilience.options import parse


def test_all_rows_are_attacked_unless_some_are_named() -> None:
    assert parse([]).attacks == ATTACKS


def test_a_name_and_what_stands_before_the_colon_select_in_the_order_of_the_table() -> None:
    names = [attack.name for attack in parse(["--rows", "idle, rapid-reset,flood:ping"]).attacks]
    assert names == ["rapid-reset", "flood:ping", "idle:one-peer", "idle:many-peers"]


@pytest.mark.parametrize(
    ("option", "value"), [("--rows", "no-such"), ("--seconds", "0"), ("--seconds", "nan")]
)
def test_a_value_of_no_use_is_refused(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse([option, value])
    assert ended.value.code == 2
    assert option in capsys.readouterr().err


def test_whoever_names_a_row_that_there_is_not_is_told_all_that_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parse(["--rows", "rapid-reset,no-such"])
    told = capsys.readouterr().err
    assert "there is no row no-such; there are" in told
    assert not [attack.name for attack in ATTACKS if attack.name not in told]


def test_no_two_rows_have_one_name() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
