"""The tables of a site's authority.

Times are microseconds since the epoch (SQLite integers have 64 bits). Columns named `sealed_…` hold
ciphertext of `vault.py`; no secret is stored in clear. Migrations in `migrations/` make these tables; a
test compares both.
"""

from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, LargeBinary, MetaData, String, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Names every constraint, so that a later migration can refer to it."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        int: BigInteger,
        bytes: LargeBinary,
        dict[str, Any]: JSON,
        list[str]: JSON,
    }


class SiteRow(Base):
    """The one site of this authority."""

    __tablename__ = "site"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Always 1."""
    site_id: Mapped[bytes]
    name: Mapped[str] = mapped_column(String)
    key_server_name: Mapped[str] = mapped_column(String)
    hosts: Mapped[list[str]]
    """DNS names and IP addresses in the key server's certificate."""
    created: Mapped[int]
    restored: Mapped[bool] = mapped_column(default=False)
    """Set by whoever restores a backup; the next start jumps every number above what the lost history may
    have used, and clears it (invariant 8).
    """
    ledger_position: Mapped[int | None]
    """Up to where the ledger of the site CA has been compared with the register; None: from before there was
    one.
    """


class DeviceRow(Base):
    """A device that was enrolled at least once."""

    __tablename__ = "devices"

    name: Mapped[str] = mapped_column(String, primary_key=True)
    enrolled: Mapped[int]
    revoked: Mapped[int | None]
    """When it was removed; it stays removed until it is enrolled anew with a token made after that."""
    roles: Mapped[list[str]] = mapped_column(server_default="[]", default=list)
    """What policies may call it by besides its name; sorted, none twice."""
    maker_key: Mapped[bytes | None]
    """SHA-256 of the key in the maker's certificate that it was last enrolled by; None: by other means."""
    ends: Mapped[int] = mapped_column(server_default="0", default=0)
    """End of its last certificate; with `revoked` it says whether the device has one that is good."""
    bundle_version: Mapped[int] = mapped_column(server_default="0", default=0)
    """Of its last report; 0 without one."""

    __table_args__ = (
        Index("ix_devices_standing", "revoked", "name", "ends", "bundle_version"),
        Index("ix_devices_ends", "revoked", "ends", "bundle_version"),
    )


class DeviceCountRow(Base):
    """How many of the devices that are not removed have reported a version of the trust bundle.

    Triggers keep it, at whatever changes a device, in the same transaction.
    """

    __tablename__ = "device_counts"

    bundle_version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    devices: Mapped[int]


class CertificateRow(Base):
    """A certificate that this site's CA has signed.

    The row is durable before the certificate leaves the process: whoever holds one, it can be revoked.
    """

    __tablename__ = "certificates"
    __table_args__ = (Index("ix_certificates_revoked", "revoked", sqlite_where=text("revoked IS NOT NULL")),)

    serial: Mapped[str] = mapped_column(String, primary_key=True)
    """Hexadecimal."""
    name: Mapped[str] = mapped_column(String, index=True)
    role: Mapped[str] = mapped_column(String)
    not_before: Mapped[int]
    not_after: Mapped[int]
    issuer: Mapped[bytes | None]
    """Key identifier of the site CA's key; None: from before the site's CA was rotated for the first time."""
    der: Mapped[bytes]
    revoked: Mapped[int | None]
    """When; None while it is good."""


class UnrecordedRow(Base):
    """A serial number that the site CA may have signed under, and that no row of `certificates` has.

    What a crash, a failed transaction or a restored backup leaves (issuance.py). Nobody here has the
    certificate; its number can be revoked.
    """

    __tablename__ = "unrecorded"

    serial: Mapped[str] = mapped_column(String, primary_key=True)
    """Hexadecimal."""
    name: Mapped[str] = mapped_column(String, index=True)
    role: Mapped[str] = mapped_column(String)
    request: Mapped[bytes]
    """SHA-256 of the certificate request, or of the public key."""
    time: Mapped[int]
    ends: Mapped[int]
    """The latest end that the certificate may have."""
    revoked: Mapped[int | None]


class TokenRow(Base):
    """A one-time token for the enrolment of one device; only its hash is stored."""

    __tablename__ = "tokens"
    __table_args__ = (Index("ix_tokens_unused", "expires", sqlite_where=text("used IS NULL")),)

    hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    """SHA-256 of the token, which is random and long: no salt or slow hash is needed."""
    device: Mapped[str] = mapped_column(String, index=True)
    """Name of the device, or of the admin, that it is for."""
    kind: Mapped[str] = mapped_column(String, server_default="device")
    """`device` or `admin`: what it makes."""
    created: Mapped[int]
    expires: Mapped[int]
    used: Mapped[int | None]
    serial: Mapped[str | None] = mapped_column(ForeignKey("certificates.serial"))
    """The certificate that used it up."""
    roles: Mapped[list[str] | None]
    """The roles that the device gets; None: those that it has."""
    registers: Mapped[bool] = mapped_column(default=False)
    """Whether it makes the device a registration authority (RFC 7030 section 3.7)."""


class ApprovalRow(Base):
    """A request for a first certificate that an operator decides (RFC 7030 section 4.2.3)."""

    __tablename__ = "approvals"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    device: Mapped[str] = mapped_column(String, index=True)
    key_hash: Mapped[bytes]
    """SHA-256 of the request's SubjectPublicKeyInfo: by it the repeated request is known."""
    generated: Mapped[bool]
    """Whether the key is to be made here."""
    credential: Mapped[str] = mapped_column(String)
    """What was shown with it: `token`, `maker` or `none`."""
    credential_id: Mapped[bytes]
    """SHA-256 of the token, or of the key in the maker's certificate; empty for `none`."""
    detail: Mapped[str] = mapped_column(String)
    """More for the operator: the subject of the maker's certificate."""
    state: Mapped[str] = mapped_column(String)
    """`pending`, `approved`, `denied` or `issued`."""
    requested: Mapped[int]
    asked: Mapped[int]
    """When it was last repeated."""
    decided: Mapped[int | None]
    reason: Mapped[str] = mapped_column(String)
    """Of a denial."""
    serial: Mapped[str | None] = mapped_column(ForeignKey("certificates.serial"))


class MakerRow(Base):
    """A maker whose certificates (IDevIDs) admit to a first enrolment, and to nothing else."""

    __tablename__ = "makers"

    fingerprint: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    """SHA-256 of the root."""
    subject: Mapped[str] = mapped_column(String)
    certificates: Mapped[bytes]
    """PEM: the root and the CA certificates below it."""
    crls: Mapped[bytes]
    """PEM; empty without any."""
    rule: Mapped[str] = mapped_column(String)
    """Which device name: a `NameRule`."""
    added: Mapped[int]


class RenewalWindowRow(Base):
    """When certificates of a certain age are to be renewed, where that is earlier than by their life."""

    __tablename__ = "renewal_windows"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    issued_before: Mapped[int]
    """It concerns certificates whose notBefore lies before this."""
    issuer: Mapped[bytes | None]
    """Key identifier: only certificates that this key has signed; None: whoever did."""
    start: Mapped[int]
    end: Mapped[int]
    set_at: Mapped[int]


class SettingRow(Base):
    """Switches of one part of the authority."""

    __tablename__ = "settings"

    part: Mapped[str] = mapped_column(String, primary_key=True)
    """`est`."""
    values: Mapped[dict[str, Any]]


class ChannelRow(Base):
    """A channel: its routing, its limits, the globs that its policy is made from, and where its numbers
    stand.
    """

    __tablename__ = "channels"

    name: Mapped[str] = mapped_column(String, primary_key=True)
    channel_id: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    created: Mapped[int]
    suite: Mapped[int]
    group: Mapped[str] = mapped_column("group_address", String)
    port: Mapped[int]
    interface: Mapped[str | None] = mapped_column(String)
    rate: Mapped[int]
    """Bits per second."""
    origin_time: Mapped[int]
    origin_number: Mapped[int]
    slot_length: Mapped[int]
    slots_ahead: Mapped[int]
    retention: Mapped[int]
    retention_bytes: Mapped[int]
    publisher_limit: Mapped[int]
    fec: Mapped[str] = mapped_column(server_default="off", default="off")
    publish_globs: Mapped[list[str]]
    """Rules of `pki.policy_rules`, as are the next two."""
    subscribe_globs: Mapped[list[str]]
    deny_rules: Mapped[list[str]] = mapped_column(server_default="[]", default=list)
    present_slot: Mapped[int]
    """The highest slot that was ever the present one."""
    beacon_limit: Mapped[int]
    """No beacon has a counter at or above it."""
    keys_state: Mapped[bytes] = mapped_column(server_default=text("x''"), default=b"")
    """Random, and another one whenever secrets or members are stored; empty: not since there is this."""


class KnownSiteRow(Base):
    """What the operator calls another site, in the source of the policy."""

    __tablename__ = "known_sites"

    name: Mapped[str] = mapped_column(String, primary_key=True)
    site_id: Mapped[bytes]


class OtherCrlRow(Base):
    """The latest CRL of a site CA of another site."""

    __tablename__ = "other_crls"

    key_id: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    """SHA-256 of the CA's SubjectPublicKeyInfo."""
    site_id: Mapped[bytes]
    number: Mapped[int]
    issued: Mapped[int]
    """Its thisUpdate."""
    next_update: Mapped[int]
    imported: Mapped[int]
    der: Mapped[bytes]


class CrlSourceRow(Base):
    """Where another site's authority hands out its CRL."""

    __tablename__ = "crl_sources"

    site_id: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    url: Mapped[str] = mapped_column(String)


class GuestRow(Base):
    """A device of another site that is or was a member: the certificate that it showed last."""

    __tablename__ = "guests"

    device: Mapped[str] = mapped_column(String, primary_key=True)
    """`<site id>:<name>`, as policies write it."""
    issuer: Mapped[bytes]
    """Its authorityKeyIdentifier; empty without one."""
    serial: Mapped[str] = mapped_column(String)
    not_after: Mapped[int]
    seen: Mapped[int]
    revoked: Mapped[int | None]
    """When a list was imported that names it."""


class PolicyRow(Base):
    """Each version of each policy (TR-13): with its names it is what was signed, byte for byte."""

    __tablename__ = "policies"

    channel: Mapped[str] = mapped_column(ForeignKey("channels.name"), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    issued: Mapped[int]
    next_update: Mapped[int]
    head: Mapped[bytes]
    """What was signed, up to the two lists of names."""
    algorithm: Mapped[int]
    signature: Mapped[bytes]
    digest: Mapped[bytes]
    """SHA-256 of the signed object, 32 bytes."""


class PolicyNamesRow(Base):
    """A run of the names that versions of a policy list; neighbouring versions share most of them."""

    __tablename__ = "policy_names"
    __table_args__ = (Index("ix_policy_names_in_force", "channel", "role", "until", "first"),)

    channel: Mapped[str] = mapped_column(ForeignKey("channels.name"), primary_key=True)
    role: Mapped[str] = mapped_column(String, primary_key=True)
    """`publish` or `subscribe`."""
    first: Mapped[str] = mapped_column(String, primary_key=True)
    """The lowest of them."""
    since: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    """The first version that lists them."""
    until: Mapped[int | None]
    """The first that lists them no more, or not so; None: the one in force does."""
    count: Mapped[int]
    names: Mapped[bytes]
    """Their encodings, one after the other (`pki.policy_names`)."""


class MemberRow(Base):
    """A device that was given keys of a channel."""

    __tablename__ = "members"

    channel: Mapped[str] = mapped_column(ForeignKey("channels.name"), primary_key=True)
    device: Mapped[str] = mapped_column(String, primary_key=True)
    role: Mapped[str] = mapped_column(String, primary_key=True)
    generation: Mapped[int]
    step: Mapped[int]
    joined: Mapped[int]
    left: Mapped[bool]


class SlotRow(Base):
    """The secret of a slot; the row goes when the slot is older than the previous one."""

    __tablename__ = "slots"

    channel: Mapped[str] = mapped_column(ForeignKey("channels.name"), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    sealed_secret: Mapped[bytes]


class GenerationRow(Base):
    """A generation; only the present one has a secret, that of its present step."""

    __tablename__ = "generations"

    channel: Mapped[str] = mapped_column(ForeignKey("channels.name"), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    step: Mapped[int]
    started: Mapped[int]
    sealed_secret: Mapped[bytes | None]


class StreamRow(Base):
    """A directory entry (SC-5)."""

    __tablename__ = "streams"

    channel: Mapped[str] = mapped_column(ForeignKey("channels.name"), primary_key=True)
    stream_id: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    device: Mapped[str] = mapped_column(String, index=True)
    instance: Mapped[str] = mapped_column(String)
    credential: Mapped[bytes]
    head: Mapped[bytes | None]
    next_sequence: Mapped[int]
    """From the head; 0 without one. The head of an entry never goes back (DP-27)."""
    final: Mapped[bool]
    host: Mapped[str | None] = mapped_column(String)
    port: Mapped[int | None]
    not_after: Mapped[int]
    """End of the credential; the entry is dropped afterwards."""
    updated: Mapped[int]


class EndpointRow(Base):
    """Where a device takes messages of its peers (SC-34)."""

    __tablename__ = "endpoints"

    device: Mapped[str] = mapped_column(String, primary_key=True)
    """As policies write it."""
    host: Mapped[str] = mapped_column(String)
    port: Mapped[int]
    updated: Mapped[int]


class CrlRow(Base):
    """Each CRL, as signed."""

    __tablename__ = "crl"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    issued: Mapped[int]
    next_update: Mapped[int]
    der: Mapped[bytes]


class BundleRow(Base):
    """Each version of the trust bundle, as signed (TR-16); none is ever removed."""

    __tablename__ = "bundles"

    version: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    hash: Mapped[bytes]
    issued: Mapped[int]
    signed: Mapped[bytes]


class RotationRow(Base):
    """A rotation of a root, of the site CA's key or of the server's certificate (rotation.py)."""

    __tablename__ = "rotations"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    kind: Mapped[str] = mapped_column(String)
    """A word of `rotation.Kind`."""
    step: Mapped[str] = mapped_column(String)
    """A word of `rotation.Step`: what it waits for."""
    started: Mapped[int]
    finished: Mapped[int | None]
    request: Mapped[bytes | None]
    """DER: the request for the new site CA's certificate."""
    old: Mapped[bytes]
    """DER: the site CA's, or the server's, certificate that goes."""
    new: Mapped[bytes | None]
    """DER: the one that comes; None until it is there."""
    old_root: Mapped[bytes | None]
    new_root: Mapped[bytes | None]
    """DER: where a root is rotated."""
    crosses: Mapped[bytes | None]
    """PEM: the certificates of each root by the other, if they were made."""
    version: Mapped[int | None]
    """The version of the trust bundle whose reports are waited for."""
    switched: Mapped[int | None]
    forced: Mapped[list[str]] = mapped_column(default=list)
    """The steps that were taken ahead of the devices."""


class ReportRow(Base):
    """What a device has last said that it holds (SC-21)."""

    __tablename__ = "reports"

    device: Mapped[str] = mapped_column(ForeignKey("devices.name"), primary_key=True)
    bundle_version: Mapped[int] = mapped_column(BigInteger, index=True)
    serial: Mapped[str] = mapped_column(String)
    """Hexadecimal: the certificate that it reported by."""
    reported: Mapped[int]


class AdminRow(Base):
    """Somebody who may use the management API."""

    __tablename__ = "admins"

    name: Mapped[str] = mapped_column(String, primary_key=True)
    role: Mapped[str] = mapped_column(String)
    """A word of `admins.AdminRole`; looked up for each request, so it changes without a new certificate."""
    added: Mapped[int]
    enrolled: Mapped[int | None]
    """When it last enrolled by a token; None before."""
    revoked: Mapped[int | None]
    """When it was revoked; it stays so until it enrols with a token made after that."""


class RequestRow(Base):
    """A change that was asked for under an Idempotency-Key, and how it was answered."""

    __tablename__ = "requests"

    key: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    """SHA-256 over who asked and the key."""
    digest: Mapped[bytes]
    """SHA-256 over the request itself."""
    time: Mapped[int] = mapped_column(index=True)
    status: Mapped[int]
    sealed_answer: Mapped[bytes]


class AuditRow(Base):
    """What was done, appended in the transaction that did it; each row holds the hash of the one before.

    Triggers refuse to change and to delete rows, and to add one that does not continue the chain.
    """

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    """1, 2, 3 and so on."""
    time: Mapped[int]
    actor: Mapped[str] = mapped_column(String)
    """`admin:NAME`, `local:UID`, `device:NAME`, or `authority` for what it does by itself."""
    action: Mapped[str] = mapped_column(String)
    subject: Mapped[str] = mapped_column(String)
    outcome: Mapped[str] = mapped_column(String)
    """`done` or `refused`."""
    detail: Mapped[dict[str, Any]]
    previous: Mapped[bytes]
    """Hash of the entry before, 32 bytes."""
    hash: Mapped[bytes]
    """SHA-256 over `previous` and the entry's content (audit.py), 32 bytes."""
