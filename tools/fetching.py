"""Fetches a picture or a video from an https address, for the person who typed the address and for nobody else.

Only https, after each redirect too; only to hosts of the public network; only so much; and only what its first
bytes call a picture or a video. Nothing of an environment (proxies, netrc, cookies) takes part.
"""

import http.client
import ipaddress
import re
import socket
import ssl
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from .commands import Trouble

MOST_BYTES = {"picture": 100 * 2**20, "video": 2 * 2**30}
MOST_REDIRECTS = 5
PATIENCE = 30.0  # seconds without a byte
PIECE = 2**18
HEAD = 64  # bytes that say what a file is
PLAIN = {
    "picture": {
        b"\x89PNG\r\n\x1a\n": ".png",
        b"\xff\xd8\xff": ".jpg",
        b"GIF87a": ".gif",
        b"GIF89a": ".gif",
        b"BM": ".bmp",
        b"II*\0": ".tiff",
        b"MM\0*": ".tiff",
    },
    "video": {b"\x1aE\xdf\xa3": ".mkv"},
}
RIFF = {b"WEBP": ("picture", ".webp"), b"AVI ": ("video", ".avi")}
STILL_BRANDS = {b"avif", b"avis", b"heic", b"heix", b"mif1"}  # of pictures in mp4's container

Connect = Callable[[str, int], socket.socket]


def connect(host: str, port: int) -> socket.socket:
    """A TLS connection to a host of the public network, its certificate checked."""
    last: OSError = OSError("no address")
    for address in public_addresses(host, port):
        try:
            plain = socket.create_connection((address, port), PATIENCE)
        except OSError as error:
            last = error
            continue
        try:
            return ssl.create_default_context().wrap_socket(plain, server_hostname=host)
        except OSError:
            plain.close()
            raise
    raise last


def public_addresses(
    host: str, port: int, look_up: Callable[..., list[tuple]] = socket.getaddrinfo
) -> list[str]:
    """Where a host is. Raises `Trouble` when one of its addresses is this machine's or a private network's."""
    addresses = [entry[4][0] for entry in look_up(host, port, type=socket.SOCK_STREAM)]
    inside = [address for address in addresses if not is_public(address)]
    if inside:
        raise Trouble(f"{host} is {inside[0]}, inside a private network: nothing is fetched from there.")
    return addresses


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public network, by the registries of IANA."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None) or ip
    return ip.is_global and not ip.is_multicast


def fetch(address: str, folder: Path, kind: str, connect: Connect = connect) -> Path:
    """Save what is at an address, a "picture" or a "video", in a folder under a name that is free there."""
    with closing(_open(address, connect)) as answer:
        head = answer.read(HEAD)
        found, suffix = kind_of(head)
        if found != kind:
            said = f"a {found}" if found else "neither a picture nor a video that is known here"
            raise Trouble(f"{address} is {said}, a {kind} was wanted. Nothing was kept.")
        path = free_path(folder, _stem(address), suffix)
        try:
            with path.open("xb") as file:
                _copy(answer, head, file.write, MOST_BYTES[kind], address)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    return path


def kind_of(head: bytes) -> tuple[str, str]:
    """("picture" or "video", suffix) by a file's first bytes; two empty texts for anything else."""
    for kind, signatures in PLAIN.items():
        for signature, suffix in signatures.items():
            if head.startswith(signature):
                return kind, ".webm" if suffix == ".mkv" and b"webm" in head else suffix
    if head.startswith(b"RIFF"):
        return RIFF.get(head[8:12], ("", ""))
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        return (
            ("picture", ".avif")
            if brand in STILL_BRANDS
            else ("video", ".mov" if brand == b"qt  " else ".mp4")
        )
    return "", ""


def free_path(folder: Path, stem: str, suffix: str) -> Path:
    """A path at which nothing lies: the name itself, or the name with a number."""
    path, number = folder / f"{stem}{suffix}", 2
    while path.exists():
        path, number = folder / f"{stem}_{number}{suffix}", number + 1
    return path


def _open(address: str, connect: Connect) -> http.client.HTTPResponse:
    """The answer that holds the file, redirects followed."""
    at = address
    for _ in range(MOST_REDIRECTS + 1):
        answer = _get(at, connect)
        where = answer.getheader("Location")
        if answer.status in (301, 302, 303, 307, 308) and where:
            answer.close()
            at = urljoin(at, where)
            continue
        if answer.status != 200:
            answer.close()
            raise Trouble(f"{at} answered {answer.status} {answer.reason}.")
        return answer
    raise Trouble(f"{address} was redirected more than {MOST_REDIRECTS} times.")


def _get(address: str, connect: Connect) -> http.client.HTTPResponse:
    parts = urlsplit(address)
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc:
        raise Trouble(f"Only https addresses without a user's name are fetched, and {address!r} is none.")
    try:
        connection = http.client.HTTPSConnection(parts.hostname, parts.port or 443, timeout=PATIENCE)
        connection.sock = connect(parts.hostname, connection.port)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"User-Agent": "kinetograph", "Accept-Encoding": "identity"})
        return connection.getresponse()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Trouble(f"{address} cannot be fetched: {error or type(error).__name__}.") from error


def _copy(
    answer: http.client.HTTPResponse, head: bytes, write: Callable[[bytes], object], most: int, address: str
) -> None:
    """Write head and rest. Raises `Trouble` when more comes than may, or less than was announced."""
    announced = int(length) + len(head) if (length := answer.length) is not None else None
    done, piece = 0, head
    try:
        while piece:
            done += len(piece)
            if done > most or (announced or 0) > most:
                raise Trouble(f"{address} is larger than {most // 2**20} MB: not fetched.")
            write(piece)
            piece = answer.read(PIECE)
    except (OSError, http.client.HTTPException) as error:
        raise Trouble(f"{address} broke off after {done} bytes: {error or type(error).__name__}.") from error
    if announced not in (None, done):
        raise Trouble(f"{address} broke off after {done} of {announced} bytes. Try again.")


def _stem(address: str) -> str:
    """A plain file name from an address's last part."""
    last = Path(unquote(urlsplit(address).path)).stem
    return re.sub(r"[^A-Za-z0-9_-]+", "_", last).strip("_")[:60] or "fetched"
