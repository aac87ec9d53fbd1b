"""The EST server over real TLS, seen by a client that sends raw bytes (RFC 7030, RFC 8951, SC-10 to SC-12).

`test_est_N_…` is line N of the conformance list of RFC 7030, 8951 and 9908.
"""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sealcast.ca import KeySigner
from sealcast.errors import ConfigError, EnrolmentError, StorageError, UsageError
from sealcast.est import (
    CertificateId,
    CsrAttributes,
    EstSettings,
    RenewalWindow,
    check_label,
    make_tls_context,
    start_listener,
)
from sealcast.est.messages import MAX_BODY_BYTES, decode_certificates, decode_parts
from sealcast.est.problems import Problem
from sealcast.est.settings import OPERATIONS
from sealcast.pki.certificates import (
    certificate_der,
    certificate_identity,
    certificates_pem,
    parse_certificate,
)
from sealcast.pki.profiles import CertificateIssuer, device_builder
from tests.est.site import DAY, Site, TokenService, serving
from tests.est.wire import CHALLENGE_PASSWORD, HANDSHAKE_ERRORS, Reply, Wire, body, csr, request, tls

LABEL = "ward-3"


@dataclass
class Peer(Wire):
    """The wire to the server of a site whose service is at hand."""

    service: TokenService = field(kw_only=True)

    def show(self, own: tuple[Path, Path]) -> bytes:
        """Show a certificate from now on; gives its DER."""
        self.context = tls([self.service.site.root_der], own)
        return certificate_der(x509.load_pem_x509_certificate(own[0].read_bytes()))

    def device(self, name: str = "monitor-1", **arguments: bool) -> bytes:
        """Show the certificate of a device."""
        return self.show(self.service.site.device_files(name, **arguments))

    async def enroll(
        self, der: bytes | None = None, *, operation: str = "simpleenroll", **changes: str | None
    ) -> Reply:
        """Enrol monitor-1 by a good token, with what is changed."""
        arguments = {"credentials": f"monitor-1:{self.service.token('monitor-1')}", **changes}
        return await self.post(operation, CSR if der is None else body(der), **arguments)  # type: ignore[arg-type]


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[Peer]:
    service = TokenService(Site(tmp_path))
    service.authorities[LABEL] = service.site.authorities
    async with serving(service) as url:
        yield Peer(int(url.rpartition(":")[2]), tls([service.site.root_der]), service=service)


CSR = body(csr("monitor-1"))


class TestOperations:
    """RFC 7030 section 3.2.2: paths and labels."""

    @pytest.mark.parametrize("label", ["", f"{LABEL}/"], ids=["no label", "label"])
    async def test_est_1_and_2_the_operations_work_with_a_label_and_without(
        self, peer: Peer, label: str
    ) -> None:
        assert (await peer.get(f"/.well-known/est/{label}cacerts")).status == 200
        assert (await peer.enroll(operation=f"{label}simpleenroll")).status == 200
        current = peer.device()
        renewal = await peer.post(f"{label}simplereenroll", body(csr("", current=current)))
        assert renewal.status == 200

    @pytest.mark.parametrize("operation", [*OPERATIONS, "CACERTS", "SimpleEnroll"])
    def test_est_3_a_label_is_no_operation(self, operation: str) -> None:
        with pytest.raises(UsageError, match="operation") as caught:
            EstSettings(labels=(operation,))
        assert operation in str(caught.value)

    @pytest.mark.parametrize("label", ["", "-a", "a/b", "a b", "x" * 64, "ä", "..", "a%2fb"])
    def test_est_3_a_label_is_one_segment(self, label: str) -> None:
        with pytest.raises(UsageError):
            check_label(label)

    @pytest.mark.parametrize(
        ("method", "operation"),
        [("GET", "cacerts"), ("GET", "csrattrs"), ("POST", "simpleenroll"), ("POST", "simplereenroll"),
         ("POST", "serverkeygen"), ("GET", "renewal-info/AA.AA")],
    )  # fmt: skip
    @pytest.mark.parametrize("label", ["nobody", "ward-3x", "WARD-3"])
    async def test_est_3_an_unknown_label_is_404(
        self, peer: Peer, method: str, operation: str, label: str
    ) -> None:
        peer.service.settings = EstSettings(server_keygen=True)
        path = f"{label}/{operation}"
        reply = await (
            peer.get(f"/.well-known/est/{path}") if method == "GET" else peer.enroll(operation=path)
        )
        assert reply.status == 404
        assert not peer.service.issued

    @pytest.mark.parametrize("method", ["GET", "POST"])
    async def test_est_34_fullcmc_is_not_offered(self, peer: Peer, method: str) -> None:
        assert (await peer.get("/.well-known/est/fullcmc", method)).status == 404

    @pytest.mark.parametrize(
        "path",
        ["/", "/.well-known/est", "/.well-known/est/", "/.well-known/est/CACERTS",
         f"/.well-known/est/{LABEL}", f"/.well-known/est/{LABEL}/{LABEL}/cacerts"],
    )  # fmt: skip
    async def test_an_unknown_operation_is_404(self, peer: Peer, path: str) -> None:
        reply = await peer.get(path)
        assert reply.status == 404
        assert reply.headers["Content-Type"].startswith("text/plain")

    @pytest.mark.parametrize(
        ("method", "operation", "allowed"),
        [
            ("GET", "simpleenroll", "POST"),
            ("PUT", "simplereenroll", "POST"),
            ("DELETE", "cacerts", "GET,HEAD"),
        ],
    )
    async def test_a_wrong_method_is_405(self, peer: Peer, method: str, operation: str, allowed: str) -> None:
        reply = await peer.get(f"/.well-known/est/{operation}", method)
        assert reply.status == 405
        assert reply.headers["Allow"] == allowed


class TestCacerts:
    """RFC 7030 section 4.1."""

    async def test_est_4_anyone_gets_them(self, peer: Peer) -> None:
        assert (await peer.get("/.well-known/est/cacerts")).status == 200

    async def test_est_5_and_6_they_are_the_root_and_every_ca_below_it(self, peer: Peer) -> None:
        reply = await peer.get("/.well-known/est/cacerts")
        assert reply.headers["Content-Type"] == "application/pkcs7-mime"
        assert sorted(decode_certificates(reply.body)) == sorted(peer.service.site.authorities)

    async def test_a_label_has_certificates_of_its_own(self, peer: Peer, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        other = Site(tmp_path / "other")
        peer.service.authorities["ward-4"] = other.authorities
        reply = await peer.get("/.well-known/est/ward-4/cacerts")
        assert sorted(decode_certificates(reply.body)) == sorted(other.authorities)

    async def test_a_client_without_a_name_gets_one_line(self, peer: Peer) -> None:
        """SC-15: strongSwan's pki."""
        reply = await peer.send(b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert reply.body.count(b"\n") == 1
        assert sorted(decode_certificates(reply.body)) == sorted(peer.service.site.authorities)


class TestSimpleenroll:
    """RFC 7030 section 4.2.1."""

    async def test_est_9_a_token_gets_one_certificate(self, peer: Peer) -> None:
        reply = await peer.enroll()
        assert reply.status == 200
        assert reply.headers["Content-Type"] == "application/pkcs7-mime; smime-type=certs-only"
        assert reply.headers["Content-Transfer-Encoding"] == "base64"
        [certificate] = decode_certificates(reply.body)
        assert certificate_identity(parse_certificate(certificate)).name == "monitor-1"

    async def test_a_token_counts_once(self, peer: Peer) -> None:
        credentials = f"monitor-1:{peer.service.token('monitor-1')}"
        assert (await peer.enroll(credentials=credentials)).status == 200
        assert (await peer.enroll(credentials=credentials)).status == 401
        assert len(peer.service.issued) == 1

    @pytest.mark.parametrize(
        "credentials", [None, "monitor-1:wrong", "monitor-1:", ":token", "monitor-1", ":"]
    )
    async def test_est_14_without_credentials_it_asks_for_them(
        self, peer: Peer, credentials: str | None
    ) -> None:
        reply = await peer.enroll(credentials=credentials)
        assert reply.status == 401
        assert reply.headers["WWW-Authenticate"].startswith("Basic realm=")
        assert reply.headers["Content-Type"].startswith("text/plain")
        assert not peer.service.issued

    async def test_est_14_a_certificate_works_without_them(self, peer: Peer) -> None:
        current = peer.device()
        assert (await peer.post("simplereenroll", body(csr("", current=current)))).status == 200

    @pytest.mark.parametrize("value", ["Bearer abc", "Basic", "Basic !!!", "Basic /w=="])
    async def test_odd_authorization_is_none(self, peer: Peer, value: str) -> None:
        reply = await peer.enroll(credentials=None, headers=f"Authorization: {value}\r\n")
        assert reply.status == 401

    async def test_a_refused_request_does_not_use_the_token_up(self, peer: Peer) -> None:
        """SC-12."""
        credentials = f"monitor-1:{peer.service.token('monitor-1')}"
        broken = csr("monitor-1")[:-1] + b"\x00"
        assert (await peer.enroll(broken, credentials=credentials)).status == 400
        assert (await peer.enroll(credentials=credentials)).status == 200

    async def test_est_17_f1_a_request_for_another_name_is_refused(self, peer: Peer) -> None:
        reply = await peer.enroll(csr("monitor-2"))
        assert reply.status == 403
        assert b"monitor-2" in reply.body
        assert not peer.service.issued

    @pytest.mark.parametrize(("name", "status"), [("monitor-1", 200), ("monitor-2", 403)])
    async def test_est_17_f1_a_subject_alternative_name_must_be_the_devices_own(
        self, peer: Peer, name: str, status: int
    ) -> None:
        """SC-11."""
        uri = f"sealcast:device:{peer.service.site.site_id.hex()}:{name}"
        reply = await peer.enroll(csr("monitor-1", names=[x509.UniformResourceIdentifier(uri)]))
        assert reply.status == status

    async def test_f1_a_token_of_another_device_is_refused(self, peer: Peer) -> None:
        credentials = f"monitor-1:{peer.service.token('monitor-2')}"
        assert (await peer.enroll(credentials=credentials)).status == 401

    async def test_est_10_a_broken_signature_is_refused(self, peer: Peer) -> None:
        der = bytearray(csr("monitor-1"))
        der[-1] ^= 1
        reply = await peer.enroll(bytes(der))
        assert reply.status == 400
        assert b"signature" in reply.body

    @pytest.mark.parametrize("curve", [ec.SECP224R1(), ec.SECP384R1(), ec.SECP521R1(), ec.SECP256K1()])
    async def test_est_10_a_key_outside_the_policy_is_refused(
        self, peer: Peer, curve: ec.EllipticCurve
    ) -> None:
        reply = await peer.enroll(csr("monitor-1", key=ec.generate_private_key(curve)))
        assert reply.status == 400
        assert b"P-256" in reply.body

    @pytest.mark.parametrize("content_type", ["application/pkcs10; charset=us-ascii", "APPLICATION/PKCS10"])
    async def test_est_12_parameters_of_the_content_type_are_ignored(
        self, peer: Peer, content_type: str
    ) -> None:
        assert (await peer.enroll(content_type=content_type)).status == 200

    @pytest.mark.parametrize(
        "content_type", [None, "text/plain", "application/pkcs7-mime", "application/x-pkcs10", "junk"]
    )
    async def test_est_11_another_content_type_is_refused(self, peer: Peer, content_type: str | None) -> None:
        reply = await peer.enroll(content_type=content_type)
        assert reply.status == 415
        assert not peer.service.issued

    @pytest.mark.parametrize("value", ["", "base64", "binary", "quoted-printable", "8bit", "!"])
    async def test_est_12_the_transfer_encoding_of_a_request_is_ignored(self, peer: Peer, value: str) -> None:
        """RFC 8951 section 3."""
        header = f"Content-Transfer-Encoding: {value}\r\n" if value else ""
        assert (await peer.enroll(headers=header)).status == 200

    @pytest.mark.parametrize("between", [b"", b"\r\n", b"\n", b"\r", b" ", b"\t", b" \t\r\n\r\n"])
    async def test_est_12_white_space_may_be_anywhere(self, peer: Peer, between: bytes) -> None:
        """RFC 8951 section 3.1."""
        text = base64.b64encode(csr("monitor-1"))
        parts = [text[start : start + 61] for start in range(0, len(text), 61)]
        credentials = f"monitor-1:{peer.service.token('monitor-1')}"
        sent = between + between.join(parts) + between
        assert (await peer.post("simpleenroll", sent, credentials=credentials)).status == 200

    @pytest.mark.parametrize(("strict", "status"), [(False, 200), (True, 400)])
    @pytest.mark.parametrize("form", ["armour", "raw"])
    async def test_what_is_not_base64_is_read_unless_strict(
        self, peer: Peer, strict: bool, status: int, form: str
    ) -> None:
        peer.service.settings = EstSettings(strict_bodies=strict)
        der = csr("monitor-1")
        armour = x509.load_der_x509_csr(der).public_bytes(serialization.Encoding.PEM)
        credentials = f"monitor-1:{peer.service.token('monitor-1')}"
        sent = armour if form == "armour" else der
        assert (await peer.post("simpleenroll", sent, credentials=credentials)).status == status

    @pytest.mark.parametrize(
        "sent", [b"", b"\r\n", b"AAAA", b"not base64!", b"\x00" * 10, b"MAA=", b"\x30\x82\x00\x01\x00"]
    )
    async def test_est_11_garbage_is_refused(self, peer: Peer, sent: bytes) -> None:
        credentials = f"monitor-1:{peer.service.token('monitor-1')}"
        assert (await peer.post("simpleenroll", sent, credentials=credentials)).status == 400

    async def test_est_11_a_large_body_is_refused(self, peer: Peer) -> None:
        credentials = f"monitor-1:{peer.service.token('monitor-1')}"
        sent = b"A" * (MAX_BODY_BYTES + 4)
        assert (await peer.post("simpleenroll", sent, credentials=credentials)).status == 413
        # Within the limit of a body, but too large for a request.
        assert (await peer.post("simpleenroll", b"A" * 32768, credentials=credentials)).status == 413

    async def test_an_undecided_request_says_when_to_ask_again(self, peer: Peer) -> None:
        peer.service.pending_seconds = 300
        reply = await peer.enroll()
        assert reply.status == 202
        assert reply.headers["Retry-After"] == "300"

    @pytest.mark.parametrize(
        ("failure", "status", "word"),
        [
            (RuntimeError("secret thing"), 500, b"internal"),
            (StorageError("/secret/path", "full"), 503, b"store"),
            (EnrolmentError("device is blocked"), 403, b"blocked"),
        ],
    )
    async def test_est_13_a_failure_is_plain_text_and_tells_no_secrets(
        self, peer: Peer, failure: Exception, status: int, word: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        peer.service.failure = failure
        reply = await peer.enroll()
        assert reply.status == status
        assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert word in reply.body
        assert b"secret" not in reply.body
        assert ("secret thing" in caplog.text) is (status == 500)


class TestSimplereenroll:
    """RFC 7030 section 4.2.2."""

    async def test_a_certificate_gets_its_successor(self, peer: Peer) -> None:
        current = peer.device()
        reply = await peer.post("simplereenroll", body(csr("", current=current)))
        assert reply.status == 200
        [certificate] = decode_certificates(reply.body)
        assert certificate_identity(parse_certificate(certificate)).name == "monitor-1"

    async def test_a_client_may_send_its_certificate_alone(self, peer: Peer) -> None:
        current = peer.device(chain=False)
        assert (await peer.post("simplereenroll", body(csr("", current=current)))).status == 200

    async def test_a_token_is_not_enough(self, peer: Peer) -> None:
        assert (await peer.enroll(operation="simplereenroll")).status == 403

    @pytest.mark.parametrize(
        "change",
        ["common name", "organization", "more", "less", "order", "no names", "other names", "more names"],
    )
    async def test_est_21_subject_and_names_must_be_the_same(self, peer: Peer, change: str) -> None:
        current = peer.device()
        subject = list(parse_certificate(current).subject)
        uri = x509.UniformResourceIdentifier(f"sealcast:device:{peer.service.site.site_id.hex()}:monitor-1")
        names: list[x509.GeneralName] | None = None
        match change:
            case "common name":
                subject[-1] = x509.NameAttribute(NameOID.COMMON_NAME, "monitor-2")
            case "organization":
                subject[0] = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Ward 4")
            case "more":
                subject.append(x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"))
            case "less":
                del subject[0]
            case "order":
                subject.reverse()
            case "no names":
                names = []
            case "other names":
                names = [x509.UniformResourceIdentifier(uri.value.replace("monitor-1", "monitor-2"))]
            case "more names":
                names = [uri, x509.DNSName("authority")]
        der = csr("", current=current, subject=x509.Name(subject), names=names)
        reply = await peer.post("simplereenroll", body(der))
        assert reply.status == 403
        assert not peer.service.issued

    async def test_est_21_another_string_type_is_the_same_name(self, peer: Peer) -> None:
        """Java and Go write PrintableString."""
        current = peer.device()
        printable = x509.name._ASN1Type.PrintableString
        subject = x509.Name(
            [
                x509.NameAttribute(attribute.oid, attribute.value, _type=printable)
                for attribute in parse_certificate(current).subject
            ]
        )
        assert subject.public_bytes() != parse_certificate(current).subject.public_bytes()
        reply = await peer.post("simplereenroll", body(csr("", current=current, subject=subject)))
        assert reply.status == 200

    async def test_a_revoked_certificate_is_refused(self, peer: Peer) -> None:
        current = peer.device()
        peer.service.revoke(current)
        assert (await peer.post("simplereenroll", body(csr("", current=current)))).status == 403

    async def test_a_key_server_is_no_device(self, peer: Peer) -> None:
        site = peer.service.site
        current = peer.show((site.server_chain_file, site.server_key_file))
        assert (await peer.post("simplereenroll", body(csr("", current=current)))).status == 403

    async def test_est_15_and_23_an_expired_certificate_ends_the_handshake(self, peer: Peer) -> None:
        site = peer.service.site
        past = site.device_files("monitor-1")
        expired = site.folder / "expired.pem"
        expired.write_bytes(certificates_pem([_expired(site, past[1]), site.issuer.certificate]))
        current = peer.show((expired, past[1]))
        with pytest.raises(HANDSHAKE_ERRORS):
            await peer.post("simplereenroll", body(csr("", current=current)))

    async def test_est_15_and_23_a_foreign_certificate_ends_the_handshake(
        self, peer: Peer, tmp_path: Path
    ) -> None:
        (tmp_path / "other").mkdir()
        stranger = Site(tmp_path / "other", site_id=peer.service.site.site_id)
        current = peer.show(stranger.device_files("monitor-1"))
        with pytest.raises(HANDSHAKE_ERRORS):
            await peer.post("simplereenroll", body(csr("", current=current)))

    async def test_est_24_change_subject_name_is_refused_in_words(self, peer: Peer) -> None:
        """RFC 6402 section 2.8."""
        change = x509.ObjectIdentifier("1.3.6.1.5.5.7.7.36")
        current = peer.device()
        reply = await peer.post("simplereenroll", body(csr("", current=current, attributes={change: b"x"})))
        assert reply.status == 400
        assert b"changeSubjectName" in reply.body


def _expired(site: Site, key_file: Path) -> bytes:
    signer = KeySigner.from_pem(key_file.read_bytes(), "key")
    builder = device_builder(
        name="monitor-1",
        site_name="Ward 3",
        site_id=site.site_id,
        public_key=signer.public_key,
        issuer=CertificateIssuer.of(
            parse_certificate(site.issuer.certificate), site.issuer.signer.public_key
        ),
        serial=1,
        now=site.now - 100 * DAY,
    )
    return certificate_der(site.issuer.signer.sign_certificate(builder))


class TestLinking:
    """RFC 7030 section 3.5: a challengePassword must belong to the TLS session."""

    async def enroll(self, peer: Peer, unique: bytes | None = None, operation: str = "simpleenroll") -> Reply:
        """Enrol with the tls-unique of this session, or with another one."""
        credentials = f"monitor-1:{peer.service.token('monitor-1')}"

        def make(own: bytes) -> bytes:
            password = base64.b64encode(own if unique is None else unique)
            sent = body(csr("monitor-1", attributes={CHALLENGE_PASSWORD: password}))
            return request(operation, sent, credentials=credentials)

        return await peer.send_linked(make)

    async def test_est_19_the_value_of_this_session_is_taken(self, peer: Peer) -> None:
        peer.context.maximum_version = ssl.TLSVersion.TLSv1_2
        assert (await self.enroll(peer)).status == 200

    @pytest.mark.parametrize("version", ["1.2", "1.3"])
    async def test_est_19_f5_the_value_of_another_session_is_refused(self, peer: Peer, version: str) -> None:
        """A request that was captured in one session, and is passed on in another one."""
        peer.context.maximum_version = ssl.TLSVersion.TLSv1_2
        await peer.get("/.well-known/est/cacerts")
        captured = peer.unique
        assert len(captured) == 12
        if version == "1.3":
            peer.context.maximum_version = ssl.TLSVersion.TLSv1_3
        reply = await self.enroll(peer, captured)
        assert reply.status == 400
        assert b"challengePassword" in reply.body
        assert not peer.service.issued

    @pytest.mark.parametrize("value", [b"", b"other session", b"AAAAAAAAAAAAAAAA"])
    async def test_est_19_any_other_value_is_refused(self, peer: Peer, value: bytes) -> None:
        peer.context.maximum_version = ssl.TLSVersion.TLSv1_2
        reply = await peer.enroll(csr("monitor-1", attributes={CHALLENGE_PASSWORD: value}))
        assert reply.status == 400

    async def test_est_19_tls_1_3_has_no_such_value(self, peer: Peer) -> None:
        reply = await self.enroll(peer)
        assert reply.status == 400
        assert b"TLS 1.3" in reply.body

    async def test_est_20_where_it_is_required_its_absence_is_told(self, peer: Peer) -> None:
        peer.service.settings = EstSettings(linking_required=True)
        peer.context.maximum_version = ssl.TLSVersion.TLSv1_2
        reply = await peer.enroll()
        assert reply.status == 400
        assert b"tls-unique" in reply.body
        assert (await self.enroll(peer)).status == 200


class TestServerkeygen:
    """RFC 7030 section 4.4."""

    async def test_est_32_off_it_is_404(self, peer: Peer) -> None:
        assert (await peer.enroll(operation="serverkeygen")).status == 404
        assert not peer.service.issued

    @pytest.mark.parametrize("how", ["good", "broken signature", "other curve"])
    async def test_est_32_on_it_gives_key_and_certificate(self, peer: Peer, how: str) -> None:
        """Key and signature of the request mean nothing."""
        peer.service.settings = EstSettings(server_keygen=True)
        key = ec.generate_private_key(ec.SECP384R1() if how == "other curve" else ec.SECP256R1())
        der = csr("monitor-1", key=key)
        if how == "broken signature":
            der = der[:-1] + bytes([der[-1] ^ 1])
        reply = await peer.enroll(der, operation="serverkeygen")
        assert reply.status == 200
        assert reply.headers["Content-Type"].startswith("multipart/mixed; boundary=")
        parts = decode_parts(reply.headers["Content-Type"], reply.body)
        assert list(parts) == ["application/pkcs8", "application/pkcs7-mime"]
        private_key = serialization.load_der_private_key(parts["application/pkcs8"], password=None)
        [certificate] = decode_certificates(body(parts["application/pkcs7-mime"]))
        assert parse_certificate(certificate).public_key() == private_key.public_key() != key.public_key()

    async def test_est_32_the_parts_are_as_libest_reads_them(self, peer: Peer) -> None:
        peer.service.settings = EstSettings(server_keygen=True)
        reply = await peer.enroll(operation="serverkeygen")
        for line in (
            b"Content-Type: application/pkcs8\r\n",
            b"Content-Type: application/pkcs7-mime; smime-type=certs-only\r\n",
        ):
            assert reply.body.count(line) == 1
        assert reply.body.count(b"Content-Transfer-Encoding: base64\r\n") == 2
        boundary = reply.headers["Content-Type"].partition("boundary=")[2].encode()
        assert reply.body.startswith(b"--" + boundary + b"\r\n")
        assert reply.body.endswith(b"--" + boundary + b"--\r\n")

    @pytest.mark.parametrize("oid", ["1.2.840.113549.1.9.16.2.37", "1.2.840.113549.1.9.16.2.54"])
    async def test_est_33_a_key_that_must_be_encrypted_never_comes_in_clear(
        self, peer: Peer, oid: str
    ) -> None:
        peer.service.settings = EstSettings(server_keygen=True)
        der = csr("monitor-1", attributes={x509.ObjectIdentifier(oid): b"key 7"})
        reply = await peer.enroll(der, operation="serverkeygen")
        assert reply.status == 400
        assert reply.headers["Content-Type"].startswith("text/plain")
        assert not peer.service.issued

    async def test_est_14_it_needs_credentials(self, peer: Peer) -> None:
        peer.service.settings = EstSettings(server_keygen=True)
        assert (await peer.enroll(operation="serverkeygen", credentials=None)).status == 401

    async def test_est_17_it_gives_nobody_elses_certificate(self, peer: Peer) -> None:
        peer.service.settings = EstSettings(server_keygen=True)
        assert (await peer.enroll(csr("monitor-2"), operation="serverkeygen")).status == 403


class TestForm:
    """What clients in the field need of every answer."""

    @pytest.mark.parametrize(
        "what",
        ["cacerts", "csrattrs", "no csrattrs", "enroll", "serverkeygen", "renewal", "401", "202", "404",
         "405", "413", "415", "503"],
    )  # fmt: skip
    async def test_est_38_headers_are_few_exact_and_tell_the_length(self, peer: Peer, what: str) -> None:
        service = peer.service
        service.settings = replace(service.settings, server_keygen=True)
        service.attributes = None if what == "no csrattrs" else CsrAttributes(wanted=(CHALLENGE_PASSWORD,))
        service.pending_seconds = 60 if what == "202" else None
        service.failure = StorageError("disk", "full") if what == "503" else None
        known = CertificateId.of(service.site.server.der)
        service.windows[known] = RenewalWindow(start=0, end=1_000_000)
        match what:
            case "cacerts" | "csrattrs":
                reply = await peer.get(f"/.well-known/est/{what}")
            case "no csrattrs":
                reply = await peer.get("/.well-known/est/csrattrs")
            case "serverkeygen":
                reply = await peer.enroll(operation=what)
            case "renewal":
                reply = await peer.get(f"/.well-known/est/renewal-info/{known.serialize()}")
            case "401":
                reply = await peer.enroll(credentials=None)
            case "404":
                reply = await peer.get("/.well-known/est/nothing")
            case "405":
                reply = await peer.get("/.well-known/est/simpleenroll")
            case "413":
                reply = await peer.enroll(b"A" * MAX_BODY_BYTES)
            case "415":
                reply = await peer.enroll(content_type="text/plain")
            case _:
                reply = await peer.enroll()
        assert len(reply.headers) <= 16
        assert all(len(f"{name}: {value}") < 1000 for name, value in reply.headers.items())
        # RFC 9110 section 8.6: a 204 has no length, and clients take that for none.
        assert reply.headers.get("Content-Length", "0") == str(len(reply.body))
        assert ("Content-Length" in reply.headers) == (reply.status != 204)
        assert "Transfer-Encoding" not in reply.headers
        assert set(reply.headers) <= {
            "Content-Type", "Content-Length", "Content-Transfer-Encoding", "WWW-Authenticate", "Retry-After",
            "Date", "Server", "Allow", "Connection",
        }  # fmt: skip
        if what == "no csrattrs":
            assert (reply.status, reply.body) == (204, b"")
            return
        assert "Content-Type" in reply.headers
        is_base64 = reply.headers.get("Content-Transfer-Encoding") == "base64"
        assert is_base64 == (what in ("cacerts", "csrattrs", "enroll"))
        if is_base64:
            assert reply.body.endswith(b"\n")
            assert max(len(line) for line in reply.body.splitlines()) <= 64
        if what in ("202", "503", "renewal"):
            assert reply.headers["Retry-After"].isdigit()

    async def test_est_36_no_answer_redirects(self, peer: Peer) -> None:
        for path in ("/", "/.well-known/est", "/.well-known/est/cacerts/", "//.well-known/est/cacerts"):
            reply = await peer.get(path)
            assert reply.status == 404
            assert "Location" not in reply.headers

    async def test_a_used_port_is_one_clear_error(self, peer: Peer) -> None:
        site = peer.service.site
        context = make_tls_context(site.server_chain_file, site.server_key_file, site.authorities)
        with pytest.raises(ConfigError, match="in use") as caught:
            await start_listener(peer.service, "127.0.0.1", peer.port, context)
        assert caught.value.exit_code == 3

    async def test_est_35_clear_http_is_refused(self, peer: Peer) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", peer.port)
        writer.write(b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP/1.1 200" not in await reader.read()
        writer.close()


def test_every_problem_has_a_status_of_its_own_meaning() -> None:
    for problem in Problem:
        assert problem.status == 202 or 400 <= problem.status < 600
        assert problem.text
        assert "\n" not in problem.text
