"""What the keys file may say; for everything else an error that names file and line."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from otel_cost_logger.keys.entries import KeysFileError, TenantKey, checked_amount, hash_key, parse_keys
from otel_cost_logger.moments import parse_moment

PATH = Path("somewhere/keys.json")
DIGEST = "a" * 64
OTHER = "b" * 64


def entry(**fields: Any) -> dict[str, Any]:
    return {"sha256": DIGEST, "tenant": "tenant-acme", **fields}


def parse(*entries: object, **document: Any) -> dict[str, TenantKey]:
    return parse_keys(json.dumps({"version": 2, "keys": list(entries), **document}, indent=2), PATH)


def test_a_file_of_version_1_means_what_it_meant() -> None:
    text = json.dumps({"version": 1, "keys": [{"sha256": DIGEST, "tenant": "t", "alias": "ci"}]})
    assert parse_keys(text, PATH) == {DIGEST: TenantKey(DIGEST, "t", "ci")}
    assert parse_keys('{"keys": []}', PATH) == {}


def test_an_entry_may_have_models_limits_and_a_budget() -> None:
    found = parse(
        entry(
            alias="ci",
            models=["mistral-7b"],
            expires="2026-12-31T01:00:00+01:00",
            budget_usd={"day": 0.1, "month": 100},
        )
    )[DIGEST]
    assert (found.alias, found.models, found.expires) == ("ci", ("mistral-7b",), datetime(2026, 12, 31, tzinfo=UTC))
    assert found.budget_usd == {"day": Decimal("0.1"), "month": Decimal(100)}  # exact: no float comes between
    assert found.revoked is None


def test_state_is_a_question_of_time() -> None:
    now = datetime(2026, 12, 31, tzinfo=UTC)
    expiring = TenantKey(DIGEST, "t", "t", expires=now)
    assert [expiring.state(now - timedelta(seconds=1)), expiring.state(now)] == ["active", "expired"]
    assert TenantKey(DIGEST, "t", "t", expires=now, revoked=now).state(now) == "revoked"


@pytest.mark.parametrize(
    ("wrong", "line", "complaint"),
    [
        (
            {"budget_usd": {"day": 1, "month": -5}},
            9,
            "a positive number of US dollars, at most 1,000,000,000; found -5",
        ),
        ({"budget_usd": {"day": float("nan")}}, 8, "found NaN"),
        ({"budget_usd": {"day": float("inf")}}, 8, "found Infinity"),
        ({"budget_usd": {"day": 0}}, 8, "positive"),
        ({"budget_usd": {"day": 1e300}}, 8, "at most 1,000,000,000"),
        ({"budget_usd": {"day": "5"}}, 8, "found '5'"),
        ({"budget_usd": {"day": True}}, 8, "found True"),
        ({"budget_usd": {"day": 0.1234567}}, 8, "at most 6 decimal places"),
        ({"budget_usd": {"week": 5}}, 8, 'unknown period "week"; known are day, month'),
        ({"budget_usd": 5}, 7, '"budget_usd" must be an object such as'),
        ({"expire": "2026-12-31"}, 7, 'unknown field "expire"; known are sha256, tenant, alias, models, expires'),
        ({"expires": "tomorrow"}, 7, "must be a time in UTC such as"),
        ({"expires": "2026-02-30"}, 7, "must be a time in UTC such as"),
        ({"expires": 1_800_000_000}, 7, "must be a time in UTC such as"),
        ({"revoked": True}, 7, '"revoked" must be a time in UTC'),
        ({"models": "mistral-7b"}, 7, "must be a list of model names"),
        ({"models": []}, 7, "leave it out where the key may ask for all"),
        ({"models": ["mistral-7b", 7]}, 9, "a model's name must be a text"),
        ({"alias": 7}, 7, '"alias" must be a text'),
        ({"alias": "x" * 257}, 7, "1 to 256 characters"),
        ({"tenant": " acme"}, 6, "without spaces around it"),
        ({"tenant": "a\x00b"}, 6, "control characters"),
        ({"tenant": None}, 4, '"tenant" must be there'),
        ({"sha256": "abc"}, 5, "64 lower-case hexadecimal digits"),
        ({"sha256": DIGEST.upper()}, 5, "64 lower-case hexadecimal digits"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(wrong: dict[str, Any], line: int, complaint: str) -> None:
    with pytest.raises(KeysFileError) as raised:
        parse(entry(**wrong))
    assert str(raised.value).startswith(f"keys file {PATH}, line {line}: ")
    assert complaint in str(raised.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1: not valid JSON"),
        ('{"keys": [\n  {"sha256": \n]}', "line 3: not valid JSON"),
        ("[]", "line 1: expected an object"),
        ("null", "line 1: expected an object"),
        ('{\n"version": 2}', 'line 1: expected an object with a list under "keys"'),
        ('{\n"keys": {}}', 'line 2: expected an object with a list under "keys"'),
        ('{"keys": [\n1]}', 'line 2: expected an object with "sha256"'),
        ('{"version": 3,\n"keys": []}', 'line 1: "version" is 3; this plugin reads 2'),
        ('{"version": "1", "keys": []}', "\"version\" is '1'"),
        ('{"keys": [],\n"key": []}', 'line 2: unknown field "key"'),
        ('{"keys": [],\n"keys": []}', 'line 2: "keys" stands there twice'),
        (
            f'{{"keys": [{{"sha256": "{DIGEST}",\n"tenant": "a",\n"tenant": "b"}}]}}',
            'line 3: "tenant" stands there twice',
        ),
        (
            f'{{"keys": [{{"sha256": "{DIGEST}", "tenant": "a"}},\n{{"sha256": "{DIGEST}", "tenant": "b"}}]}}',
            "line 2: the same key stands there twice",
        ),
        ("[" * 100_000, "nested without end"),
        ('{"version": %s}' % ("9" * 5000), "cannot be read"),
        ("NaN", "line 1: expected an object"),
    ],
)
def test_what_is_no_keys_file_says_so(text: str, complaint: str) -> None:
    with pytest.raises(KeysFileError) as raised:
        parse_keys(text, PATH)
    assert f"keys file {PATH}" in str(raised.value)
    assert complaint in str(raised.value)
    assert len(str(raised.value)) < 300


def test_where_yaml_finds_no_line_the_place_is_named() -> None:
    """JSON may hold a DEL character, YAML may not."""
    text = json.dumps({"keys": [entry(tenant="a\x7f")]}, ensure_ascii=False)
    with pytest.raises(KeysFileError, match=r"keys\.json, at keys\.0\.tenant: "):
        parse_keys(text, PATH)


def test_a_moment_is_utc_unless_it_says_otherwise() -> None:
    assert parse_moment("2026-12-31") == datetime(2026, 12, 31, tzinfo=UTC)
    assert parse_moment("2026-12-31T12:00+02:00") == datetime(2026, 12, 31, 10, tzinfo=UTC)
    with pytest.raises(ValueError, match="Invalid isoformat"):
        parse_moment("soon")


def test_every_amount_survives_being_written_as_a_float() -> None:
    for amount in (Decimal("0.000001"), Decimal("999999999.999999"), Decimal("123456789.123456")):
        assert checked_amount(amount) == amount
        assert Decimal(repr(float(amount))) == amount


def test_a_hash_is_one_of_any_text() -> None:
    assert len({hash_key(key) for key in ("", "a", "\ud800", "é")}) == 4
