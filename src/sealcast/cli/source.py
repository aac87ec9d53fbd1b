"""Where messages come from: a file or standard input."""

from io import FileIO
from pathlib import Path

from sealcast.errors import UsageError
from sealcast.pki.files import storage_errors

CHUNK_BYTES = 64 << 10


class MessageSource:
    """A file or standard input, cut into messages as it comes.

    Unbuffered, so that a line of a pipe is not held back, and so that a read that never ends holds no lock.
    """

    def __init__(self, source: Path, *, raw: bool, limit: int) -> None:
        """Take a file, or - for standard input.

        Args:
            source: the file.
            raw: a chunk as it is read is a message, instead of a line.
            limit: bytes of a message.
        """
        self._source = source
        self._raw = raw
        self._limit = limit
        self._file: FileIO | None = None
        self._begun = bytearray()

    def open(self) -> None:
        """Open the source, which may wait for a writer. Raises: StorageError."""
        with storage_errors(self._source):
            if str(self._source) == "-":
                self._file = FileIO(0, closefd=False)
            else:
                self._file = FileIO(self._source)

    def read(self) -> list[bytes]:
        """Wait for at least one message; none at the end. Raises: StorageError, UsageError."""
        if self._file is None:
            return []
        while True:
            with storage_errors(self._source):
                chunk = self._file.read(CHUNK_BYTES) or b""
            if self._raw:
                return [chunk] if chunk else []
            if not chunk:
                rest, self._begun = bytes(self._begun), bytearray()
                return [_without_end(rest)] if rest else []
            *lines, begun = chunk.split(b"\n")
            if lines:
                lines[0] = bytes(self._begun) + lines[0]
                self._begun = bytearray(begun)
                return [_without_end(line) for line in lines]
            self._begun += begun
            if len(self._begun) > self._limit:
                raise UsageError(
                    f"{self._source}: a line of more than {self._limit} bytes",
                    cure="send it in chunks with --raw, or as a file with: sealcast send",
                )

    def close(self) -> None:
        """Close the source."""
        if self._file is not None:
            self._file.close()


def _without_end(line: bytes) -> bytes:
    return line.removesuffix(b"\r")
