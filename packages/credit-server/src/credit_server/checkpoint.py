"""Write a checkpoint: the heads of an app's users, and the operator's signature of all of them.

The heads are read page by page, and written into a file and into the store, from which a server
returns the checkpoint. The file covers every entry that was acknowledged before the first
read, and some that were written during the reads. Its time is the time of the store's clock before
the first read, because the clock of the machine that writes the file can be wrong.
"""

import json
import math
import os
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TextIO

import structlog
from credit_models.checkpoint import Checkpoint
from credit_models.merkle import MerkleTree
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from credit_server.access import FileUnusable
from credit_server.api.tiles import TileWriter
from credit_server.store.checkpoints import StoredCheckpoint
from credit_server.store.port import Store, StoreError

log = structlog.get_logger("credit_server")

# The number of accounts in one read of the store.
PAGE_SIZE = 1000


async def write_checkpoint(
    store: Store, app_id: int, *, key: Path, file: Path, page_size: int = PAGE_SIZE
) -> Checkpoint:
    """Write the checkpoint of an app into a file and into the store.

    The file gets its name when it is complete, then the checkpoint is stored: what servers return
    is also in a file.

    Args:
        store: The store.
        app_id: The app.
        key: The file with the operator's private key: Ed25519, in PEM, without a password.
        file: The file to write.
        page_size: The number of accounts, of all apps, in one read.

    Returns:
        The content that was signed.

    Raises:
        FileUnusable: The key cannot be used, or the file exists or cannot be written.
        StoreError: The store cannot be read or written. If the file exists, it is complete and
            valid.
    """
    private_key = _private_key(key)
    with _new_file(file) as stream:
        checkpoint = await _write_heads(store, app_id, stream, page_size)
        signature = private_key.sign(checkpoint.text.encode())
        public_key = private_key.public_key().public_bytes_raw()
        note = checkpoint.signed(signature, public_key)
        _write_line(stream, {"checkpoint": note})
    await _publish(store, StoredCheckpoint(app_id, checkpoint.time, checkpoint.size, note), file)
    return checkpoint


async def _publish(store: Store, checkpoint: StoredCheckpoint, file: Path) -> None:
    """Store a checkpoint, and remove what is kept no longer."""
    try:
        await store.checkpoints.add(checkpoint)
    except StoreError:
        log.warning(
            "the file of the checkpoint is complete and valid, but servers may not return the"
            " checkpoint: make another one when the store can be written",
            file=str(file),
        )
        raise
    try:
        await store.checkpoints.prune(checkpoint.app_id)
    except StoreError as error:
        log.warning(
            "earlier checkpoints were not removed: the next run removes them", reason=str(error)
        )


@contextmanager
def _new_file(path: Path) -> Iterator[TextIO]:
    """Open a new file for writing. It gets its name when it is complete."""
    partial = path.with_name(f"{path.name}.part")
    try:
        if path.exists():
            raise FileUnusable(f"the checkpoint {path} exists: name a file that does not exist")
        with partial.open("w", encoding="utf-8") as stream:
            try:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise FileUnusable(f"the checkpoint {path} cannot be written: {error.strerror}") from error


async def _write_heads(store: Store, app_id: int, stream: TextIO, page_size: int) -> Checkpoint:
    reading, tree, tiles = await store.ping(), MerkleTree(), TileWriter()
    # What was acknowledged before the store was asked for its time is in the heads.
    time = _truncated(reading.store_earliest(reading.asked_at))
    async for page in store.heads(app_id, page_size=page_size):
        for user_id, head in page:
            tree.add(user_id, head)
            tiles.add(user_id, head)
            _write_line(stream, {"user_id": user_id, "hash": b64encode(head).decode()})
        await store.checkpoints.add_tiles(app_id, time, tiles.take())
    tiles.end()
    await store.checkpoints.add_tiles(app_id, time, tiles.take())
    return Checkpoint(app_id=app_id, size=tree.size, root=tree.root(), time=time)


def _truncated(seconds: float) -> datetime:
    """Return a time since 1970 in whole milliseconds."""
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=math.floor(seconds * 1000))


def _write_line(stream: TextIO, record: dict[str, object]) -> None:
    stream.write(json.dumps(record) + "\n")


def _private_key(path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise FileUnusable(f"the key {path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError):
        raise FileUnusable(
            f"the key {path} is not a private key in PEM without a password"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise FileUnusable(f"the key {path} is not an Ed25519 key")
    return key
