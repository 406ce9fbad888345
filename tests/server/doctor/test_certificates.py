"""Certificates that would make a server unreachable, today or soon, or easy to impersonate."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from credit_server.doctor.certificates import check_certificate, check_client_authority
from credit_server.doctor.finding import Finding, Verdict
from credit_testing.certificates import private_key, private_pem
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.server.doctor.papers import NOW, certificate, written

OK, WARNING, FAILS = Verdict.OK, Verdict.WARNING, Verdict.FAILS
DAY = timedelta(days=1)
KEY = private_key()


def _check(folder: Path, content: bytes, key: bytes | None = None) -> list[Finding]:
    chain = written(folder / "server.pem", content, 0o644)
    own = written(folder / "server.key", private_pem(KEY) if key is None else key)
    return check_certificate(chain, own, now=NOW)


def _verdicts(findings: list[Finding]) -> list[Verdict]:
    return [finding.verdict for finding in findings]


def test_a_good_pair_is_ok_and_its_end_is_told(tmp_path: Path) -> None:
    findings = _check(tmp_path, certificate(KEY))
    assert _verdicts(findings) == [OK, OK]
    assert "2026-08-30" in findings[0].found


@pytest.mark.parametrize(
    ("ends", "verdict", "says"),
    [
        (NOW + 15 * DAY, OK, "valid until"),
        (NOW + 13 * DAY, WARNING, "ends in 13 days"),
        (NOW, FAILS, "ended 2026-06-01"),
    ],
)
def test_a_certificate_lasts(ends: datetime, verdict: Verdict, says: str, tmp_path: Path) -> None:
    first = _check(tmp_path, certificate(KEY, begins=NOW - 9 * DAY, ends=ends))[0]
    assert first.verdict is verdict
    assert says in first.found


def test_a_certificate_of_tomorrow_fails(tmp_path: Path) -> None:
    first = _check(tmp_path, certificate(KEY, begins=NOW + DAY))[0]
    assert first.verdict is FAILS
    assert "not valid before 2026-06-02" in first.found


def test_an_end_further_up_the_chain_counts(tmp_path: Path) -> None:
    issuer = certificate(private_key(), begins=NOW - 9 * DAY, ends=NOW - DAY, authority=True)
    assert _check(tmp_path, certificate(KEY) + issuer)[0].verdict is FAILS


def test_a_certificate_without_names_fails(tmp_path: Path) -> None:
    first = _check(tmp_path, certificate(KEY, names=()))[0]
    assert first.verdict is FAILS
    assert "subject alternative name" in first.found


def test_a_short_rsa_key_fails(tmp_path: Path) -> None:
    weak = rsa.generate_private_key(65537, 1024)
    findings = _check(tmp_path, certificate(weak), private_pem(weak))
    assert _verdicts(findings) == [FAILS, OK]
    assert "RSA of 1024 bits" in findings[0].found


def test_a_key_of_another_certificate_fails(tmp_path: Path) -> None:
    last = _check(tmp_path, certificate(KEY), private_pem(private_key()))[-1]
    assert last.verdict is FAILS
    assert "not the key of the certificate" in last.found


def test_a_key_that_others_can_read_is_a_warning(tmp_path: Path) -> None:
    chain = written(tmp_path / "server.pem", certificate(KEY), 0o644)
    key = written(tmp_path / "server.key", private_pem(KEY), 0o640)
    last = check_certificate(chain, key, now=NOW)[-1]
    assert last.verdict is WARNING
    assert last.remedy == f"run: chmod 600 {key}"


def test_an_encrypted_key_is_not_looked_into(tmp_path: Path) -> None:
    last = _check(tmp_path, certificate(KEY), private_pem(KEY, b"a passphrase"))[-1]
    assert last.verdict is OK
    assert "not looked into" in last.found


@pytest.mark.parametrize("content", [b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_files_without_pem_fail(content: bytes, tmp_path: Path) -> None:
    assert _verdicts(_check(tmp_path, content)) == [FAILS]
    assert _check(tmp_path, certificate(KEY), content)[-1].verdict is FAILS


def test_files_that_are_not_there_fail(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    chain = written(tmp_path / "server.pem", certificate(KEY))
    assert _verdicts(check_certificate(missing, missing, now=NOW)) == [FAILS]
    assert check_certificate(chain, missing, now=NOW)[-1].verdict is FAILS


def test_an_authority_of_clients_is_ok(tmp_path: Path) -> None:
    path = written(tmp_path / "ca.pem", certificate(KEY, authority=True))
    assert _verdicts(check_client_authority(path, now=NOW)) == [OK]


def test_a_certificate_that_issues_nothing_is_no_authority(tmp_path: Path) -> None:
    path = written(tmp_path / "ca.pem", certificate(KEY))
    (finding,) = check_client_authority(path, now=NOW)
    assert finding.verdict is FAILS
    assert "not a certificate authority" in finding.found


def test_an_authority_that_has_ended_fails(tmp_path: Path) -> None:
    old = certificate(KEY, begins=NOW - 9 * DAY, ends=NOW - DAY, authority=True)
    assert check_client_authority(written(tmp_path / "ca.pem", old), now=NOW)[0].verdict is FAILS
