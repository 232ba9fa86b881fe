"""A cluster is spoken to with TLS, or on this machine alone."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import ssl
from typing import Self

import pytest

from engine.errors import UserError
from sim.run.addresses import checked, split
from sim.run.certificates import TLS_DIR, Certificates, given, make

needs_cryptography = pytest.mark.skipif(
    importlib.util.find_spec("cryptography") is None, reason="needs the extra: pip install 'snapdrill[cluster]'"
)


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    made = tmp_path / "certificates"
    make(made)
    return made


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("10.0.0.7:8786", ("tcp", "10.0.0.7", 8786)),
        ("tls://h:1", ("tls", "h", 1)),
        ("tcp://[::1]:0", ("tcp", "::1", 0)),
    ],
)
def test_an_address_is_a_scheme_a_host_and_a_port(address: str, parts: tuple[str, str, int]) -> None:
    assert split(address) == parts


@pytest.mark.parametrize("address", ["", "h", "h:x", "ucx://h:1", ":1", "tcp://h:70000", "h:\u0661"])
def test_anything_else_is_refused(address: str) -> None:
    with pytest.raises(UserError, match="expected an address such as"):
        checked(address, None)


@pytest.mark.parametrize("address", ["127.0.0.1:8786", "tcp://127.0.0.1:0"])
def test_the_loopback_needs_no_certificates_and_is_listened_on_alone(address: str) -> None:
    assert checked(address, None) == (f"tcp://{address.rpartition('/')[2]}", "127.0.0.1")


@pytest.mark.parametrize("address", ["192.0.2.1:8786", "tcp://192.0.2.1:8786"])
def test_another_machine_without_tls_is_refused_with_the_reason(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Probe:
        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def connect(self, there: object) -> None: ...

        def getsockname(self) -> tuple[str, int]:
            return "192.0.2.9", 1

    monkeypatch.setattr("socket.socket", lambda *_, **__: Probe())
    with pytest.raises(UserError, match="refused without TLS, as Dask lets anyone who reaches it run code; use tls://"):
        checked(address, None)
    with pytest.raises(UserError, match="needs certificates; make them with"):
        checked(f"tls://{address.rpartition('/')[2]}", None)


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_every_interface_at_once_is_refused(scheme: str) -> None:
    with pytest.raises(UserError, match="that is every interface; name the address of one"):
        checked(f"{scheme}://0.0.0.0:8786", None)


@needs_cryptography
def test_certificates_are_readable_by_their_owner_alone_and_made_once(folder: pathlib.Path) -> None:
    assert {oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {"0o600"}
    assert folder.stat().st_mode & 0o777 == 0o700
    with pytest.raises(UserError, match="cannot be made: File exists; name a new folder"):
        make(folder)


@needs_cryptography
def test_the_authority_vouches_for_its_certificate_and_for_no_other(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    make(tmp_path / "other")
    assert handshake(folder, folder) is None
    assert isinstance(handshake(folder, tmp_path / "other"), ssl.SSLError)


def handshake(ours: pathlib.Path, theirs: pathlib.Path) -> ssl.SSLError | None:
    """In memory: what the server says of a client with other certificates."""
    ends = []
    for folder, purpose in ((ours, ssl.Purpose.CLIENT_AUTH), (theirs, ssl.Purpose.SERVER_AUTH)):
        context = ssl.create_default_context(purpose, cafile=str(ours / "authority.pem"))
        context.check_hostname, context.verify_mode = False, ssl.CERT_REQUIRED
        context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
        ends.append(context)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = ends[0].wrap_bio(to_server, to_client, server_side=True)
    client = ends[1].wrap_bio(to_client, to_server)
    done = set[ssl.SSLObject]()
    while len(done) < 2:
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                return error
            done.add(end)
    return None


@needs_cryptography
def test_a_key_that_others_may_read_is_refused(folder: pathlib.Path) -> None:
    os.chmod(folder / "key.pem", 0o644)
    with pytest.raises(UserError, match="others may read the key; run: chmod 600"):
        Certificates(folder)


@needs_cryptography
def test_the_environment_names_the_folder(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TLS_DIR, raising=False)
    assert given() is None
    monkeypatch.setenv(TLS_DIR, str(folder))
    assert given() == Certificates(folder)
    monkeypatch.setenv(TLS_DIR, str(folder / "gone"))
    with pytest.raises(UserError, match="cannot be read; make the folder with: snapdrill worker --make-certificates"):
        given()
