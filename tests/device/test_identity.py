"""The device's folder as it is read; mutual TLS between two devices."""

import asyncio
import ssl
from pathlib import Path

import pytest

from sealcast.device import DeviceIdentity, DeviceSettings
from sealcast.errors import CertificateError, SealcastError, StorageError, UsageError
from sealcast.pki.names import Role
from sealcast.pki.times import system_time
from tests.device.conftest import Authority
from tests.est.site import Site, TokenService, serving


def test_settings_are_read_back() -> None:
    settings = DeviceSettings(
        name="monitor-1", site_id=bytes(16), authority_url="https://a:1", keys_url="https://[::1]:2"
    )
    assert DeviceSettings.parse(settings.serialize()) == settings


@pytest.mark.parametrize(
    "text", [b"", b"name = 1", b"\xff", b'name = "a"\nsite = "0"\nauthority = ""\nkeys = ""\n', b"= ="]
)
def test_other_settings_are_refused(text: bytes) -> None:
    with pytest.raises(UsageError):
        DeviceSettings.parse(text)


@pytest.mark.parametrize("exists", [False, True])
def test_no_device_is_told_as_such(folder: Path, exists: bool) -> None:
    if exists:
        folder.mkdir()
    with pytest.raises(StorageError, match="holds no device") as caught:
        DeviceIdentity.open(folder)
    assert "sealcast device enroll" in caught.value.cure


@pytest.mark.parametrize("file", ["device.toml", "key.pem", "certificate.pem", "issuers.pem", "roots.pem"])
@pytest.mark.parametrize("damage", ["missing", "empty", "garbage"])
async def test_damage_is_named(authority: Authority, folder: Path, file: str, damage: str) -> None:
    path = (await authority.enroll(folder)).credentials / file
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "empty" else b"\xff\x00garbage")
    with pytest.raises(SealcastError, match=file) as caught:
        DeviceIdentity.open(folder)
    assert caught.value.cure
    assert caught.value.exit_code in (5, 8)


@pytest.mark.parametrize("pointer", [b"", b"9\n", b"../1\n", b"x\n", b"1/../1\n"])
async def test_a_damaged_pointer_is_named(authority: Authority, folder: Path, pointer: bytes) -> None:
    await authority.enroll(folder)
    (folder / "current").write_bytes(pointer)
    with pytest.raises(StorageError, match="current"):
        DeviceIdentity.open(folder)


async def test_key_and_certificate_must_belong_together(
    authority: Authority, folder: Path, tmp_path: Path
) -> None:
    first = await authority.enroll(folder)
    second = await authority.enroll(tmp_path / "other")
    first.key_file.write_bytes(second.key_file.read_bytes())
    with pytest.raises(CertificateError, match=r"key\.pem: is not the key of the certificate beside it"):
        DeviceIdentity.open(folder)


async def test_a_copied_name_is_noticed(authority: Authority, folder: Path) -> None:
    identity = await authority.enroll(folder)
    settings = identity.credentials / "device.toml"
    settings.write_text(settings.read_text().replace("monitor-1", "monitor-2"))
    with pytest.raises(CertificateError, match="monitor-2"):
        DeviceIdentity.open(folder)


class TestMutualTls:
    """TR-8: the handshake proves a key under our roots, the validator says whose."""

    async def talk(self, server: DeviceIdentity, client: ssl.SSLContext) -> tuple[bytes, bytes]:
        """Connect; return the certificates that client and server saw."""
        seen: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.set_result(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
            writer.write(b"hello")
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(
            answer, "127.0.0.1", 0, ssl=server.ssl_context_server()
        ) as listener:
            port = listener.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=client, server_hostname="whatever"
            )
            try:
                connection = writer.get_extra_info("ssl_object")
                assert connection.version() == "TLSv1.3"
                if await reader.read(5) != b"hello":
                    raise ConnectionResetError("the server hung up")
                return connection.getpeercert(binary_form=True), await seen
            finally:
                writer.close()

    async def test_two_devices(self, authority: Authority, tmp_path: Path) -> None:
        first = await authority.enroll(tmp_path / "first")
        second = await authority.enroll(tmp_path / "second", "central")
        at_client, at_server = await self.talk(first, second.ssl_context_client())
        now = system_time()
        assert second.validator().verify_peer([at_client], Role.DEVICE, now).name == "monitor-1"
        verified = first.validator().verify_peer([at_server], Role.DEVICE, now)
        assert verified.name == "central"
        assert verified.site_id == authority.site.site_id
        with pytest.raises(CertificateError):
            first.validator().verify_peer([at_server], Role.KEY_SERVER, now)

    async def test_a_stranger_is_refused(self, authority: Authority, tmp_path: Path) -> None:
        first = await authority.enroll(tmp_path / "first")
        (tmp_path / "elsewhere").mkdir()
        other = TokenService(Site(tmp_path / "elsewhere"))
        async with serving(other) as url:
            stranger = await Authority(url, other).enroll(tmp_path / "stranger")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await self.talk(first, stranger.ssl_context_client())

    async def test_a_peer_without_a_certificate_is_refused(
        self, authority: Authority, tmp_path: Path
    ) -> None:
        first = await authority.enroll(tmp_path / "first")
        anonymous = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anonymous.check_hostname = False
        anonymous.load_verify_locations(cafile=authority.site.root_file)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await self.talk(first, anonymous)

    async def test_a_revoked_peer_is_refused_by_the_crl(self, authority: Authority, tmp_path: Path) -> None:
        first = await authority.enroll(tmp_path / "first")
        second = await authority.enroll(tmp_path / "second", "central")
        authority.service.revoke(second.certificate)
        crl = authority.site.issuer.issue_crl(
            number=1, revocations=authority.service.revocations, now=authority.site.now
        )
        now = system_time()
        with pytest.raises(CertificateError) as caught:
            first.validator().verify_peer([second.certificate], Role.DEVICE, now, crl)
        assert caught.value.reason == "revoked"
        first.validator().verify_peer([first.certificate], Role.DEVICE, now, crl)
