"""Reproducers send the same bytes as the case."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from grpc_fuzz.credentials import Credentials
from grpc_fuzz.model import Case, Presented, WireScript, WireStep
from grpc_fuzz.reproduce import reproducers
from grpc_fuzz.settings import Settings
from grpc_fuzz.target import Target, Tls

from tests.grpc_fuzz.contracts import features_schema, image_of
from tests.grpc_fuzz.http2_server import Http2Server

SCHEMA = features_schema()
ONE = SCHEMA.method("/features.v1.Features/One")
REQUEST = SCHEMA.message_class(ONE.input)(
    an_int32=-5, a_string='it\'s "ü" and \x00', some_bytes=b"\xff", number=0
).SerializeToString(deterministic=True)


def reproducers_of(settings: Settings, *requests: bytes) -> dict[str, str]:
    case = Case(method=ONE, phase="fuzzing", positive=True, requests=requests or (REQUEST,))
    return reproducers(case, SCHEMA, settings)


def settings_for(port: int, image: Path | None = None) -> Settings:
    return Settings(
        target=Target(host="127.0.0.1", port=port), image=image, metadata=(("x-me", "it is"),)
    )


def test_the_python_script_sends_the_same_bytes() -> None:
    received = []

    def answer(path: str, data: bytes) -> list[bytes]:
        received.append((path, data))
        return [b""]

    with Http2Server(answer).running() as port:
        snippet = reproducers_of(settings_for(port))["python"]
        subprocess.run([sys.executable, "-c", snippet], check=True, capture_output=True)

    assert received == [(ONE.path, REQUEST)]


@pytest.mark.parametrize("presented", ["valid", "missing", "expired", "forged"])
def test_reproducers_read_tokens_from_variables(presented: Presented, tmp_path: Path) -> None:
    image = tmp_path / "features.binpb"
    image.write_bytes(image_of("features.proto"))
    credentials = Credentials(token="s3cret", expired="0ld")
    case = Case(
        method=ONE, phase="fuzzing", positive=True, requests=(REQUEST,), presented=presented
    )
    received: list[str | None] = []

    def admit(path: str, authorization: str | None) -> None:
        received.append(authorization)

    with Http2Server(lambda path, data: [b""], admit=admit).running() as port:
        settings = replace(settings_for(port, image), credentials=credentials)
        ways = reproducers(case, SCHEMA, settings)
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TOKEN": "s3cret",
            "EXPIRED_TOKEN": "0ld",
        }
        for command in (
            [sys.executable, "-c", ways["python"]],
            ["/bin/sh", "-c", ways["buf curl"]],
        ):
            subprocess.run(command, check=True, capture_output=True, env=environment)

    proof = credentials.metadata(presented)
    assert received == [proof[0][1] if proof else None] * 2
    assert not {"s3cret", "0ld"} & {*re.findall(r"[A-Za-z0-9]+", str(ways))}


def test_the_buf_curl_command_sends_the_same_bytes(tmp_path: Path) -> None:
    buf = str(Path(sys.executable).parent / "buf")
    image = tmp_path / "features.binpb"
    image.write_bytes(image_of("features.proto"))
    received = []

    def answer(path: str, data: bytes) -> list[bytes]:
        received.append((path, data))
        return [b""]

    with Http2Server(answer).running() as port:
        line = reproducers_of(settings_for(port, image))["buf curl"]
        subprocess.run(["/bin/sh", "-c", line.replace("buf", buf, 1)], check=True)

    assert [path for path, _ in received] == [ONE.path]
    assert SCHEMA.parse(ONE.input, received[0][1]) == SCHEMA.parse(ONE.input, REQUEST)


def test_there_is_no_buf_curl_command_if_json_cannot_express_the_request() -> None:
    for request in (b"\xff", REQUEST + b"\xc0\x3e\x01", b"\x18\x00"):
        assert reproducers_of(settings_for(1), request).keys() == {"python", "bytes"}


def test_the_bytes_are_those_of_the_grpc_frame() -> None:
    assert reproducers_of(settings_for(1), b"\x18\x05")["bytes"] == "00000000021805"


def test_the_buf_curl_command_includes_the_tls_files() -> None:
    tls = Tls(ca=Path("ca.pem"), certificate=Path("me.pem"), key=Path("me.key"), server_name="shop")
    line = reproducers_of(Settings(target=Target(host="::1", port=443, tls=tls)))["buf curl"]

    here = Path.cwd()
    files = f"--cacert {here}/ca.pem --cert {here}/me.pem --key {here}/me.key"
    assert f"{files} --servername shop" in line
    assert f"https://[::1]:443{ONE.path}" in line


def test_a_wire_case_is_printed_step_by_step() -> None:
    script = WireScript(
        steps=(
            WireStep(action="headers", headers=((b":path", b"/x"),)),
            WireStep(action="data", payload=b"\0\1", end_stream=True, times=2),
        )
    )
    case = Case(method=ONE, phase="wire", positive=None, requests=(), wire=script)

    assert reproducers(case, SCHEMA, settings_for(1)) == {
        "bytes": "headers b':path': b'/x'\ndata x2 0001 END_STREAM"
    }
