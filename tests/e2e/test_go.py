"""Run the page's client in Go against a server with TLS and a token."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from credit_server.development.token import make_keys
from credit_testing.certificates import Authority
from credit_testing.pages import blocks
from credit_testing.server import PATIENT, migrated

from tests.conftest import StartServer
from tests.e2e.tokens import token, token_options

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "other-languages.md").read_text().partition("\n## Go\n")[2]
MODULE = "example.com/shop"
PROGRAMS = ["go", "protoc-gen-go", "protoc-gen-go-grpc"]
DEBIAN = Path("/usr/share/gocode")
"""Where Debian's packages put the sources of Go libraries. They contain no modules."""


async def test_the_go_program_of_the_page_prints_what_it_shows(
    mongod_uri: str, database: str, tmp_path: Path, credit_server_process: StartServer
) -> None:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing or not (DEBIAN / "src" / "google.golang.org" / "grpc").exists():
        pytest.skip("`make go-tools` installs what is missing, on Debian: Go and its gRPC packages")

    project = tmp_path / "src" / MODULE
    private, public = make_keys(tmp_path / "keys")
    project.mkdir(parents=True)
    authority = Authority(folder=project / ".credit-keys")
    issued = authority.issue("localhost")
    server = await credit_server_process(
        *await migrated(mongod_uri, database),
        *PATIENT,
        *("--tls-certificate", str(issued.certificate), "--tls-key", str(issued.key)),
        *token_options(public),
    )
    (project / "buf.gen.yaml").write_text(blocks(PAGE, "yaml")[0])
    program = blocks(PAGE, "go")[0]
    (project / "main.go").write_text(program.replace("localhost:50051", f"localhost:{server.port}"))
    (project / "contracts").symlink_to(ROOT / "contracts")

    variables = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),  # for buf
        "GO111MODULE": "off",
        "GOPATH": f"{tmp_path}:{DEBIAN}",
        "GOCACHE": str(Path(sys.prefix) / "go-cache"),  # the first build takes 30 s of CPU
        "CGO_ENABLED": "0",
        "GOGC": "400",  # a fifth less CPU than with the default
        "CREDIT_TOKEN": token(private, "shop", app=1, actor=7),
    }
    for command in ("buf generate", f"go build -o shop {MODULE}", "./shop"):
        done = await asyncio.to_thread(
            subprocess.run,
            command.split(),
            cwd=project,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == blocks(PAGE, "text")[0]
