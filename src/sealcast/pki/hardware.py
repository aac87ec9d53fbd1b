"""What a maker's certificate says of the hardware, to stand in the site's certificate too (IEEE 802.1AR).

The subject's serialNumber, and a hardwareModuleName (RFC 4108 section 5) as otherName in subjectAltName.
"""

from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.x509.oid import NameOID

from sealcast.errors import CertificateError

HARDWARE_MODULE_NAME = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.4")

_MAX_SERIAL_NUMBER = 64
"""X.520: ub-serial-number."""
_MAX_MODULE_BYTES = 255


@asn1.sequence
class _HardwareModuleName:
    hw_type: x509.ObjectIdentifier
    hw_serial_num: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareIdentity:
    """The names of a piece of hardware; whoever passes them on has approved them."""

    serial_number: str | None = None
    """Of the subject: 1 to 64 characters of PrintableString."""
    module: tuple[str, bytes] | None = None
    """hwType as a dotted OID, and hwSerialNum."""

    def __post_init__(self) -> None:
        number = self.serial_number
        if number is not None and not (
            1 <= len(number) <= _MAX_SERIAL_NUMBER
            and all(c.isascii() and (c.isalnum() or c in " '()+,-./:=?") for c in number)
        ):
            raise CertificateError(f"not a serial number of hardware: {number[:80]!r}", reason="name")
        if self.module is not None:
            _object_identifier(self.module[0])
            if not 1 <= len(self.module[1]) <= _MAX_MODULE_BYTES:
                raise CertificateError(
                    f"the serial number of a hardware module has {len(self.module[1])} bytes", reason="name"
                )

    @classmethod
    def of(cls, subject: x509.Name, names: x509.SubjectAlternativeName | None) -> "HardwareIdentity | None":
        """Read it from a subject and its alternative names; None if they say nothing of hardware.

        Raises: CertificateError: there is more than one, or it is malformed.
        """
        numbers = [
            str(attribute.value) for attribute in subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
        ]
        modules = [
            name
            for name in (names or ())
            if isinstance(name, x509.OtherName) and name.type_id == HARDWARE_MODULE_NAME
        ]
        if len(numbers) > 1 or len(modules) > 1:
            raise CertificateError("more than one name of the hardware", reason="name")
        if not numbers and not modules:
            return None
        return cls(
            serial_number=numbers[0] if numbers else None, module=_parsed(modules[0]) if modules else None
        )

    def general_name(self) -> x509.OtherName | None:
        """The hardwareModuleName for subjectAltName."""
        if self.module is None:
            return None
        hw_type, hw_serial_num = self.module
        value = _HardwareModuleName(hw_type=_object_identifier(hw_type), hw_serial_num=hw_serial_num)
        return x509.OtherName(HARDWARE_MODULE_NAME, asn1.encode_der(value))


def _parsed(name: x509.OtherName) -> tuple[str, bytes]:
    try:
        value = asn1.decode_der(_HardwareModuleName, name.value)
    except ValueError:
        raise CertificateError("not a hardwareModuleName", reason="name") from None
    return value.hw_type.dotted_string, value.hw_serial_num


def _object_identifier(text: str) -> x509.ObjectIdentifier:
    try:
        return x509.ObjectIdentifier(text)
    except ValueError:
        raise CertificateError(f"not an object identifier: {text[:80]!r}", reason="name") from None
