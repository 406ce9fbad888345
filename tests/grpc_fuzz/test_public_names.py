"""What `import grpc_fuzz` offers, and what it does not cost."""

import subprocess
import sys

import grpc_fuzz
import pytest


@pytest.mark.parametrize("name", grpc_fuzz.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(grpc_fuzz, name).__module__.startswith("grpc_fuzz.")


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="Nothing"):
        grpc_fuzz.Nothing  # noqa: B018


def test_the_plugin_loads_nothing_heavy() -> None:
    script = "import sys, grpc_fuzz.pytest_plugin; print({'hypothesis', 'h2'} & {*sys.modules})"
    # pytest itself is not to blame for what its other plugins load: they are not loaded here.
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "set()"
