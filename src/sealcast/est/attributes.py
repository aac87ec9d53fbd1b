"""CSR attributes: what a server wants to see in a request (RFC 7030 section 4.5, RFC 8951, RFC 9908).

There are two ways to say it. The old one is a flat list of object identifiers and of attributes with values.
The new one is a template of the request itself (RFC 9908 section 3.4), with holes for what the client fills
in. Who understands the template uses it alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Self, TypeVar

from cryptography import x509
from cryptography.hazmat import asn1

from sealcast.errors import NetworkError, UsageError

Oid = x509.ObjectIdentifier

CHALLENGE_PASSWORD = Oid("1.2.840.113549.1.9.7")
EXTENSION_REQUEST = Oid("1.2.840.113549.1.9.14")
REQUEST_TEMPLATE = Oid("1.2.840.113549.1.9.16.2.61")
EXTENSION_TEMPLATE = Oid("1.2.840.113549.1.9.16.2.62")
RSA_ENCRYPTION = Oid("1.2.840.113549.1.1.1")
EC_PUBLIC_KEY = Oid("1.2.840.10045.2.1")
SECP256R1 = Oid("1.2.840.10045.3.1.7")
SECP384R1 = Oid("1.3.132.0.34")
ECDSA_WITH_SHA256 = Oid("1.2.840.10045.4.3.2")
COMMON_NAME = Oid("2.5.4.3")
SUBJECT_ALT_NAME = Oid("2.5.29.17")

MAX_ATTRIBUTES_BYTES = 64 * 1024
"""A client reads no longer answer; those in use have some hundred bytes."""


@asn1.sequence
class _Attribute:
    type: Oid
    values: asn1.SetOf[asn1.TLV]


@asn1.sequence
class _Extension:
    id: Oid
    critical: Annotated[bool, asn1.Default(False)]
    value: bytes | None


@asn1.sequence
class _KeyTemplate:
    algorithm: asn1.TLV
    public_key: asn1.BitString | None


@asn1.sequence
class _RequestTemplate:
    version: int
    # The innermost list is SingleAttributeTemplate: a type, and a value of any kind that may be absent, which
    # the library has no words for.
    subject: list[asn1.SetOf[list[asn1.TLV]]] | None
    key: Annotated[_KeyTemplate | None, asn1.Implicit(0)]
    attributes: Annotated[asn1.SetOf[_Attribute], asn1.Implicit(1)]


@asn1.sequence
class _Algorithm:
    id: Oid
    curve: Oid


# The library knows named structures only, no bare SEQUENCE OF. So one is read and written as the only field
# of a structure, which is put around it, or taken off, by encoding the same bytes as another type.
@asn1.sequence
class _AroundList:
    items: list[Oid | _Attribute]


@asn1.sequence
class _AroundExtensions:
    items: list[_Extension]


@asn1.sequence
class _AroundNames:
    items: list[asn1.TLV]


@asn1.sequence
class _AroundAny:
    item: asn1.TLV


Structure = TypeVar("Structure")


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedExtension:
    """An extension that the request should ask for."""

    oid: Oid
    critical: bool = False
    value: bytes | None = None
    """DER; None: the client fills it in."""

    @property
    def is_open(self) -> bool:
        """Whether the client has to fill in something: the value, or a name in it (RFC 9908 section 3.4)."""
        if self.value is None or self.oid != SUBJECT_ALT_NAME:
            return self.value is None
        try:
            names = [name.data.tobytes() for name in _decode_wrapped(_AroundNames, self.value).items]
        except ValueError:
            return True
        # An address of no bytes, a directory name of no parts.
        return any(name in (b"", b"\x30\x00") for name in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedAttribute:
    """An attribute of the old list: its type, and the values that it should have."""

    oid: Oid
    values: tuple[bytes, ...]
    """DER, at least one."""

    @classmethod
    def key(cls, curve: Oid) -> Self:
        """An elliptic curve key on `curve`."""
        return cls(oid=EC_PUBLIC_KEY, values=(asn1.encode_der(curve),))

    @classmethod
    def extensions(cls, wanted: Sequence[WantedExtension]) -> Self:
        """Extensions with their values: one Extensions in the set (RFC 9908 section 3.2)."""
        if not wanted or any(extension.value is None for extension in wanted):
            raise UsageError("extensions of the old list have values", cure="use a template for open ones")
        return cls(oid=EXTENSION_REQUEST, values=(_encode_extensions(wanted),))


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTemplate:
    """The request, partly filled in (RFC 9908 section 3.4)."""

    subject: tuple[tuple[Oid, bytes | None], ...] | None = None
    """One attribute in each relative name; DER values, None: the client fills it in."""
    curve: Oid | None = None
    """Of the key; None: any key."""
    extensions: tuple[WantedExtension, ...] = ()
    other_key: bool = False
    """Read only: a key of another kind than elliptic curves."""

    def name(self, known: Mapping[Oid, str]) -> x509.Name | None:
        """Return the subject with the open values filled in; what nobody knows is left out.

        Returns: None if nothing is left. Raises: NetworkError if a value is no string.
        """
        attributes = [
            x509.NameAttribute(oid, known[oid] if value is None else _text(value))
            for oid, value in self.subject or ()
            if value is not None or oid in known
        ]
        return x509.Name(attributes) if attributes else None


@dataclass(frozen=True, slots=True, kw_only=True)
class CsrAttributes:
    """What a server wants."""

    wanted: tuple[Oid | WantedAttribute, ...] = ()
    """The old list, in its order."""
    template: RequestTemplate | None = None

    def __post_init__(self) -> None:
        if sum(entry.oid == EXTENSION_REQUEST for entry in self._attributes()) > 1:
            raise UsageError("more than one list of extensions", cure="put them into one (RFC 9908)")

    def serialize(self) -> bytes:
        """Return DER."""
        entries: list[Oid | _Attribute] = [
            _encode_attribute(entry) if isinstance(entry, WantedAttribute) else entry for entry in self.wanted
        ]
        if self.template is not None:
            entries.append(_attribute(REQUEST_TEMPLATE, [_encode_template(self.template)]))
        return _strip(asn1.encode_der(_AroundList(items=entries)))

    @classmethod
    def parse(cls, der: bytes) -> Self:
        """Read what a server sent. Raises: NetworkError."""
        if len(der) > MAX_ATTRIBUTES_BYTES:
            raise NetworkError(f"CSR attributes of {len(der)} bytes, more than {MAX_ATTRIBUTES_BYTES}")
        try:
            entries = _decode_wrapped(_AroundList, der).items
            templates = [
                value
                for entry in entries
                if isinstance(entry, _Attribute) and entry.type == REQUEST_TEMPLATE
                for value in entry.values.as_list()
            ]
            if len(templates) > 1:
                raise ValueError("more than one template")
            return cls(
                wanted=tuple(
                    _decode_attribute(entry) if isinstance(entry, _Attribute) else entry
                    for entry in entries
                    if not (isinstance(entry, _Attribute) and entry.type == REQUEST_TEMPLATE)
                ),
                template=_decode_template(asn1.encode_der(templates[0])) if templates else None,
            )
        except (ValueError, UsageError) as error:
            raise NetworkError(
                f"the CSR attributes make no sense: {error}", cure="report it to the server's operator"
            ) from None

    @property
    def wants_linking(self) -> bool:
        """Whether the request must carry tls-unique (RFC 8951, section 4.5.2 of RFC 7030)."""
        return CHALLENGE_PASSWORD in self.wanted

    @property
    def curve(self) -> Oid | None:
        """The curve of the key, where one is asked for."""
        if self.template is not None:
            return self.template.curve
        for entry in self._attributes():
            if entry.oid == EC_PUBLIC_KEY:
                with suppress(ValueError):
                    return asn1.decode_der(Oid, entry.values[0])
        return None

    @property
    def wants_other_key(self) -> bool:
        """Whether a key of another kind than elliptic curves is asked for."""
        if self.template is not None:
            return self.template.other_key
        kinds = [entry.oid for entry in self._attributes() if entry.oid in (EC_PUBLIC_KEY, RSA_ENCRYPTION)]
        return bool(kinds) and EC_PUBLIC_KEY not in kinds

    @property
    def extensions(self) -> tuple[WantedExtension, ...]:
        """The extensions to ask for; with a template those of the template alone."""
        if self.template is not None:
            return self.template.extensions
        for entry in self._attributes():
            if entry.oid == EXTENSION_REQUEST:
                # RFC 8951 still had object identifiers here, which say nothing that a client could use.
                with suppress(ValueError):
                    return _decode_extensions(entry.values[0])
        return ()

    def _attributes(self) -> list[WantedAttribute]:
        return [entry for entry in self.wanted if isinstance(entry, WantedAttribute)]


def _encode_template(template: RequestTemplate) -> bytes:
    subject = None
    if template.subject is not None:
        subject = [
            asn1.SetOf([[_any(asn1.encode_der(oid)), *([] if value is None else [_any(value)])]])
            for oid, value in template.subject
        ]
    key = None
    if template.curve is not None:
        algorithm = asn1.encode_der(_Algorithm(id=EC_PUBLIC_KEY, curve=template.curve))
        key = _KeyTemplate(algorithm=_any(algorithm), public_key=None)
    attributes = []
    if template.extensions:
        # RFC 9908: id-aa-extensionReqTemplate only where a value is open, and never both kinds.
        is_open = any(extension.value is None for extension in template.extensions)
        oid = EXTENSION_TEMPLATE if is_open else EXTENSION_REQUEST
        attributes.append(_attribute(oid, [_encode_extensions(template.extensions)]))
    return asn1.encode_der(
        _RequestTemplate(version=0, subject=subject, key=key, attributes=asn1.SetOf(attributes))
    )


def _decode_template(der: bytes) -> RequestTemplate:
    found = asn1.decode_der(_RequestTemplate, der)
    if found.version != 0:
        raise ValueError(f"a template of version {found.version}")
    kinds = [
        attribute
        for attribute in found.attributes.as_list()
        if attribute.type in (EXTENSION_REQUEST, EXTENSION_TEMPLATE)
    ]
    if len(kinds) > 1:
        raise ValueError("a template with more than one list of extensions")
    subject = None
    if found.subject is not None:
        subject = tuple(_decode_name(pair) for name in found.subject for pair in name.as_list())
    curve = None if found.key is None else _curve(found.key.algorithm)
    return RequestTemplate(
        subject=subject,
        curve=curve,
        other_key=found.key is not None and curve is None,
        extensions=tuple(
            extension
            for attribute in kinds
            for extension in _decode_extensions(_only(attribute.values.as_list()))
        ),
    )


def _decode_name(pair: list[asn1.TLV]) -> tuple[Oid, bytes | None]:
    if not 1 <= len(pair) <= 2:
        raise ValueError("a relative name that is neither a type nor a type and a value")
    value = asn1.encode_der(pair[1]) if len(pair) == 2 else None
    return asn1.decode_der(Oid, asn1.encode_der(pair[0])), value


def _text(der: bytes) -> str:
    with suppress(ValueError):
        return asn1.decode_der(str, der)
    with suppress(ValueError):
        return asn1.decode_der(asn1.PrintableString, der).as_str()
    with suppress(ValueError):
        return asn1.decode_der(asn1.IA5String, der).as_str()
    raise NetworkError("a name in the CSR attributes is no string")


def _curve(algorithm: asn1.TLV) -> Oid | None:
    try:
        found = asn1.decode_der(_Algorithm, asn1.encode_der(algorithm))
    except ValueError:
        return None
    return found.curve if found.id == EC_PUBLIC_KEY else None


def _encode_extensions(wanted: Iterable[WantedExtension]) -> bytes:
    items = [_Extension(id=entry.oid, critical=entry.critical, value=entry.value) for entry in wanted]
    return _strip(asn1.encode_der(_AroundExtensions(items=items)))


def _decode_extensions(der: bytes) -> tuple[WantedExtension, ...]:
    return tuple(
        WantedExtension(oid=entry.id, critical=entry.critical, value=entry.value)
        for entry in _decode_wrapped(_AroundExtensions, der).items
    )


def _encode_attribute(attribute: WantedAttribute) -> _Attribute:
    return _attribute(attribute.oid, attribute.values)


def _decode_attribute(attribute: _Attribute) -> WantedAttribute:
    values = tuple(asn1.encode_der(value) for value in attribute.values.as_list())
    if not values:
        raise ValueError(f"attribute {attribute.type.dotted_string} without a value")
    if attribute.type == EXTENSION_REQUEST:
        _only(attribute.values.as_list())
    return WantedAttribute(oid=attribute.type, values=values)


def _attribute(oid: Oid, values: Iterable[bytes]) -> _Attribute:
    return _Attribute(type=oid, values=asn1.SetOf([_any(value) for value in values]))


def _only(values: list[asn1.TLV]) -> bytes:
    if len(values) != 1:
        raise ValueError(f"{len(values)} lists of extensions in one attribute")
    return asn1.encode_der(values[0])


def _any(der: bytes) -> asn1.TLV:
    return asn1.decode_der(asn1.TLV, der)


def _strip(der: bytes) -> bytes:
    return asn1.encode_der(asn1.decode_der(_AroundAny, der).item)


def _decode_wrapped(structure: type[Structure], der: bytes) -> Structure:
    return asn1.decode_der(structure, asn1.encode_der(_AroundAny(item=_any(der))))


__all__ = [
    "CHALLENGE_PASSWORD",
    "COMMON_NAME",
    "ECDSA_WITH_SHA256",
    "EC_PUBLIC_KEY",
    "EXTENSION_REQUEST",
    "EXTENSION_TEMPLATE",
    "REQUEST_TEMPLATE",
    "SECP256R1",
    "SECP384R1",
    "CsrAttributes",
    "RequestTemplate",
    "WantedAttribute",
    "WantedExtension",
]
