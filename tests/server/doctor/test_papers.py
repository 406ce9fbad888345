"""The files of TLS, keys and identities: each is looked at, and all are read as a server does."""

from pathlib import Path

from credit_server.doctor.finding import Verdict
from credit_server.doctor.papers import check_papers
from credit_server.settings import ServerSettings
from credit_testing.certificates import private_key, private_pem

from tests.server.doctor.papers import NOW, certificate, public_pem, written

OK, WARNING, FAILS = Verdict.OK, Verdict.WARNING, Verdict.FAILS


def _verdicts(**files: Path | str) -> dict[str, Verdict]:
    settings = ServerSettings.model_validate({"port": 0, **files})
    return {finding.check: finding.verdict for finding in check_papers(settings, now=NOW)}


def _tls(folder: Path, *, password: bytes | None = None) -> dict[str, Path]:
    key = private_key()
    return {
        "tls_certificate": written(folder / "server.pem", certificate(key)),
        "tls_key": written(folder / "server.key", private_pem(key, password)),
    }


def test_each_file_is_looked_at(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    found = _verdicts(
        **_tls(tmp_path),
        tls_client_ca=missing,
        token_keys=missing,
        token_issuer="us",
        token_audience="credit",
        identities_file=written(tmp_path / "identities.json", b"{}"),
    )
    assert found == {
        "TLS certificate": OK,
        "TLS key": OK,
        "TLS client CA": FAILS,
        "token keys": FAILS,
        "identities": OK,
    }


def test_files_that_a_server_reads_are_well(tmp_path: Path) -> None:
    keys = written(tmp_path / "keys.pem", public_pem(private_key()))
    found = _verdicts(**_tls(tmp_path), token_keys=keys, token_issuer="us", token_audience="credit")
    assert set(found.values()) == {OK}


def test_identities_that_no_server_starts_with_fail(tmp_path: Path) -> None:
    ca = written(tmp_path / "ca.pem", certificate(private_key(), authority=True))
    identities = written(tmp_path / "identities.json", b'{"nobody": {"scope": "all"}}')
    found = _verdicts(**_tls(tmp_path), tls_client_ca=ca, identities_file=identities)
    assert found["identities"] is FAILS


def test_a_key_that_its_password_does_not_open_fails(tmp_path: Path) -> None:
    password = written(tmp_path / "password", b"wrong")
    found = _verdicts(**_tls(tmp_path, password=b"right"), tls_key_password_file=password)
    assert found["TLS"] is FAILS


def test_a_password_that_others_can_read_is_told(tmp_path: Path) -> None:
    password = written(tmp_path / "password", b"right", 0o644)
    found = _verdicts(**_tls(tmp_path, password=b"right"), tls_key_password_file=password)
    assert found["TLS key password"] is WARNING
    password.chmod(0o600)
    found = _verdicts(**_tls(tmp_path, password=b"right"), tls_key_password_file=password)
    assert set(found.values()) == {OK}
