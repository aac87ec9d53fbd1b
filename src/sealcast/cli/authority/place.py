"""Which authority a command is for: a folder on this machine, or a URL and an admin's folder."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer
from typer.core import TyperCommand

from sealcast.errors import UsageError

if TYPE_CHECKING:
    from sealcast.authority.control import Management

REMOTE = "(remote)"
"""Stands for the folder where --url and --admin are given: the arguments after it keep their places."""

_PAGE = 1000

Folder = Annotated[
    Path,
    typer.Argument(
        help="The authority's folder; left out with --url and --admin.", metavar="DIR", show_default=False
    ),
]
Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="Of the management API of an authority on another machine."),
]
AdminFolder = Annotated[
    Path | None,
    typer.Option("--admin", metavar="FOLDER", help="Your folder, made by: sealcast admin enroll."),
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON.")]


class PlacedCommand(TyperCommand):
    """A command whose first argument is the authority's folder, unless --url says where it is."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put a word in the folder's place where the authority is somewhere else."""
        named = {word.partition("=")[0] for word in args} | set(ctx.default_map or ())
        if "--help" not in named and "-h" not in named and named & {"--url", "url"}:
            args = [REMOTE, *args]
        return super().parse_args(ctx, args)


class Place:
    """The management API that a command speaks to."""

    def __init__(self, folder: Path, url: str | None, admin: Path | None) -> None:
        """Choose.

        Raises:
            UsageError: --url and --admin without each other.
        """
        if (url is None) != (admin is None):
            raise UsageError(
                "--url and --admin belong together",
                cure="give both, or the authority's folder in their place",
            )
        self._management: Management
        if url is not None and admin is not None:
            from sealcast.authority.remote import RemoteManagement

            self._management = RemoteManagement(url, admin)
        else:
            from sealcast.authority.control import FolderManagement

            self._management = FolderManagement(folder)

    def get(self, *segments: str, **query: Any) -> dict[str, Any]:
        """Read a resource."""
        return self._management.call("GET", _path(segments), query=query)

    def all(self, *segments: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Every item of a list, page by page."""
        after: str | None = None
        while True:
            page = self._management.call(
                "GET", _path(segments), query={"limit": _PAGE, **query, "after": after}
            )
            yield from page["items"]
            after = page["next"]
            if after is None:
                return

    def change(self, method: str, *segments: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Change something."""
        return self._management.call(method, _path(segments), body=None if body is None else dict(body))


def _path(segments: tuple[str, ...]) -> str:
    return "/v1/" + "/".join(quote(segment, safe="") for segment in segments)
