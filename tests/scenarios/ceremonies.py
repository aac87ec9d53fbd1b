"""What an owner does with the roots' keys, which no authority has: rotations, by the management API."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sealcast.ca import KeySigner, Root, create_root
from sealcast.ca.site_request import SiteRequest
from sealcast.errors import ConflictError
from sealcast.pki.bundle import SignedBundle
from sealcast.pki.certificates import certificate_der, certificates_pem, parse_pem_certificates
from tests.scenarios.estate import Estate


@dataclass
class Owner:
    """Begins a rotation for whatever is warned of, and takes it as far as the devices are."""

    estate: Estate
    roots: list[Root] = field(default_factory=list)
    """The one that counts last."""
    done: list[str] = field(default_factory=list)
    """Kinds of the rotations that have ended, in order."""

    def __post_init__(self) -> None:
        self.roots = [self.estate.root]

    def look_after(self) -> None:
        """Do what is due: begin what nobody has begun, and the steps that can be taken now."""
        rotation = self.current()
        if rotation is None:
            for kind, what in (("root", "root "), ("site", "site CA ")):
                if any(each.startswith(what) for each in self.warnings()):
                    rotation = self.begin(kind)
                    break
        if rotation is not None:
            self.go_on(rotation)

    def warnings(self) -> list[str]:
        """What `authority status` says of what ends soon."""
        lines: list[str] = self.estate.manage("GET", "/v1/status")["warnings"]
        return lines

    def current(self) -> dict[str, Any] | None:
        rotations = self.estate.manage("GET", "/v1/rotations")["items"]
        return next((each for each in rotations if each["finished"] is None), None)

    def begin(self, kind: str) -> dict[str, Any]:
        body = {"kind": kind}
        if kind == "root":
            number = len(self.roots) + 1
            new = create_root(
                site_name=f"Owner {number}", signer=KeySigner.generate(), now=self.estate.clock()
            )
            self.roots.append(new)
            body["root"] = certificates_pem([certificate_der(new.certificate)]).decode("ascii")
        return self.estate.manage("POST", "/v1/rotations", body)

    def go_on(self, rotation: dict[str, Any], *, force: bool = False) -> dict[str, Any]:
        """Take every step that can be taken now; where it stands then."""
        path = f"/v1/rotations/{rotation['id']}"
        while rotation["finished"] is None:
            match rotation["step"]:
                case "certificate":
                    body = {"certificate": self._certify(rotation)}
                    self.estate.manage("POST", f"{path}/certificate", body)
                case "publish" | "retire":
                    self._sign(self.estate.manage("GET", f"{path}/bundle"))
                case _:
                    try:
                        self.estate.manage("POST", f"{path}/advance", {"force": force})
                    except ConflictError:
                        return rotation
            rotation = self.estate.manage("GET", path)
        self.done.append(rotation["kind"])
        return rotation

    def _certify(self, rotation: dict[str, Any]) -> str:
        if rotation["request"] is None:
            asked = SiteRequest.of_certificate(parse_pem_certificates(rotation["old"].encode())[0])
        else:
            request = x509.load_pem_x509_csr(rotation["request"].encode())
            asked = SiteRequest.parse(request.public_bytes(Encoding.DER))
        return certificates_pem([asked.certify(self.roots[-1], self.estate.clock())]).decode("ascii")

    def _sign(self, draft: dict[str, Any]) -> None:
        signed = SignedBundle.parse(base64.b64decode(draft["bundle"]))
        for each in draft["certificates"]:
            [signer] = parse_pem_certificates(each["pem"].encode())
            for root in self.roots:
                if certificate_der(root.certificate) == signer:
                    signed = signed.sign(signer, root.signer)
        data = base64.b64encode(signed.serialize()).decode("ascii")
        self.estate.manage("POST", "/v1/bundles", {"bundle": data})
