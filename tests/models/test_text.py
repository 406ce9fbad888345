"""What looks alike or looks like nothing is no key, id or name."""

import unicodedata

import pytest
from credit_models import CreditRequest, Purchase, PurchaseRequest
from credit_models.constraints import constraints_of, violations
from credit_models.text import Text, text_check
from hypothesis import given
from hypothesis import strategies as st

ENDS = "must not begin or end with white space"
NFC = "must be in Unicode's normalization form C (NFC)"
NO_TEXT = "must be valid Unicode text"
INVISIBLE = "must hold a visible character"


def without(character: str) -> str:
    return f"must not hold the character U+{ord(character):04X}"


def verdict(rule: Text, value: str) -> str | None:
    check = text_check(rule)
    assert check is not None
    return check(value)


@pytest.mark.parametrize("rule", [Text.IDENTIFIER, Text.NAME])
@pytest.mark.parametrize(
    "value",
    [
        "",
        "order-4711",
        "Report 7",
        "a  b",
        "Bestellung-äöü",
        "заказ-7",
        "注文-7",
        "주문",
        "طلب",
        "नमस्ते",
        "😀",
        "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    ],
)
def test_what_can_be_told_apart_is_valid(rule: Text, value: str) -> None:
    assert verdict(rule, value) is None


# Each was seen to add the same order's credits again, or to name a purchase with nothing.
@pytest.mark.parametrize(
    ("value", "identifier", "name"),
    [
        ("order-7\r", ENDS, ENDS),
        ("order-7\n", ENDS, ENDS),
        (" order-7", ENDS, ENDS),
        ("order-7\u00a0", ENDS, ENDS),
        ("\u3000order-7", ENDS, ENDS),
        ("order\u00a07", without("\u00a0"), None),
        ("order\t7", without("\t"), without("\t")),
        ("order\x007", without("\0"), without("\0")),
        ("order\x7f7", without("\x7f"), without("\x7f")),
        ("order\x857", without("\x85"), without("\x85")),
        ("order\u20287", without("\u2028"), without("\u2028")),
        ("order\u20297", without("\u2029"), without("\u2029")),
        ("order\u200b7", without("\u200b"), None),
        ("\u200border", without("\u200b"), None),
        ("order\u20607", without("\u2060"), None),
        ("order\u00ad7", without("\u00ad"), None),
        ("order\u202e7", without("\u202e"), None),
        ("order\ufe0f", without("\ufe0f"), None),
        ("order\U000e0020", without("\U000e0020"), None),
        ("order\U000e0fff", without("\U000e0fff"), None),  # not assigned, and never visible
        ("order\u2065", without("\u2065"), None),  # not assigned, and never visible
        ("order\u06dd", without("\u06dd"), None),  # a format character that is seen
        ("order\u115f", without("\u115f"), None),
        ("order\u2800", without("\u2800"), None),
        ("order\u0378", without("\u0378"), None),  # not assigned
        ("order\uffff", without("\uffff"), None),  # never a character
        ("order\udcff", NO_TEXT, NO_TEXT),  # bytes of a shell that are not UTF-8
        ("\ufefforder", without("\ufeff"), "must not begin or end with the character U+FEFF"),
        ("order\ufeff", without("\ufeff"), "must not begin or end with the character U+FEFF"),
        ("or\ufeffder", without("\ufeff"), None),
        ("cafe\u0301", NFC, NFC),
        ("\u212b", NFC, NFC),  # the sign of the angstrom
        ("   ", ENDS, ENDS),
        ("\u00a0", ENDS, ENDS),
        ("\u200b", without("\u200b"), INVISIBLE),
        ("\u2800\u2800", without("\u2800"), INVISIBLE),
        ("\u3164", without("\u3164"), INVISIBLE),
        ("\uffa0", without("\uffa0"), INVISIBLE),
        ("\u115f\u1160", without("\u115f"), INVISIBLE),
        ("\u00ad\u202e\u2060", without("\u00ad"), INVISIBLE),
        ("\U000e0001", without("\U000e0001"), INVISIBLE),
        ("\U0001d159", without("\U0001d159"), INVISIBLE),
    ],
    ids=ascii,
)
def test_what_looks_alike_or_like_nothing_is_refused_with_its_character(
    value: str, identifier: str, name: str | None
) -> None:
    assert verdict(Text.IDENTIFIER, value) == identifier
    assert verdict(Text.NAME, value) == name


@pytest.mark.parametrize(
    "name",
    [
        "👨\u200d👩\u200d👧",  # a family: joined by U+200D
        "❤\ufe0f",  # the emoji form of a heart
        "می\u200cخواهم",  # noqa: RUF001 - Persian: U+200C keeps letters apart
        "क\u094d\u200dष",  # Hindi: U+200D asks for a half form
        "Umsatz\u00a02026",
        "co\u00adoperate",
        "\u0378",  # a character that a later Unicode may have
        "\u0301",
    ],
)
def test_a_name_may_hold_what_scripts_and_emoji_need(name: str) -> None:
    assert verdict(Text.NAME, name) is None


@given(st.text(max_size=8))
def test_an_identifier_is_a_name_and_normalizing_and_trimming_leaves_it_alone(value: str) -> None:
    if verdict(Text.IDENTIFIER, value) is None:
        assert verdict(Text.NAME, value) is None
        assert unicodedata.normalize("NFC", value.strip()) == value
        assert value.isprintable() or any(map(_is_private, value))


def _is_private(character: str) -> bool:
    return unicodedata.category(character) == "Co"


def test_no_format_control_or_unassigned_character_and_no_blank_is_in_an_identifier() -> None:
    for code in range(0x110000):
        character = chr(code)
        category = unicodedata.category(character)
        blank = character.isspace() and character != " "
        if blank or category in {"Cc", "Cf", "Cn", "Zl", "Zp"}:
            assert verdict(Text.IDENTIFIER, f"a{character}b") == without(character)


def test_any_string_is_valid_where_the_contract_has_no_rule() -> None:
    assert text_check(Text.UNSPECIFIED) is None


def test_the_contract_has_rules_for_what_clients_send_and_none_for_what_was_written_before() -> (
    None
):
    def rules(message_type: type) -> dict[str, Text]:
        found = constraints_of(message_type)
        return {name: found[name].text for name in found if found[name].text}

    assert rules(CreditRequest) == {"idempotency_key": Text.IDENTIFIER}
    assert rules(PurchaseRequest) == {
        "report_id": Text.IDENTIFIER,
        "report_name": Text.NAME,
        "idempotency_key": Text.IDENTIFIER,
    }
    assert rules(Purchase) == {}


def test_each_field_of_a_request_is_named_with_what_it_takes() -> None:
    request = PurchaseRequest(
        user_id=1,
        app_id=1,
        report_id=" ",
        report_name="\u200b",
        credits=1,
        created_by=1,
        idempotency_key="order-7\r",
    )
    assert [(found.field, found.description) for found in violations(request)] == [
        ("report_id", ENDS),
        ("report_name", INVISIBLE),
        ("idempotency_key", ENDS),
    ]
