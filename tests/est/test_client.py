"""The EST client against servers that mean well and others."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from sealcast.ca import KeySigner, SiteCa, create_root
from sealcast.errors import (
    CertificateError,
    ConfigError,
    EnrolmentError,
    NetworkError,
    SealcastError,
    TokenError,
    UnreachableError,
    UsageError,
)
from sealcast.est import CsrAttributes, EstClient, EstSettings, check_authority_url, make_tls_context
from sealcast.est.attributes import CHALLENGE_PASSWORD
from sealcast.est.client import RequestPlan
from sealcast.est.messages import CACERTS_TYPE, encode_certificates
from sealcast.pki.certificates import certificate_der, parse_certificate
from sealcast.pki.names import Role
from sealcast.pki.times import system_time
from tests.est.site import DAY, Site, TokenService, serving


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@asynccontextmanager
async def answering(site: Site, **answer: object) -> AsyncIterator[str]:
    """A server of the site that gives one answer to everything."""

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(**answer)  # type: ignore[arg-type]

    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(application)
    await runner.setup()
    context = make_tls_context(site.server_chain_file, site.server_key_file, site.authorities)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def check(
    client: EstClient,
    site: Site,
    certificate: bytes,
    signer: KeySigner,
    name: str = "monitor-1",
    now: int = 0,
) -> Sequence[bytes]:
    return client.check(
        certificate,
        public_key=signer.public_key,
        name=name,
        ca_certificates=site.authorities,
        now=now or site.now,
    ).chain


async def test_enrol_and_renew(site: Site) -> None:
    service, signer = TokenService(site), KeySigner.generate()
    async with serving(service) as url:
        client = EstClient(url, [site.root_der])
        certificates = await client.cacerts()
        certificate = await client.simpleenroll(
            "monitor-1", service.token("monitor-1"), signer.make_csr("monitor-1")
        )
        enrolled = client.check(
            certificate,
            public_key=signer.public_key,
            name="monitor-1",
            ca_certificates=certificates,
            now=system_time(),
        )
        assert enrolled.chain == (certificate, site.issuer.certificate)
        assert enrolled.issuers == (site.issuer.certificate,)
        assert enrolled.identity.role is Role.DEVICE
        assert enrolled.identity.site_id == site.site_id
        renewing = EstClient(url, [site.root_der], own=site.device_files("monitor-1"))
        successor = await renewing.simplereenroll(
            signer.make_csr("monitor-1", current=parse_certificate(certificate))
        )
        check(renewing, site, successor, signer)


async def test_f11_no_trust_without_a_root(site: Site) -> None:
    with pytest.raises(ConfigError, match="no root"):
        EstClient("https://127.0.0.1:1", [])


async def test_f11_an_impostor_is_refused_before_it_learns_the_token(site: Site, tmp_path: Path) -> None:
    (tmp_path / "impostor").mkdir()
    impostor = TokenService(Site(tmp_path / "impostor"))
    async with serving(impostor) as url:
        client = EstClient(url, [site.root_der])
        for operation in (
            client.cacerts(),
            client.simpleenroll("monitor-1", "token", KeySigner.generate().make_csr("monitor-1")),
        ):
            with pytest.raises(CertificateError, match="refused") as caught:
                await operation
            assert caught.value.exit_code == 5


@pytest.mark.parametrize("name", ["Ward 3", "Ward 4"], ids=["same name", "another name"])
async def test_f11_roots_of_cacerts_are_not_trusted(site: Site, tmp_path: Path, name: str) -> None:
    """An answer may bring any CA certificates; a path must end at a root that was given."""
    (tmp_path / "other").mkdir()
    other, signer = Site(tmp_path / "other", name=name), KeySigner.generate()
    client = EstClient("https://127.0.0.1:1", [site.root_der])
    with pytest.raises(CertificateError):
        client.check(
            other.device("monitor-1", signer).der,
            public_key=signer.public_key,
            name="monitor-1",
            ca_certificates=other.authorities,
            now=site.now,
        )


@pytest.mark.parametrize("years", [-30, 30])
async def test_a_clock_that_is_wrong_by_years_is_named(site: Site, years: int) -> None:
    """Seen from a machine whose clock is wrong, every certificate is of another time."""
    site.now += years * 365 * DAY
    site.root = create_root(site_name="Ward", signer=KeySigner.generate(), now=site.now)
    signer = KeySigner.generate()
    ca = site.root.issue_site_ca(
        site_name="Ward", site_id=site.site_id, public_key=signer.public_key, now=site.now
    )
    site.issuer = SiteCa(certificate_der(ca), signer)
    site.key_server(["127.0.0.1"])
    async with serving(TokenService(site)) as url:
        with pytest.raises(CertificateError, match=r"by the clock of this machine, which says 2") as caught:
            await EstClient(url, [certificate_der(site.root.certificate)]).cacerts()
    assert caught.value.reason == "time"
    assert "set the clock" in caught.value.cure


async def test_the_host_name_counts(site: Site) -> None:
    site.key_server(["authority.example.org"])
    async with serving(TokenService(site)) as url:
        with pytest.raises(CertificateError, match="refused"):
            await EstClient(url, [site.root_der]).cacerts()


def test_what_comes_back_must_be_ours(site: Site) -> None:
    client = EstClient("https://127.0.0.1:1", [site.root_der])
    signer = KeySigner.generate()
    good = site.device("monitor-1", signer).der
    assert check(client, site, good, signer) == (good, site.issuer.certificate)
    with pytest.raises(CertificateError, match="another key"):
        check(client, site, site.device("monitor-1").der, signer)
    with pytest.raises(CertificateError, match="monitor-2"):
        check(client, site, site.device("monitor-2", signer).der, signer)
    with pytest.raises(CertificateError):
        check(client, site, good, signer, now=site.now + 91 * DAY)
    with pytest.raises(CertificateError):
        check(client, site, site.server.der, signer)


def test_a_key_server_certificate_is_no_device_certificate(site: Site) -> None:
    signer = KeySigner.generate()
    issued = site.issuer.issue_key_server(
        public_key=signer.public_key, name="monitor-1", hosts=[], now=site.now
    )
    with pytest.raises(CertificateError) as caught:
        check(EstClient("https://127.0.0.1:1", [site.root_der]), site, issued.der, signer)
    assert caught.value.reason == "wrong-role"


async def test_a_wrong_token_is_told_as_such(site: Site) -> None:
    async with serving(TokenService(site)) as url:
        with pytest.raises(TokenError, match="token") as caught:
            await EstClient(url, [site.root_der]).simpleenroll(
                "monitor-1", "wrong", KeySigner.generate().make_csr("monitor-1")
            )
    assert caught.value.exit_code == 4
    assert "wrong" not in str(caught.value)


async def test_waiting_for_approval_carries_the_time(site: Site) -> None:
    service = TokenService(site)
    service.pending_seconds = 90
    async with serving(service) as url:
        with pytest.raises(EnrolmentError) as caught:
            await EstClient(url, [site.root_der]).simpleenroll(
                "monitor-1", "token", KeySigner.generate().make_csr("monitor-1")
            )
    assert caught.value.retry_after == 90


async def test_renewal_without_acceptance_is_one_clear_error(site: Site, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    stranger = Site(tmp_path / "other").device_files("monitor-1")
    async with serving(TokenService(site)) as url:
        client = EstClient(url, [site.root_der], own=stranger)
        with pytest.raises((CertificateError, UnreachableError), match="accept our certificate"):
            await client.simplereenroll(KeySigner.generate().make_csr("monitor-1"))


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"status": 200, "body": b"AAAA", "content_type": CACERTS_TYPE}, CertificateError),
        ({"status": 200, "body": b"<html>", "content_type": "text/html"}, NetworkError),
        ({"status": 200, "body": b"A" * (2 << 20), "content_type": CACERTS_TYPE}, NetworkError),
        ({"status": 302, "headers": {"Location": "https://example.org/"}}, NetworkError),
        ({"status": 400, "text": "bad \x1b[31m request"}, EnrolmentError),
        ({"status": 403, "text": "no"}, EnrolmentError),
        ({"status": 404, "text": "no"}, NetworkError),
        ({"status": 500, "text": "no"}, NetworkError),
        ({"status": 202, "headers": {"Retry-After": "Fri, 31 Dec 2027 23:59:59 GMT"}}, EnrolmentError),
    ],
)
async def test_other_answers_are_errors(
    site: Site, answer: dict[str, object], kind: type[SealcastError]
) -> None:
    async with answering(site, **answer) as url:
        with pytest.raises(kind) as caught:
            await EstClient(url, [site.root_der]).cacerts()
    assert str(caught.value).isprintable()
    assert caught.value.cure


async def test_more_than_one_certificate_is_refused(site: Site) -> None:
    body = encode_certificates(site.authorities)
    async with answering(site, body=body, content_type=CACERTS_TYPE) as url:
        with pytest.raises(CertificateError, match="2 certificates"):
            await EstClient(url, [site.root_der]).simpleenroll("a", "t", KeySigner.generate().make_csr("a"))


async def test_nobody_there(site: Site) -> None:
    listener = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    with pytest.raises(UnreachableError, match=f"127.0.0.1:{port}") as caught:
        await EstClient(f"https://127.0.0.1:{port}", [site.root_der]).cacerts()
    assert caught.value.exit_code == 7
    assert caught.value.detail == "Connection refused"


async def test_a_server_without_tls(site: Site) -> None:
    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail ready\r\n")
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(NetworkError):
            await EstClient(f"https://127.0.0.1:{port}", [site.root_der]).cacerts()


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://a:8443", "https://a:8443"),
        ("https://a:8443/", "https://a:8443"),
        ("https://A", "https://a:443"),
        ("https://[::1]:8443", "https://[::1]:8443"),
    ],
)
def test_urls(url: str, normal: str) -> None:
    assert check_authority_url(url) == normal


@pytest.mark.parametrize(
    "url",
    ["", "a:8443", "http://a:8443", "https://", "https://a:x", "https://a:99999", "https://a/b", "https://a?b",
     "https://u:p@a", "https://a b", "https://a\n"],
)  # fmt: skip
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_authority_url(url)
    assert caught.value.exit_code == 3


def test_a_root_that_is_no_certificate(site: Site) -> None:
    with pytest.raises(CertificateError):
        EstClient("https://a:1", [b"garbage"])


class TestOtherServers:
    """What a server of others may do."""

    async def test_est_36_a_redirect_is_not_followed(self, site: Site) -> None:
        """Not even to the same origin: whoever answers is who was asked, with the token and all."""
        service = TokenService(site)
        async with serving(service) as elsewhere:
            moved = {"status": 307, "headers": {"Location": f"{elsewhere}/.well-known/est/simpleenroll"}}
            async with answering(site, **moved) as url:
                client, token = EstClient(url, [site.root_der]), service.token("monitor-1")
                with pytest.raises(NetworkError, match="307"):
                    await client.simpleenroll("monitor-1", token, KeySigner.generate().make_csr("monitor-1"))
        assert not service.issued

    async def test_a_label_is_asked(self, site: Site, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        other, service = Site(tmp_path / "other"), TokenService(site)
        service.authorities["ward-4"] = other.authorities
        async with serving(service) as url:
            told = await EstClient(url, [site.root_der], label="ward-4").cacerts()
            assert sorted(told) == sorted(other.authorities)
            with pytest.raises(NetworkError, match="label") as caught:
                await EstClient(url, [site.root_der], label="nobody").cacerts()
            assert "--label" in caught.value.cure
        with pytest.raises(UsageError):
            EstClient("https://a:1", [site.root_der], label="cacerts")

    async def test_est_20_linking_that_a_server_wants_is_given(self, site: Site) -> None:
        service, signer = TokenService(site), KeySigner.generate()
        service.settings = EstSettings(linking_required=True)
        service.attributes = CsrAttributes(wanted=(CHALLENGE_PASSWORD,))
        async with serving(service) as url:
            client = EstClient(url, [site.root_der])
            plan = await client.plan("monitor-1")
            certificate = await client.enroll("monitor-1", service.token("monitor-1"), signer, plan)
            check(client, site, certificate, signer)
            own = site.device_files("monitor-1")
            current = certificate_der(x509.load_pem_x509_certificate(own[0].read_bytes()))
            renewing = EstClient(url, [site.root_der], own=own)
            check(renewing, site, await renewing.renew(current, signer, plan), signer)

    @pytest.mark.parametrize("status", [202, 401, 500])
    async def test_a_linked_request_knows_the_same_answers(self, site: Site, status: int) -> None:
        kinds: dict[int, type[SealcastError]] = {202: EnrolmentError, 401: TokenError, 500: NetworkError}
        headers = {"Retry-After": "7"}
        async with answering(site, status=status, headers=headers, text="no") as url:
            client = EstClient(url, [site.root_der])
            with pytest.raises(kinds[status]) as caught:
                await client.enroll("a", "t", KeySigner.generate(), RequestPlan(linked=True))
        assert status != 202 or getattr(caught.value, "retry_after", None) == 7

    async def test_a_linked_request_finds_nobody(self, site: Site, tmp_path: Path) -> None:
        (tmp_path / "impostor").mkdir()
        plan = RequestPlan(linked=True)
        async with serving(TokenService(Site(tmp_path / "impostor"))) as url:
            with pytest.raises(CertificateError, match="refused"):
                await EstClient(url, [site.root_der]).enroll("a", "t", KeySigner.generate(), plan)
        with pytest.raises(UnreachableError):
            await EstClient(url, [site.root_der]).enroll("a", "t", KeySigner.generate(), plan)

    async def test_a_key_made_at_the_server(self, site: Site) -> None:
        service = TokenService(site)
        service.settings = EstSettings(server_keygen=True)
        async with serving(service) as url:
            made = await EstClient(url, [site.root_der]).serverkeygen(
                "monitor-1", service.token("monitor-1"), KeySigner.generate().make_csr("monitor-1")
            )
        assert repr(made).count("private_key") == 0
        private_key = serialization.load_der_private_key(made.private_key, password=None)
        assert parse_certificate(made.certificate).public_key() == private_key.public_key()

    @pytest.mark.parametrize(
        "answer",
        [
            {"body": b"{}", "content_type": "application/json"},
            {"body": b"", "content_type": "multipart/mixed"},
            {
                "body": b"--x\r\nContent-Type: text/plain\r\n\r\nAAAA\r\n--x--\r\n",
                "headers": {"Content-Type": "multipart/mixed; boundary=x"},
            },
        ],
    )
    async def test_another_answer_is_no_key(self, site: Site, answer: dict[str, object]) -> None:
        async with answering(site, **answer) as url:
            with pytest.raises((CertificateError, NetworkError)):
                await EstClient(url, [site.root_der]).serverkeygen(
                    "a", "t", KeySigner.generate().make_csr("a")
                )

    @pytest.mark.parametrize("status", [204, 404])
    async def test_est_28_no_attributes_are_no_error(self, site: Site, status: int) -> None:
        async with answering(site, status=status) as url:
            client = EstClient(url, [site.root_der])
            assert await client.csrattrs() is None
            assert await client.plan("a") == RequestPlan()
