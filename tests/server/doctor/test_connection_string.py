"""Connection strings that others on the network could listen to, or use."""

from pathlib import Path

import pytest
from credit_server.doctor.connection_string import check_connection_string
from credit_server.doctor.finding import Verdict

from tests.server.doctor.papers import written


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://127.0.0.1:27017/?replicaSet=rs",
        "mongodb://localhost,127.0.0.1:27018/credit",
        "mongodb://[::1]:27017",
        "mongodb://me:hidden@db1,db2/?tls=true",
        "mongodb://me:hidden@db1,db2/?ssl=TRUE&replicaSet=rs",
        "mongodb://db1/?tls=true&authMechanism=MONGODB-X509",
        "mongodb+srv://me:hidden@cluster.example.org/",
    ],
)
def test_a_safe_one_is_ok(uri: str) -> None:
    assert check_connection_string(uri).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("uri", "missing"),
    [
        ("mongodb://db1:27017/", "no TLS (tls=true) and no user"),
        ("mongodb://db1", "no TLS (tls=true) and no user"),
        ("mongodb://127.0.0.1,db1/", "no TLS (tls=true) and no user"),
        ("mongodb://me:hidden@db1/?replicaSet=rs", "no TLS (tls=true)"),
        ("mongodb://db1/?tls=true", "no user"),
        ("mongodb+srv://cluster.example.org", "no user"),
        ("mongodb+srv://me:hidden@cluster.example.org/?tls=false", "no TLS (tls=true)"),
    ],
)
def test_what_is_missing_off_loopback_is_named(uri: str, missing: str) -> None:
    finding = check_connection_string(uri)
    assert finding.verdict is Verdict.WARNING
    assert finding.found.endswith(f"with {missing}")
    assert "hidden" not in f"{finding.found}{finding.remedy}"


def test_a_file_that_others_can_read_is_told(tmp_path: Path) -> None:
    uri = "mongodb://me:hidden@db1,db2/?tls=true"
    file = written(tmp_path / "uri", uri.encode(), 0o640)
    finding = check_connection_string(uri, file)
    assert finding.verdict is Verdict.WARNING
    assert finding.remedy == f"run: chmod 600 {file}"
    file.chmod(0o600)
    assert check_connection_string(uri, file).verdict is Verdict.OK
