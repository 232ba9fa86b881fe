"""Where a cluster may be spoken to: with TLS, or without it on this machine alone."""

from __future__ import annotations

import ipaddress
import socket

from engine.errors import UserError
from sim.run.certificates import Certificates

PORT = 8786
LOCAL = "local"
"""Instead of a cluster's address: a cluster that is started for this batch."""
_WHY = "Dask lets anyone who reaches it run code"


def is_elsewhere(cluster: str | None) -> bool:
    """True if the workers were started elsewhere, with their own options."""
    return cluster not in {None, LOCAL}


def split(address: str) -> tuple[str, str, int]:
    """Scheme (tcp or tls), host and port of `HOST:PORT`, `tcp://HOST:PORT` or `tls://HOST:PORT`; UserError."""
    scheme, _, rest = address.rpartition("://")
    host, _, port = rest.rpartition(":")
    if scheme not in {"", "tcp", "tls"} or not host or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise UserError(f"{address}: expected an address such as tls://10.0.0.7:8786")
    return scheme or "tcp", host.strip("[]"), int(port)


def checked(address: str, certificates: Certificates | None) -> tuple[str, str]:
    """The address with its scheme, and the address of our own interface on the way there.

    UserError where it is neither TLS nor on this machine, or cannot be found.
    """
    scheme, host, port = split(address)
    try:
        family, _, _, _, there = socket.getaddrinfo(host, port or PORT, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(there)  # a datagram socket sends nothing: it only chooses the interface
            ours = str(probe.getsockname()[0])
    except OSError as error:
        raise UserError(f"{address}: {error.strerror or error}") from None
    if ipaddress.ip_address(str(there[0]).partition("%")[0]).is_unspecified:
        raise UserError(f"{address}: that is every interface; name the address of one")
    if scheme == "tls":
        if certificates is None:
            how = "make them with `snapdrill worker --make-certificates DIR`, and name them with --tls-dir or"
            raise UserError(f"{address}: needs certificates; {how} SNAPDRILL_TLS_DIR")
    elif not ipaddress.ip_address(str(there[0]).partition("%")[0]).is_loopback:
        how = "use tls://HOST:PORT (snapdrill worker --make-certificates DIR), or an address of this machine's loopback"
        raise UserError(f"{address}: refused without TLS, as {_WHY}; {how}")
    written = f"[{host}]" if ":" in host else host
    return f"{scheme}://{written}:{port}", ours
