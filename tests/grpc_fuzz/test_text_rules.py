"""Rules on characters agree with those of the credit contract."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from credit_models import PurchaseRequest
from credit_models.codec import decode
from credit_models.constraints import violations
from credit_models.image import FILE_DESCRIPTOR_SET
from credit_models.text import Text, text_check
from grpc_fuzz.adapters import CustomOptions
from grpc_fuzz.config import read, settings_from
from grpc_fuzz.constraint import TEXT_RULES, Constraint
from grpc_fuzz.engine import samples
from grpc_fuzz.errors import ConfigError, Misuse
from grpc_fuzz.schema import Schema
from grpc_fuzz.strategies import messages, negatives
from grpc_fuzz.strategies.boundary import scalar_values
from grpc_fuzz.strategies.scalars import AWKWARD, CHARACTERS, texts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CONFIG = Path(__file__).parents[2] / "tools/fuzz/grpc-fuzz.toml"
SETTINGS = settings_from(read(CONFIG))
SCHEMA = Schema.from_image(FILE_DESCRIPTOR_SET.SerializeToString(), SETTINGS.adapters)
PURCHASE = SCHEMA.method("/credit.v1.CreditService/UseCredits").input
RULES = {"identifier": Text.IDENTIFIER, "name": Text.NAME}
each_rule = pytest.mark.parametrize("rule", RULES)
quick = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))


def is_valid(rule: str, text: str) -> bool:
    check = text_check(RULES[rule])
    assert check is not None
    return check(text) is None


def test_the_rules_of_the_credit_contract_are_read() -> None:
    found = {field.name: SCHEMA.constraint(field).text for field in PURCHASE.fields}
    assert {name: rule for name, rule in found.items() if rule} == {
        "report_id": "identifier",
        "report_name": "name",
        "idempotency_key": "identifier",
    }


@each_rule
def test_generated_strings_keep_the_rule(rule: str) -> None:
    constraint = Constraint(text=rule, length_min=1, length_max=128)

    @quick
    @given(texts(constraint))
    def keeps_it(text: str) -> None:
        assert is_valid(rule, text)
        assert 1 <= len(text) <= 128

    keeps_it()


@each_rule
@quick
@given(text=st.text(CHARACTERS | st.sampled_from(AWKWARD), max_size=6))
def test_strings_that_keep_the_rule_are_valid_to_the_credit_contract(rule: str, text: str) -> None:
    for tried in (text, TEXT_RULES[rule].repair(text)):
        if TEXT_RULES[rule].holds(tried):
            assert is_valid(rule, tried)


@each_rule
def test_every_violation_breaks_the_rule(rule: str) -> None:
    for wrong in TEXT_RULES[rule].violations:
        assert not TEXT_RULES[rule].holds(wrong), ascii(wrong)
        assert not is_valid(rule, wrong), ascii(wrong)


@each_rule
def test_boundary_values_keep_the_rule(rule: str) -> None:
    (field,) = [field for field in PURCHASE.fields if field.name == "report_id"]
    for value in scalar_values(field, Constraint(text=rule, length_min=1, length_max=128)):
        assert isinstance(value, str)
        assert is_valid(rule, value)


def test_generated_purchases_are_valid_to_the_credit_contract() -> None:
    for message in samples(messages(SCHEMA, PURCHASE), 3, 60):
        assert violations(decode(PurchaseRequest, message.SerializeToString())) == ()


def test_each_rule_on_characters_is_broken() -> None:
    found = {
        negative.broken.field: negative
        for negative in negatives(SCHEMA, PURCHASE)
        if negative.broken.rule == "text"
    }
    assert set(found) == {"report_id", "report_name", "idempotency_key"}
    for name, negative in found.items():
        rule = "name" if name == "report_name" else "identifier"
        for message in samples(negative.strategy, 5, 12):
            assert not is_valid(rule, getattr(message, name))


def test_a_rule_that_does_not_exist_is_a_configuration_error() -> None:
    custom: dict[str, Any] = {
        "fields": {"extension": "x", "map": {"text": "text"}, "texts": {"TEXT_KEY": "slug"}}
    }
    with pytest.raises(ConfigError, match="the rules are identifier, name"):
        settings_from({"target": "localhost:1", "adapters": {"custom_options": [custom]}})


def test_a_value_without_a_rule_is_misuse() -> None:
    (custom,) = [adapter for adapter in SETTINGS.adapters if isinstance(adapter, CustomOptions)]
    assert custom.field_options is not None
    partial = replace(
        custom, field_options=replace(custom.field_options, texts={"TEXT_NAME": "name"})
    )
    schema = Schema.from_image(FILE_DESCRIPTOR_SET.SerializeToString(), [partial])
    with pytest.raises(Misuse, match="TEXT_IDENTIFIER"):
        [schema.constraint(field) for field in PURCHASE.fields]
