"""One answer over huggingface_hub's own session. The one file of the pack that opens connections."""

import sys
from collections.abc import Generator
from typing import Any
from urllib.parse import urlsplit

from .errors import ConnectionBreak, DownloadError

# for requests, which drops what came of a block when a connection breaks
BLOCK_BYTES = 2**14


class Answer:
    """One answer of a server through the session of huggingface_hub, which is of requests or of httpx by its version."""

    def __init__(self, session: Any, url: str, headers: dict[str, str], timeout: float, method: str = "GET"):
        self._breaks = _errors_of(session)
        self._host = urlsplit(url).netloc
        try:
            if hasattr(session, "build_request"):
                request = session.build_request(method, url, headers=headers, timeout=timeout)
                self._response = session.send(request, stream=True, follow_redirects=False, auth=None)
            else:
                # an `auth` of its own keeps requests from looking into ~/.netrc
                more = {"stream": True, "allow_redirects": False, "auth": lambda request: request}
                self._response = session.request(method, url, headers=headers, timeout=timeout, **more)
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


def own_session() -> Any:
    """The one of huggingface_hub; DownloadError where the user forbids connections."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        raise DownloadError(
            "HF_HUB_OFFLINE is set, so nothing is fetched. Unset it and start ComfyUI again; where python dev.py comfy "
            "started it, whose folders are gone afterwards, use python dev.py fetch instead."
        )
    return get_session()


def _errors_of(session: Any) -> tuple[type[BaseException], ...]:
    """What a session raises when a connection fails: OSErrors, and what httpx calls HTTPError."""
    libraries = {kind.__module__.partition(".")[0] for kind in type(session).__mro__}
    return (OSError, *(getattr(sys.modules[name], "HTTPError", OSError) for name in libraries))
