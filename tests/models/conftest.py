"""Builds the test schema, which uses every feature of proto3, and its codec."""

import importlib
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import betterproto2
import pytest
from credit_models.codec import Converters
from credit_models.image import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

SCHEMA = Path(__file__).parent / "schema"
EXECUTABLES = Path(sys.executable).parent
TEMPLATE = """version: v2
plugins:
  - local: protoc-gen-python_betterproto2
    out: everything_generated
    opt:
      - pydantic_dataclasses
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The test schema's generated classes, Google's classes and the codec between them."""

    module: ModuleType
    pool: DescriptorPool
    converters: Converters

    def encode(self, message: betterproto2.Message) -> bytes:
        return self.converters.encode(message)

    # Any: the classes are generated during the test run.
    def decode(self, name: str, data: bytes) -> Any:
        return self.converters.decode(self.ours(name), data)

    def ours(self, name: str) -> Any:
        return getattr(self.module, name)

    def google(self, name: str) -> Any:
        return GetMessageClass(self.pool.FindMessageTypeByName(f"everything.v1.{name}"))


def run_buf(folder: Path, *arguments: str) -> None:
    subprocess.run(
        [EXECUTABLES / "buf", *arguments],
        cwd=folder,
        env={"PATH": f"{EXECUTABLES}:/usr/bin:/bin", "HOME": str(folder)},
        check=True,
        capture_output=True,
    )


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Schema]:
    folder = tmp_path_factory.mktemp("everything")
    (folder / "buf.gen.yaml").write_text(TEMPLATE)
    run_buf(folder, "generate", str(SCHEMA), "--include-imports")
    run_buf(folder, "build", str(SCHEMA), "--as-file-descriptor-set", "-o", "image.binpb")
    files = FileDescriptorSet.FromString((folder / "image.binpb").read_bytes())
    pool = descriptor_pool(files)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        with warnings.catch_warnings():
            # The compiler's check of oneofs uses a function that pydantic 2.12 deprecates.
            warnings.simplefilter("ignore", DeprecationWarning)
            module = importlib.import_module("everything_generated.everything.v1")
        messages = importlib.import_module("everything_generated.message_pool")
        converters = Converters(pool, messages.default_message_pool)
        yield Schema(module=module, pool=pool, converters=converters)
