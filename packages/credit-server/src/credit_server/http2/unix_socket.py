"""The Unix domain socket to listen on: its name in the settings, and its file."""

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

_SCHEME = "unix:"
# `sun_path` of Linux, with its final zero byte; other systems allow less.
_PATH_BYTES_MAX = 107


def socket_path(host: str) -> str | None:
    """Return the path in `unix:path` or `unix:///absolute/path`; None for any other address.

    These are gRPC's own forms: https://github.com/grpc/grpc/blob/master/doc/naming.md.

    Raises:
        ValueError: It has no path, or one that no socket can have.
    """
    if not host.startswith(_SCHEME):
        return None
    path = host.removeprefix(_SCHEME)
    if path.startswith("//"):
        path = path.removeprefix("//")
        if not path.startswith("/"):
            raise ValueError(f"{host} names no absolute path: write unix:path or unix:///path")
    if not path or "\0" in path or len(path.encode()) > _PATH_BYTES_MAX:
        raise ValueError(f"{host} has no path of 1 to {_PATH_BYTES_MAX} bytes without a zero byte")
    return path


def try_socket(path: str) -> None:
    """Check that the server could listen on a socket; no file is created or removed.

    Raises:
        OSError: The server could not listen on it.
    """
    folder = _folder(path)
    if not os.access(folder, os.W_OK | os.X_OK):
        missing = errno.EACCES if folder.exists() else errno.ENOENT
        raise OSError(missing, os.strerror(missing), str(folder))
    _is_stale(path)


class SocketFile:
    """A listening socket and its file.

    The file has the permissions that the process's umask leaves of 0777. Users who may write to it
    may connect: with the usual umask of 022 only its owner, with 007 its group too.

    Attributes:
        socket: The listening socket.
    """

    def __init__(self, path: str, *, backlog: int) -> None:
        """Listen, and replace a socket whose server has ended.

        Raises:
            OSError: Another server listens there (EADDRINUSE), there is a file that is not a socket
                (EEXIST), or no file can be created in the folder.
        """
        self._path = path
        # Without the lock, two servers that start at once could remove each other's new file.
        with _locked(_folder(path)):
            if _is_stale(path):
                Path(path).unlink()
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self.socket.bind(path)
                self.socket.listen(backlog)
                self._identity = _identity(path)
            except BaseException:
                self.socket.close()
                raise

    def remove(self) -> None:
        """Remove the file, unless it belongs to another server by now. It may be called again."""
        with contextlib.suppress(OSError):
            if _identity(self._path) == self._identity:
                Path(self._path).unlink()


def _folder(path: str) -> Path:
    return Path(path).parent


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _is_stale(path: str) -> bool:
    """Return whether there is a socket without a server; False if there is no file.

    Raises:
        OSError: A server listens on it, or it is not a socket.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "there is a file that is no socket", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # The connect would block on a server that listens but whose backlog is full.
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            pass
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other servers that start; the folder itself is locked, not a file."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(
                errno.EADDRINUSE, "another server starts to listen in this folder", str(folder)
            ) from error
        yield
    finally:
        os.close(descriptor)
