"""A site with its EST server, and devices enrolled there."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sealcast.device import DeviceIdentity, enroll_async
from tests.est.site import Site, TokenService, serving


@dataclass
class Authority:
    """What a device needs to know, and what stands behind it."""

    url: str
    service: TokenService

    @property
    def site(self) -> Site:
        return self.service.site

    async def enroll(self, path: Path, name: str = "monitor-1", **changes: object) -> DeviceIdentity:
        arguments = {
            "authority_url": self.url,
            "roots": [self.site.root_der],
            "name": name,
            "token": self.service.token(name),
            **changes,
        }
        return await enroll_async(path, **arguments)  # type: ignore[arg-type]


def entries(folder: Path) -> list[str] | None:
    """What is in a folder; None if it is not there."""
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else None


def make_folder(folder: Path) -> None:
    """For tests that run in an event loop, where linters allow no disk."""
    folder.mkdir()


def leftovers(folder: Path) -> list[Path]:
    """Temporary files and folders of a change that was not finished."""
    return list(folder.rglob("*.tmp"))


@pytest.fixture
async def authority(tmp_path: Path) -> AsyncIterator[Authority]:
    (tmp_path / "site").mkdir()
    service = TokenService(Site(tmp_path / "site"))
    async with serving(service) as url:
        yield Authority(url, service)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "device"
