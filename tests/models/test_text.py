"""Keys, ids and names that look alike or are invisible are rejected."""

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
INVISIBLE = "must contain a visible character"


def rejects(character: str) -> str:
    return f"must not contain the character U+{ord(character):04X}"


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
def test_strings_that_people_can_tell_apart_are_valid(rule: Text, value: str) -> None:
    assert verdict(rule, value) is None


# Each of these was observed: it added an order's credits twice or made a purchase's name invisible.
@pytest.mark.parametrize(
    ("value", "identifier", "name"),
    [
        ("order-7\r", ENDS, ENDS),
        ("order-7\n", ENDS, ENDS),
        (" order-7", ENDS, ENDS),
        ("order-7\u00a0", ENDS, ENDS),
        ("\u3000order-7", ENDS, ENDS),
        ("order\u00a07", rejects("\u00a0"), None),
        ("order\t7", rejects("\t"), rejects("\t")),
        ("order\x007", rejects("\0"), rejects("\0")),
        ("order\x7f7", rejects("\x7f"), rejects("\x7f")),
        ("order\x857", rejects("\x85"), rejects("\x85")),
        ("order\u20287", rejects("\u2028"), rejects("\u2028")),
        ("order\u20297", rejects("\u2029"), rejects("\u2029")),
        ("order\u200b7", rejects("\u200b"), None),
        ("\u200border", rejects("\u200b"), None),
        ("order\u20607", rejects("\u2060"), None),
        ("order\u00ad7", rejects("\u00ad"), None),
        ("order\u202e7", rejects("\u202e"), None),
        ("order\ufe0f", rejects("\ufe0f"), None),
        ("order\U000e0020", rejects("\U000e0020"), None),
        ("order\U000e0fff", rejects("\U000e0fff"), None),  # not assigned, and never visible
        ("order\u2065", rejects("\u2065"), None),  # not assigned, and never visible
        ("order\u06dd", rejects("\u06dd"), None),  # a visible format character
        ("order\u115f", rejects("\u115f"), None),
        ("order\u2800", rejects("\u2800"), None),
        ("order\u0378", rejects("\u0378"), None),  # not assigned
        ("order\uffff", rejects("\uffff"), None),  # never a character
        ("order\udcff", NO_TEXT, NO_TEXT),  # bytes from a shell that are not UTF-8
        ("\ufefforder", rejects("\ufeff"), "must not begin or end with the character U+FEFF"),
        ("order\ufeff", rejects("\ufeff"), "must not begin or end with the character U+FEFF"),
        ("or\ufeffder", rejects("\ufeff"), None),
        ("cafe\u0301", NFC, NFC),
        ("\u212b", NFC, NFC),  # the angstrom sign
        ("   ", ENDS, ENDS),
        ("\u00a0", ENDS, ENDS),
        ("\u200b", rejects("\u200b"), INVISIBLE),
        ("\u2800\u2800", rejects("\u2800"), INVISIBLE),
        ("\u3164", rejects("\u3164"), INVISIBLE),
        ("\uffa0", rejects("\uffa0"), INVISIBLE),
        ("\u115f\u1160", rejects("\u115f"), INVISIBLE),
        ("\u00ad\u202e\u2060", rejects("\u00ad"), INVISIBLE),
        ("\U000e0001", rejects("\U000e0001"), INVISIBLE),
        ("\U0001d159", rejects("\U0001d159"), INVISIBLE),
    ],
    ids=ascii,
)
def test_look_alikes_and_invisible_strings_are_rejected_with_the_character(
    value: str, identifier: str, name: str | None
) -> None:
    assert verdict(Text.IDENTIFIER, value) == identifier
    assert verdict(Text.NAME, value) == name


@pytest.mark.parametrize(
    "name",
    [
        "👨\u200d👩\u200d👧",  # a family: joined by U+200D
        "❤\ufe0f",  # the emoji form of a heart
        "می\u200cخواهم",  # noqa: RUF001 - Persian: U+200C separates letters
        "क\u094d\u200dष",  # Hindi: U+200D requests a half form
        "Umsatz\u00a02026",
        "co\u00adoperate",
        "\u0378",  # a character that a later version of Unicode may assign
        "\u0301",
    ],
)
def test_a_name_may_contain_the_characters_that_scripts_and_emoji_need(name: str) -> None:
    assert verdict(Text.NAME, name) is None


@given(st.text(max_size=8))
def test_an_identifier_is_a_valid_name_and_is_normalized_and_trimmed(
    value: str,
) -> None:
    if verdict(Text.IDENTIFIER, value) is None:
        assert verdict(Text.NAME, value) is None
        assert unicodedata.normalize("NFC", value.strip()) == value
        assert value.isprintable() or any(map(_is_private, value))


def _is_private(character: str) -> bool:
    return unicodedata.category(character) == "Co"


def test_an_identifier_rejects_format_control_blank_and_unassigned_characters() -> None:
    for code in range(0x110000):
        character = chr(code)
        category = unicodedata.category(character)
        blank = character.isspace() and character != " "
        if blank or category in {"Cc", "Cf", "Cn", "Zl", "Zp"}:
            assert verdict(Text.IDENTIFIER, f"a{character}b") == rejects(character)


def test_any_string_is_valid_without_a_rule() -> None:
    assert text_check(Text.UNSPECIFIED) is None


def test_the_contract_has_rules_for_requests_and_none_for_stored_data() -> None:
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


def test_each_broken_field_of_a_request_is_reported_with_its_rule() -> None:
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
