"""The hub: what a repository holds, and the bytes of its files.

Only https is followed, and http on this computer itself; a token goes to huggingface.co alone. Redirects are followed
here, one by one, so that both hold for each of them.
"""

import json
import os
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urljoin, urlsplit

from ..families.family import HUB
from .answer import Answer, own_session
from .errors import ConnectionBreak, DownloadError, WrongBytes

# the login file of huggingface_hub is never read
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
MAX_REDIRECTS = 5
# bytes of a repository's list of files
MAX_LIST = 2**25
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
    def of_environment(cls, variables: Mapping[str, str] = os.environ) -> "Hub":
        """The hub and the token that the environment names; DownloadError for an address that is not followed."""
        address = variables.get("HF_ENDPOINT", "").strip().rstrip("/") or HUB
        if not _is_followed(address):
            raise DownloadError(f"HF_ENDPOINT must be an https address: got {address}.")
        token = next(filter(None, (variables.get(name, "").strip() for name in TOKENS)), "")
        return cls(address, token)

    @property
    def is_mirror(self) -> bool:
        """Whether this is not huggingface.co itself."""
        return not _is_home(self.address)

    def repository(self, name: str) -> Generator[Repository, None, None]:
        """Yields what a repository holds now, once."""
        from huggingface_hub.hf_api import ModelInfo

        url = f"{self.address}/api/models/{name}/revision/main?blobs=true"
        with closing(self.open(url, name)) as answer:
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
        """Asks whether a file may be had; DownloadError where the hub gives it to nobody, or not to us."""
        url = self._url(repository, file)
        answer = Answer(own_session(), url, self._headers(url), self.timeout, "HEAD")
        answer.close()
        # from where its storage lies it may be had
        if answer.status not in REDIRECTS:
            _accept(answer, repository.name, bool(self.token))
        yield

    def blocks(
        self, repository: Repository, file: HubFile, offset: int = 0
    ) -> Generator[tuple[int, bytes], None, None]:
        """(place in the file, bytes) from `offset` on, or from 0 where the server cannot begin later.

        ConnectionBreak when it breaks off; DownloadError when another file comes than was listed.
        """
        with closing(self.open(self._url(repository, file), repository.name, offset)) as answer:
            place = _check_answer(answer, file, offset)
            for block in answer.blocks():
                yield place, block
                place += len(block)

    def _url(self, repository: Repository, file: HubFile) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(repository.name, file.path, revision=repository.commit, endpoint=self.address)

    def open(self, url: str, name: str, offset: int = 0, session: Any = None) -> Answer:
        """The answer at the end of all redirects; its errors speak of the repository `name`.

        `session` is huggingface_hub's own unless another one is named.
        """
        for _ in range(MAX_REDIRECTS + 1):
            answer = Answer(session or own_session(), url, self._headers(url, offset), self.timeout)
            if answer.status not in REDIRECTS:
                return _accept(answer, name, bool(self.token))
            answer.close()
            url = _next_address(url, answer.header("location"))
        raise DownloadError(f"{self.address} redirects without end when asked for {name}.")

    def _headers(self, url: str, offset: int = 0) -> dict[str, str]:
        """What a request says; the token to huggingface.co alone."""
        headers = {"User-Agent": "kinetograph", "Accept-Encoding": "identity"}
        if self.token and _is_home(url):
            headers["Authorization"] = f"Bearer {self.token}"
        if offset:
            headers["Range"] = f"bytes={offset}-"
        return headers


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
    if answer.status == 416:
        raise WrongBytes(
            f"The hub lists a file of {name} with more bytes than it sends: nothing of it is kept."
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
