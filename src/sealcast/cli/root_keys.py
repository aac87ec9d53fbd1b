"""A root's key and its certificate, opened where a command uses them: from files, and never kept."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sealcast.errors import CertificateError

if TYPE_CHECKING:
    from sealcast.ca import Root


def open_root(certificate: Path, key: Path, passphrase_file: Path | None) -> "Root":
    """Open a root's key; of a file of several roots, with the one that it is for.

    Raises: StorageError, CertificateError, which name the file.
    """
    root = find_root(certificate, key, passphrase_file)
    if root is None:
        raise CertificateError(
            f"{key}: is not the key of any root in {certificate}: they do not match",
            reason="key",
            cure="give the key of that root",
        )
    return root


def find_root(
    certificate: Path, key: Path, passphrase_file: Path | None, *, maybe_gone: bool = False
) -> "Root | None":
    """The same; None where the key fits none of the file's certificates.

    `maybe_gone`: it may be the key of a root that was replaced: then also None where it is encrypted, and no
    passphrase at hand opens it; nobody is asked.
    """
    from sealcast.authority.issuance import certificates
    from sealcast.ca import KeySigner, PassphraseSource
    from sealcast.ca.keyfile import is_encrypted
    from sealcast.ca.root import root_with
    from sealcast.ca.signer import public_key_of
    from sealcast.pki.certificates import certificates_pem
    from sealcast.pki.files import read_file
    from sealcast.pki.times import system_time

    passphrases: PassphraseSource = PassphraseSource(file=passphrase_file)
    listed, pem = certificates(certificate), read_file(key)
    if maybe_gone:
        passphrases = replace(passphrases, prompt=None)
    try:
        signer = KeySigner.from_pem(pem, str(key), name="root", passphrases=passphrases)
    except CertificateError:
        if maybe_gone and is_encrypted(pem):
            return None
        raise
    fitting = [der for der in listed if public_key_of(der) == signer.public_key]
    if not fitting:
        return None
    try:
        return root_with(signer, certificate_pem=certificates_pem(fitting), now=system_time())
    except CertificateError as error:
        raise CertificateError(
            f"{certificate}: {error.problem}", reason=error.reason, cure=error.cure
        ) from None
