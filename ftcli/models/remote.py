"""A chat model behind an OpenAI-compatible server: `POST /chat/completions`, with retries, and several requests at a time.

Nothing is sent but the messages and the sampling settings; the key goes into the header and nowhere else, and to no other host.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ftcli.core.errors import StageFailed, UsageError

Messages = Sequence[Mapping[str, Any]]
AGAIN = (408, 409, 425, 429)
"""Answers below 500 after which the same request may do better a little later."""
KEY_REFUSED = (401, 403)
REQUEST_REFUSED = (400, 413, 422)
LONGEST_WAIT_S = 60.0
SHOWN_CHARS = 300


@dataclass(frozen=True)
class Reply:
    """``text`` as the model said it; ``first`` the log-probs of the likeliest first tokens, empty where the server tells none;
    ``tokens`` of prompt and reply as the server counted them, None where it does not."""

    text: str
    finish_reason: str = ""
    first: Mapping[str, float] = field(default_factory=dict)
    tokens: int | None = field(default=None, compare=False)


class RequestRefused(UsageError):
    """The server takes requests, but not this one: too long for the model, or with a setting that it does not know."""


class RemoteChat:
    """The model ``model`` at ``url``, to which ``/v1`` is added if it is a host alone. ``key_name`` is the environment variable of
    the key, for messages.

    A request is tried ``attempts`` times in all, after 1, 2, 4, ... times ``wait_s``, or what the server asks for, `LONGEST_WAIT_S`
    at most. Raises `UsageError` for what is no address, and for a key that cannot be sent.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key: str | None = None,
        key_name: str = "",
        *,
        timeout_s: float = 120.0,
        attempts: int = 5,
        wait_s: float = 1.0,
        at_once: int = 4,
    ) -> None:
        self.url, self.model = _address(url), model
        self._key = (key or "").strip()
        self._key_name = key_name
        if not (self._key.isascii() and self._key.isprintable()):  # http.client would show it in its error
            raise UsageError(
                f"{key_name or 'the key'} has characters that no key has", "set it to the server's key, on one line"
            )
        self._headers = {"Content-Type": "application/json"}
        if self._key:
            self._headers["Authorization"] = f"Bearer {self._key}"
        self._timeout_s, self._attempts, self._wait_s, self._at_once = timeout_s, attempts, wait_s, at_once
        self._opener = build_opener(_NoRedirect)

    def replies(
        self, prompts: Sequence[Messages], on_reply: Callable[[int], None] = lambda done: None, **settings: Any
    ) -> list[Reply | RequestRefused]:
        """What comes of each prompt, in their order: a reply, or why the server does not take this prompt. Any other failure ends
        the rest and is raised."""
        found: dict[int, Reply | RequestRefused] = {}
        stop = threading.Event()

        def ask(messages: Messages) -> Reply | RequestRefused:
            try:
                return self.reply(messages, stop, **settings)
            except RequestRefused as error:
                return error

        with ThreadPoolExecutor(self._at_once) as pool:
            try:
                places = {pool.submit(ask, messages): place for place, messages in enumerate(prompts)}
                for future in as_completed(places):
                    found[places[future]] = future.result()
                    on_reply(len(found))
            except BaseException:
                stop.set()  # those that wait for their next attempt do not
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [found[place] for place in range(len(prompts))]

    def reply(self, messages: Messages, stop: threading.Event | None = None, **settings: Any) -> Reply:
        """One reply. ``settings`` go into the request as they are (temperature, max_tokens, logprobs, ...).

        Raises `UsageError` where the server refuses the key or does not know the model, its subclass `RequestRefused` where it
        refuses this request, `StageFailed` where it does not answer, or not with a chat completion. ``stop`` ends the attempts.
        """
        body = json.dumps({"model": self.model, "messages": list(messages), **settings}).encode()
        problem, wait_s, stop = "", 0.0, stop or threading.Event()
        for attempt in range(self._attempts):
            if attempt and stop.wait(min(max(self._wait_s * 2 ** (attempt - 1), wait_s), LONGEST_WAIT_S)):
                break
            try:
                return _reply_of(self._exchange(body))
            except HTTPError as error:
                problem, wait_s = self._refused(error), _retry_after_s(error)
            except (HTTPException, OSError, ValueError) as error:
                problem, wait_s = self._without_key(str(getattr(error, "reason", "") or error)), 0.0
        raise StageFailed(
            f"{self.url}: no reply after {self._attempts} attempts: {problem}",
            "see that an OpenAI-compatible server is up there, and run the same command again",
        )

    def _exchange(self, body: bytes) -> bytes:
        request = Request(f"{self.url}/chat/completions", body, self._headers)
        with self._opener.open(request, timeout=self._timeout_s) as response:
            data: bytes = response.read()
            return data

    def _refused(self, error: HTTPError) -> str:
        """What to say of an answer that may come right later; raises for one that will not."""
        said = ""
        with suppress(OSError, HTTPException):  # the status says enough
            said = self._without_key(error.read().decode(errors="replace"))
        if error.code in AGAIN or error.code >= 500:
            return f"{error.code} {said}"
        if error.code in KEY_REFUSED:
            key = f"set {self._key_name} to the server's key" if self._key_name else "give the server's key"
            raise UsageError(f"{self.url}: {error.code}: the server refuses the key: {said}", key) from None
        if error.code in REQUEST_REFUSED:
            raise RequestRefused(f"{self.url}: {error.code}: the server refuses the request: {said}") from None
        raise UsageError(
            f"{self.url}: {error.code}: the server has no {self.model} to chat with there: {said}",
            f"`curl {self.url}/models` lists what it serves",
        ) from None

    def _without_key(self, text: str) -> str:
        shown = text.replace(self._key, "[key]") if self._key else text
        return " ".join(shown.split())[:SHOWN_CHARS]


class _NoRedirect(HTTPRedirectHandler):
    """urllib would send the key along, to whatever host it is led to."""

    def redirect_request(self, *about: Any) -> None:
        return None


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise UsageError(f"{url}: no address of a server", "give one such as http://localhost:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError(
            f"{parts.scheme}://{parts.hostname}: an address ends with its path, and has no user, password or query in it",
            "give one such as http://localhost:8000/v1, and the key in the environment",
        )
    return url.rstrip("/") if parts.path.strip("/") else f"{url.rstrip('/')}/v1"


def _reply_of(data: bytes) -> Reply:
    """The reply in a server's answer. Raises `ValueError`, with what it says instead, where there is none."""
    try:
        answer = json.loads(data)
        choice = answer["choices"][0]
        text, reason = choice["message"]["content"] or "", choice.get("finish_reason") or ""
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ValueError(f"no chat completion: {data.decode(errors='replace')}") from None
    return Reply(str(text), str(reason), _first_logprobs(choice), _tokens(answer))


def _tokens(answer: Mapping[str, Any]) -> int | None:
    usage = answer.get("usage")
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    return total if type(total) is int and total >= 0 else None


def _first_logprobs(choice: Mapping[str, Any]) -> dict[str, float]:
    """Of the likeliest first tokens; empty where the server tells none, or in another form."""
    try:
        items = choice["logprobs"]["content"][0]["top_logprobs"]
        return {str(item["token"]): float(item["logprob"]) for item in items}
    except (LookupError, TypeError, ValueError):
        return {}


def _retry_after_s(error: HTTPError) -> float:
    """Seconds after which the server wants to be asked again, 0 unless it says so: in seconds or as a date (RFC 9110, 10.2.3)."""
    asked = error.headers.get("Retry-After", "")
    with suppress(ValueError):
        return max(float(asked), 0.0)
    with suppress(ValueError):
        return max(parsedate_to_datetime(asked).timestamp() - time.time(), 0.0)
    return 0.0
