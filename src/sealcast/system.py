"""What Sealcast needs of an operating system that Python does not have on each, and what stands in for it.

No other module asks which system it is on, or uses what one of them lacks: tests/architecture, and mypy for
each. docs/platforms.md says what is different where.
"""

from __future__ import annotations

import ctypes
import errno
import getpass
import os
import signal
import socket
import stat
import struct
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sealcast.errors import ConfigError, StorageError

if TYPE_CHECKING:
    import asyncio  # Imported where it is used: most commands need none, and start sooner.
if sys.platform == "win32":
    import msvcrt
else:
    import fcntl
    import pwd
    import resource

Result = TypeVar("Result")

# -- files ----------------------------------------------------------------------------------------------

OTHERS_MAY_READ = 0 if sys.platform == "win32" else 0o077
"""Bits of a mode that a secret's file must not have. Windows has none: what its folder is given decides."""

CAN_RENAME_OPEN_FILES = sys.platform != "win32"
"""Whether a file may be renamed or removed that this process has open."""

_LOCKED_AT = 0x7FFF_FFFE
"""Windows' locks are on bytes, and keep others from reading them: on one that few files have."""

_TRIES_LOCK = (errno.EACCES, errno.EDEADLK)
_NOT_IN_NAMES = frozenset('<>:"|?*\\')
_NO_FILES = {
    "CON",
    "PRN",
    "AUX",
    "NUL",
    *(f"{port}{number}" for port in ("COM", "LPT") for number in range(10)),
}


def open_file(
    path: str | Path, flags: int, mode: int = 0o666, *, follows: bool = True, dir_fd: int | None = None
) -> int:
    """As os.open, for bytes as they are. Not `follows`: no link, and no wait for a pipe. Raises: OSError."""
    if sys.platform == "win32":
        if not follows and Path(path).is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return os.open(path, flags | os.O_BINARY, mode)
    return os.open(path, flags if follows else flags | os.O_NOFOLLOW | os.O_NONBLOCK, mode, dir_fd=dir_fd)


def read_at(descriptor: int, count: int, offset: int) -> bytes:
    """Read where the file's own position is not, and stays. Raises: OSError."""
    if sys.platform == "win32":
        with _moved_to(descriptor, offset):
            return os.read(descriptor, count)
    else:
        return os.pread(descriptor, count, offset)


def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> int:
    """Write where the file's own position is not, and stays. Returns: how many bytes. Raises: OSError."""
    if sys.platform == "win32":
        with _moved_to(descriptor, offset):
            return os.write(descriptor, data)
    else:
        return os.pwrite(descriptor, data, offset)


@contextmanager
def _moved_to(descriptor: int, offset: int) -> Iterator[None]:
    """Not for two threads at once; nobody has one file in two."""
    before = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.lseek(descriptor, offset, os.SEEK_SET)
    try:
        yield
    finally:
        os.lseek(descriptor, before, os.SEEK_SET)


def set_mode(descriptor: int, mode: int) -> None:
    """Set the permission bits of an open file, where there are any. Raises: OSError."""
    if sys.platform != "win32":
        os.fchmod(descriptor, mode)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the folder's entries; Windows does that when it likes. Raises: OSError."""
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def lock(descriptor: int, *, is_shared: bool = False, waits: bool = False) -> bool:
    """Lock a file until it is closed; False if another holds it, unless this waits. Raises: OSError.

    Windows has none that is shared: there readers wait for each other.
    """
    if sys.platform == "win32":
        while True:
            try:
                with _moved_to(descriptor, _LOCKED_AT):
                    msvcrt.locking(descriptor, msvcrt.LK_LOCK if waits else msvcrt.LK_NBLCK, 1)
            except OSError as error:
                if error.errno not in _TRIES_LOCK:
                    raise
                if not waits:
                    return False
            else:
                return True
    else:
        kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
        try:
            fcntl.flock(descriptor, kind if waits else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def open_for_lock(folder: Path) -> int:
    """Open what is locked for a folder: itself, or on Windows, which opens no folders, a file beside it.

    Raises: OSError.
    """
    if sys.platform == "win32":
        folder.stat()
        return os.open(folder.resolve().with_suffix(f"{folder.suffix}.lock"), os.O_RDWR | os.O_CREAT)
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)


@contextmanager
def parent_of(folder: Path, name: str, *, make: bool) -> Iterator[tuple[int | None, str]]:
    """Go to the folder that a name lies in; give its descriptor (`dir_fd`), and what to call the file in it.

    No link below `folder` is followed: whatever is there, nothing is written elsewhere. On Windows the
    descriptor is None and the name a path: there a link that is put in the way just then would be followed.

    Raises: OSError: a part of the way is missing (unless it is to be made), a link, a file, or no name.
    """
    *above, last = name.split("/")
    if sys.platform == "win32":
        at = folder
        for part in above:
            at = below_on_windows(at, part)
            if make:
                at.mkdir(exist_ok=True)
            if not stat.S_ISDIR(at.lstat().st_mode) or at.is_symlink():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(at))
        yield None, str(below_on_windows(at, last))
    else:
        flags = os.O_RDONLY | os.O_DIRECTORY
        descriptor = os.open(folder, flags)
        try:
            for part in above:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, dir_fd=descriptor)
                        os.fsync(descriptor)
                below = os.open(part, flags | os.O_NOFOLLOW, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor, last
        finally:
            os.close(descriptor)


def below_on_windows(folder: Path, part: str) -> Path:
    """A name in a folder of Windows, and nothing that would lead elsewhere."""
    is_name = not _NOT_IN_NAMES & set(part) and not part.endswith((".", " "))
    if not is_name or part.partition(".")[0].rstrip().upper() in _NO_FILES:
        raise OSError(errno.EINVAL, f"Windows has no files of the name {part!r}")
    return folder / part


# -- the process ----------------------------------------------------------------------------------------


def limit_process(descriptors: int) -> None:
    """Let no secret into a core dump, and allow so many descriptors, if the system does."""
    if sys.platform != "win32":
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        # A listener has as many connections as there are devices that ask; most systems allow few.
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(ValueError):  # macOS has a bound of its own.
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, descriptors)), hard))


def forbid_inspection() -> None:
    """Let no process of the same user read this one's memory or trace it: PR_SET_DUMPABLE of Linux, prctl(2).

    Raises: StorageError.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(4, 0, 0, 0, 0) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise StorageError("/proc/self", f"cannot be closed to others: {reason}")


def keep_freed_memory(limit: int) -> None:
    """Have glibc's malloc keep so many bytes that are free, and map no smaller block anew."""
    if sys.platform == "linux" and (change := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        for limited in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of glibc.
            change(limited, limit)


def user() -> int | str:
    """Who this process acts for: the number of the user, or on Windows the name."""
    if sys.platform == "win32":
        return getpass.getuser()
    return os.getuid()


def user_id(name: str) -> int:
    """The number of a user. Raises: ConfigError."""
    if name.isascii() and name.isdigit():
        return int(name)
    if sys.platform != "win32":
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
    raise ConfigError(f"no user {name[:80]!r} on this machine", cure="give the service's user")


def on_signals(act: Callable[[int], object], *names: str) -> None:
    """Have the running loop call `act` with the number of each of these signals that this system has."""
    import asyncio

    loop = asyncio.get_running_loop()
    for name in names:
        number = getattr(signal, name, None)
        if number is None:
            continue
        if sys.platform == "win32":
            signal.signal(number, lambda given, _frame: loop.call_soon_threadsafe(act, given))
        else:
            loop.add_signal_handler(number, act, number)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A loop that runs all of Sealcast: Windows' own default watches no sockets."""
    import asyncio

    return asyncio.SelectorEventLoop() if sys.platform == "win32" else asyncio.new_event_loop()


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """As asyncio.run, in a loop that runs all of Sealcast."""
    import asyncio

    with asyncio.Runner(loop_factory=new_event_loop if sys.platform == "win32" else None) as runner:
        return runner.run(main)


# -- sockets --------------------------------------------------------------------------------------------

IS_WINDOWS = sys.platform == "win32"
"""For what is not offered there at all."""

HAS_LOCAL_SOCKETS = sys.platform != "win32"
"""Sockets in the file system; Python has none on Windows."""

_SUN_PATH_BYTES = 108 if sys.platform == "linux" else 104


def local_socket(path: Path) -> socket.socket:
    """A socket that is to have a name in the file system. Raises: StorageError on Windows."""
    if sys.platform == "win32":
        raise StorageError(
            str(path),
            "Windows has no such sockets for Python",
            cure="keep the site CA's key with the service; for commands beside it: --url and --admin",
        )
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name that a socket can have, however deep its folder lies (`sun_path` holds no more), on Linux.

    Raises: OSError elsewhere.
    """
    if len(os.fsencode(path)) < _SUN_PATH_BYTES:
        yield str(path)
    elif sys.platform == "linux":
        descriptor = os.open(path.parent, os.O_PATH)
        try:
            yield f"/proc/self/fd/{descriptor}/{path.name}"
        finally:
            os.close(descriptor)
    else:
        raise OSError(errno.ENAMETOOLONG, f"a socket's path has at most {_SUN_PATH_BYTES - 1} bytes")


@contextmanager
def for_owner_alone() -> Iterator[None]:
    """What is made meanwhile can be read and written by this user alone, from its first moment on."""
    mask = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(mask)


async def serve_locally(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], listener: socket.socket
) -> asyncio.Server:
    """Serve the connections of a bound local socket."""
    if sys.platform == "win32":
        raise StorageError("local socket", "Windows has no such sockets for Python")
    import asyncio

    return await asyncio.start_unix_server(serve, sock=listener)


def peer_user(connection: socket.socket) -> int:
    """The number of the user at the other end of a local socket; the kernel says it. Raises: OSError."""
    if sys.platform == "linux":
        packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        number = struct.unpack("3i", packed)[1]
    else:
        # macOS: LOCAL_PEERCRED of SOL_LOCAL, a struct xucred, which begins with its version and the user.
        number = struct.unpack_from("=II", connection.getsockopt(0, 1, 76))[1]
    return int(number)


def operators() -> set[int]:
    """Users that may do whatever this process may: its own, and root."""
    if sys.platform == "win32":
        return set()
    return {0, os.geteuid()}


def share_port(member: socket.socket) -> None:
    """Let other sockets of this machine be bound to the same group and port. Raises: OSError."""
    member.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sys.platform == "darwin":
        member.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
