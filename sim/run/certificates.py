"""The certificates of a cluster: one for all of its machines, made here, pinned by each of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import UserError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

TLS_DIR = "SNAPDRILL_TLS_DIR"
"""Environment variable: the folder of the certificates, for workers and for anyone who sends them runs."""
_DAYS = 365
_AUTHORITY, _CERTIFICATE, _KEY = "authority.pem", "certificate.pem", "key.pem"


@dataclass(frozen=True, slots=True)
class Certificates:
    """A folder with the cluster's authority, certificate and key."""

    folder: Path

    def __post_init__(self) -> None:
        for name in (_AUTHORITY, _CERTIFICATE, _KEY):
            if not os.access(self.folder / name, os.R_OK):
                made = f"make the folder with: snapdrill worker --make-certificates {self.folder}"
                raise UserError(f"{self.folder / name}: cannot be read; {made}")
        if (self.folder / _KEY).stat().st_mode & 0o077:
            raise UserError(f"{self.folder / _KEY}: others may read the key; run: chmod 600 {self.folder / _KEY}")

    @property
    def authority(self) -> str:
        """The file of the certificate that vouches for the cluster's."""
        return str(self.folder / _AUTHORITY)

    @property
    def certificate(self) -> str:
        """The file of the certificate that every end shows."""
        return str(self.folder / _CERTIFICATE)

    @property
    def key(self) -> str:
        """The file of its key."""
        return str(self.folder / _KEY)


def given(folder: Path | None = None) -> Certificates | None:
    """Those of the folder, else of the one that the environment names; None where neither does."""
    named = folder or (Path(os.environ[TLS_DIR]) if os.environ.get(TLS_DIR) else None)
    return None if named is None else Certificates(named)


def make(folder: Path) -> None:
    """Make a folder, for its owner alone, with an authority that signs this one certificate and is then forgotten.

    UserError where the folder exists, cannot be made, or `cryptography` is not installed.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        raise UserError("this needs cryptography: pip install 'snapdrill[cluster]'") from None
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    files = {
        _AUTHORITY: _certificate("snapdrill authority", authority, authority, authority=True),
        _CERTIFICATE: _certificate("snapdrill", key, authority, authority=False),
        _KEY: _pem(key),
    }
    try:
        folder.mkdir(mode=0o700, parents=True)
        for name, content in files.items():
            fd = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(content)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made: {error.strerror}; name a new folder") from None


def _pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _certificate(name: str, key: EllipticCurvePrivateKey, signer: EllipticCurvePrivateKey, *, authority: bool) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    def named(common: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])

    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named("snapdrill authority"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clocks of machines differ
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .sign(signer, SHA256())
        .public_bytes(Encoding.PEM)
    )
