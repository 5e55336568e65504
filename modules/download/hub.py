"""The hub through huggingface_hub's own session: what a repository holds, and the bytes of its files.

The one file of the pack that opens connections. Only https is followed, and http on this computer itself; a token goes
to huggingface.co alone. Redirects are followed here, one by one, so that both hold for each of them.
"""

import json
import os
import sys
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urljoin, urlsplit

from ..families.family import HUB
from .errors import ConnectionBreak, DownloadError

# the login file of huggingface_hub is never read
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
MAX_REDIRECTS = 5
# bytes of a repository's list of files
MAX_LIST = 2**25
BLOCK_BYTES = 2**16
REDIRECTS = (301, 302, 303, 307, 308)
TAKEN = (200, 206)
CLOSED = (401, 403, 451)
BUSY = (408, 429, 500, 502, 503, 504)
FORBIDDEN = set('\\:*?"<>|')


@dataclass(frozen=True)
class HubFile:
    """One file of a repository, as the hub lists it."""

    path: str
    bytes: int
    # None for small files, of which git's own hash is told
    sha256: str | None
    blob: str | None

    @property
    def identity(self) -> str:
        """What its bytes are told by."""
        return self.sha256 or self.blob or ""


@dataclass(frozen=True)
class Repository:
    """A repository at one commit."""

    name: str
    commit: str
    files: tuple[HubFile, ...]
    # the word of its page; empty where it has none
    licence: str
    gated: bool


@dataclass(frozen=True)
class Hub:
    """Where files come from: huggingface.co, or the mirror of HF_ENDPOINT."""

    address: str = HUB
    token: str = field(default="", repr=False)
    # seconds to wait for a connection and for the next bytes
    timeout: float = 20.0
    # seconds before each further try while nothing new comes
    pauses: tuple[float, ...] = (1, 2, 4, 8)

    @classmethod
    def of_environment(cls) -> "Hub":
        """The hub and the token that the environment names; DownloadError for an address that is not followed."""
        address = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or HUB
        if not _is_followed(address):
            raise DownloadError(f"HF_ENDPOINT must be an https address: got {address}.")
        token = next(filter(None, (os.environ.get(name, "").strip() for name in TOKENS)), "")
        return cls(address, token)

    @property
    def is_mirror(self) -> bool:
        """Whether this is not huggingface.co itself."""
        return not _is_home(self.address)

    def repository(self, name: str) -> Generator[Repository, None, None]:
        """Yields what a repository holds now, once."""
        from huggingface_hub.hf_api import ModelInfo

        url = f"{self.address}/api/models/{name}/revision/main?blobs=true"
        with closing(self._open(url, name)) as answer:
            body = b""
            for block in answer.blocks():
                body += block
                if len(body) > MAX_LIST:
                    raise DownloadError(f"The hub's list of {name} is longer than {MAX_LIST:,} bytes.")
        try:
            yield _read_repository(name, ModelInfo(**json.loads(body)))
        except (ValueError, TypeError, AttributeError, KeyError) as problem:
            raise DownloadError(
                f"{self.address} answers with no list of the files of {name}: is it a hub or a mirror of it?"
            ) from problem

    def check_access(self, repository: Repository, file: HubFile) -> Generator[None, None, None]:
        """Asks for a file and takes none of it; DownloadError where the hub gives it to nobody, or not to us."""
        with closing(self._open(self._url(repository, file), repository.name)):
            yield

    def blocks(
        self, repository: Repository, file: HubFile, offset: int = 0
    ) -> Generator[tuple[int, bytes], None, None]:
        """(place in the file, bytes) from `offset` on, or from 0 where the server cannot begin later.

        ConnectionBreak when it breaks off; DownloadError when another file comes than was listed.
        """
        with closing(self._open(self._url(repository, file), repository.name, offset)) as answer:
            place = _check_answer(answer, file, offset)
            for block in answer.blocks():
                yield place, block
                place += len(block)

    def _url(self, repository: Repository, file: HubFile) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(repository.name, file.path, revision=repository.commit, endpoint=self.address)

    def _open(self, url: str, name: str, offset: int = 0) -> "Answer":
        """The answer at the end of all redirects; its errors speak of the repository `name`."""
        for _ in range(MAX_REDIRECTS + 1):
            headers = {"User-Agent": "kinetograph", "Accept-Encoding": "identity"}
            if self.token and _is_home(url):
                headers["Authorization"] = f"Bearer {self.token}"
            if offset:
                headers["Range"] = f"bytes={offset}-"
            answer = Answer(url, headers, self.timeout)
            if answer.status not in REDIRECTS:
                return _accept(answer, name, bool(self.token))
            answer.close()
            url = _next_address(url, answer.header("location"))
        raise DownloadError(f"{self.address} redirects without end when asked for {name}.")


class Answer:
    """One answer of a server through the session of huggingface_hub, which is of requests or of httpx by its version."""

    def __init__(self, url: str, headers: dict[str, str], timeout: float):
        from huggingface_hub import constants
        from huggingface_hub.utils import get_session

        if constants.HF_HUB_OFFLINE:
            raise DownloadError(
                "HF_HUB_OFFLINE is set, so nothing is fetched. Unset it and start ComfyUI again, or put the files into "
                "the model folders yourself."
            )
        session: Any = get_session()
        self._breaks = _errors_of(session)
        self._host = urlsplit(url).netloc
        try:
            if hasattr(session, "build_request"):
                request = session.build_request("GET", url, headers=headers, timeout=timeout)
                self._response = session.send(request, stream=True, follow_redirects=False, auth=None)
            else:
                # an `auth` of its own keeps requests from looking into ~/.netrc
                more = {"stream": True, "allow_redirects": False, "auth": lambda request: request}
                self._response = session.get(url, headers=headers, timeout=timeout, **more)
        except self._breaks as problem:
            raise self._break(problem) from problem
        self.status: int = self._response.status_code

    def header(self, name: str) -> str:
        """A header's value; empty where it was not sent."""
        return self._response.headers.get(name) or ""

    def blocks(self) -> Generator[bytes, None, None]:
        """The body as it comes."""
        is_httpx = hasattr(self._response, "iter_bytes")
        body = self._response.iter_bytes() if is_httpx else self._response.iter_content(BLOCK_BYTES)
        try:
            yield from body
        except self._breaks as problem:
            raise self._break(problem) from problem

    def close(self) -> None:
        self._response.close()

    def _break(self, problem: BaseException) -> ConnectionBreak:
        return ConnectionBreak(f"{self._host}: {type(problem).__name__}: {str(problem)[:200]}")


def _errors_of(session: Any) -> tuple[type[BaseException], ...]:
    """What a session raises when a connection fails: OSErrors, and what httpx calls HTTPError."""
    libraries = {kind.__module__.partition(".")[0] for kind in type(session).__mro__}
    return (OSError, *(getattr(sys.modules[name], "HTTPError", OSError) for name in libraries))


def _is_home(url: str) -> bool:
    place = urlsplit(url)
    return place.scheme == "https" and place.netloc.lower() == urlsplit(HUB).netloc


def _is_followed(url: str) -> bool:
    place = urlsplit(url)
    return place.scheme == "https" or (place.scheme == "http" and place.hostname in LOOPBACK)


def _next_address(url: str, location: str) -> str:
    """Where a redirect leads; DownloadError for one that leaves https."""
    address = urljoin(url, location)
    if not _is_followed(address) or (urlsplit(url).scheme, urlsplit(address).scheme) == ("https", "http"):
        place = urlsplit(address)
        raise DownloadError(
            f"{urlsplit(url).netloc} redirects to {place.scheme}://{place.netloc}, which is not followed: only https is."
        )
    return address


def _accept(answer: Answer, name: str, has_token: bool) -> Answer:
    """The answer itself, when it holds what was asked for."""
    if answer.status in TAKEN:
        return answer
    answer.close()
    if answer.status in CLOSED:
        raise DownloadError(closed(name, answer.status, has_token))
    if answer.status in BUSY:
        raise ConnectionBreak(f"answer {answer.status}")
    if answer.status == 404:
        raise DownloadError(
            f"The hub has no such file or repository any more: {HUB}/{name} says what there is."
        )
    raise DownloadError(f"The hub answers {answer.status} when asked for {HUB}/{name}.")


def closed(name: str, status: int, has_token: bool) -> str:
    """What to do where the hub gives nothing to a stranger."""
    now = "The token that is set has no access to it" if has_token else "No token is set"
    return (
        f"The hub does not give out {name} without more ado (answer {status}). Open {HUB}/{name}, accept its terms "
        f"there, then set HF_TOKEN to a token of your account with the right to read it, and start ComfyUI again. {now}. "
        "A token is sent to huggingface.co alone, never to a mirror."
    )


def _check_answer(answer: Answer, file: HubFile, offset: int) -> int:
    """Where in the file the answer begins; DownloadError where it is not that file."""
    if answer.header("content-type").startswith("text/html"):
        raise DownloadError(
            f"A web page came instead of {file.path}: a proxy or a login page may stand between this computer and the "
            "hub. Open the hub's page in a browser, then try again."
        )
    if answer.status == 206:
        place, _, size = answer.header("content-range").removeprefix("bytes ").partition("/")
        begins = place.partition("-")[0] == str(offset)
        if not begins or size not in ("*", str(file.bytes)):
            raise DownloadError(_other_size(file, f"bytes {place} of {size}"))
        return offset
    length = answer.header("content-length")
    if length and not answer.header("content-encoding") and length != str(file.bytes):
        raise DownloadError(_other_size(file, f"{length} bytes"))
    return 0


def _other_size(file: HubFile, got: str) -> str:
    return f"The hub lists {file.path} with {file.bytes:,} bytes and sends {got}: nothing of it is used. Try again later."


def _read_repository(name: str, info: Any) -> Repository:
    """The hub's answer; TypeError, ValueError or AttributeError where it is none."""
    files = tuple(
        HubFile(each.rfilename, int(each.size), each.lfs.sha256 if each.lfs else None, each.blob_id)
        for each in info.siblings
        if each.size is not None
    )
    card = getattr(info, "card_data", None)
    licence = (card.get("license_name") or card.get("license")) if card else ""
    if not isinstance(info.sha, str) or not info.sha.isalnum():
        raise ValueError("no commit")
    return Repository(name, info.sha, files, str(licence or ""), bool(info.gated))


def is_plain(path: str) -> bool:
    """Whether a path of the hub stays below the folder that it is put into, on every system."""
    parts = PurePosixPath(path).parts
    return bool(parts) and path[0] != "/" and not {"..", "."} & {*parts} and not FORBIDDEN & {*path}
