"""The public names of grpc_fuzz, and what the pytest plugin loads."""

import subprocess
import sys

import grpc_fuzz
import pytest


@pytest.mark.parametrize("name", grpc_fuzz.__all__)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(grpc_fuzz, name).__module__.startswith("grpc_fuzz.")


def test_other_names_do_not_exist() -> None:
    with pytest.raises(AttributeError, match="Nothing"):
        grpc_fuzz.Nothing  # noqa: B018


def test_the_plugin_does_not_load_hypothesis_or_h2() -> None:
    script = "import sys, grpc_fuzz.pytest_plugin; print({'hypothesis', 'h2'} & {*sys.modules})"
    # Without pytest, because its other plugins may load these modules.
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "set()"
