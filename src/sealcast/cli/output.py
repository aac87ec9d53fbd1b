"""Where messages go: a file or standard output."""

from io import FileIO
from pathlib import Path

from sealcast.errors import StorageError
from sealcast.pki.files import storage_errors


def open_output(output: Path | None) -> FileIO:
    """Open for writing; a pipe waits for its reader. Unbuffered: a write that never ends holds no lock."""
    if output is None:
        return FileIO(1, "w", closefd=False)
    with storage_errors(output):
        return FileIO(output, "w")


def write_all(target: FileIO, data: bytes, output: Path | None) -> None:
    """Write all of it. Raises: StorageError; BrokenPipeError if the reader of standard output is gone."""
    left = memoryview(data)
    try:
        while left:
            left = left[target.write(left) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageError(str(output or "standard output"), error.strerror or type(error).__name__) from None
