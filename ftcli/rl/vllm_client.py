"""Speak to a stock ``vllm serve`` over HTTP: load and unload adapters, and complete prompts, token ids in and token ids out.

Nothing of vLLM is imported. The server must be started as `SERVE` says. Its own sampling defaults, which it takes from the
model's generation_config.json, are overridden in each request: what truncates the distribution makes PPO's ratios wrong.
"""

from __future__ import annotations

import json
import math
import socket
import threading
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ftcli.core.errors import StageFailed, UsageError
from ftcli.models.generate import Generation
from ftcli.rl.rollout import Sampling

SERVE = (
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 vllm serve BASE --enable-lora --max-lora-rank R "
    "--logprobs-mode processed_logprobs --generation-config vllm"
)
"""How the server is started. Without the mode its log-probs leave the temperature out."""

NEEDED = "vLLM 0.10.2 or newer is needed, started with: " + SERVE
BUSY = (502, 503, 504)
"""What a proxy answers while the server behind it does not."""


class VllmClient:
    """One server. Connection errors are tried again ``attempts`` times in all, after 1, 2, 4, ... times ``wait_s``.

    A request that is not answered within ``timeout_s`` is an error at once: the answer comes as a whole, when its last token is
    drawn, so this is longer than the longest rollout takes. ``api_key`` is sent as the bearer token.
    """

    def __init__(
        self, url: str, api_key: str | None = None, *, timeout_s: float = 600.0, attempts: int = 5, wait_s: float = 1.0
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._parts = urlsplit(self.url)
        try:
            is_address = self._parts.scheme in ("http", "https") and bool(self._parts.hostname)
            self._port = self._parts.port
        except ValueError:
            is_address = False
        if not is_address:
            raise UsageError(f"{url}: no address of a server", "give one such as http://localhost:8000")
        self._headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {api_key}"} if api_key else {}
        )
        self._timeout_s, self._attempts, self._wait_s = timeout_s, attempts, wait_s
        self._open: set[HTTPConnection] = set()
        self._is_aborted = threading.Event()

    def models(self) -> list[dict[str, Any]]:
        """The cards of what is served; an adapter's has ``parent``, the name of its base, and ``root``, its folder."""
        cards: list[dict[str, Any]] = self._ask("GET", "/v1/models")["data"]
        return cards

    def load_adapter(self, name: str, folder: Path) -> None:
        """Serve the PEFT folder ``folder``, which the server reads itself, under ``name``."""
        status, reply = self._send("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
        if status == 404 and "lora" not in _message(reply).lower():
            raise StageFailed(f"{self.url}: this server loads no adapters while it runs", f"start it with: {SERVE}")
        if status != 200:
            raise StageFailed(
                f"{self.url}: the server cannot load the adapter {folder}: {_message(reply)}",
                f"it must see that folder under the same path, and be started with: {SERVE}",
            )

    def unload_adapter(self, name: str) -> None:
        """Stop serving ``name``; one that is not served is no error."""
        status, reply = self._send("POST", "/v1/unload_lora_adapter", {"lora_name": name})
        if status not in (200, 404):
            raise StageFailed(f"{self.url}: the server cannot unload {name}: {_message(reply)}", NEEDED)

    def complete(self, model: str, prompt: list[int], sampling: Sampling, seed: int) -> Generation:
        """One answer of ``model``, with the log-probs of its tokens. It ends at ``sampling.stop_ids`` and at nothing else."""
        reply = self._ask(
            "POST",
            "/v1/completions",
            {
                "model": model,
                "prompt": prompt,
                "max_tokens": sampling.response_length,
                "temperature": sampling.temperature,
                "seed": seed,
                "stop_token_ids": sorted(sampling.stop_ids),
                "ignore_eos": True,  # the server's own idea of it; ours are the stop_token_ids
                "logprobs": 0,  # of the drawn tokens alone
                "return_token_ids": True,
                **_WHOLE_DISTRIBUTION,
            },
        )
        return self._generation(reply, prompt, sampling)

    def _generation(self, reply: Mapping[str, Any], prompt: list[int], sampling: Sampling) -> Generation:
        try:
            choice = reply["choices"][0]
            ids, reason = choice.get("token_ids"), choice["finish_reason"]
            logprobs = (choice.get("logprobs") or {}).get("token_logprobs")
            seen = choice.get("prompt_token_ids")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise StageFailed(f"{self.url}: the server's answer is no completion", NEEDED) from None
        if not ids:
            raise StageFailed(f"{self.url}: the server's answer has no token ids", NEEDED)
        if logprobs is None or len(logprobs) != len(ids) or not all(_is_number(value) for value in logprobs):
            raise StageFailed(f"{self.url}: the server's answer has no log-probs of its {len(ids)} tokens", NEEDED)
        if seen is not None and seen != prompt:
            raise StageFailed(f"{self.url}: the server read another prompt than it was sent", NEEDED)
        has_stop = ids[-1] in sampling.stop_ids
        if reason not in ("stop", "length") or (reason == "stop") != has_stop or sampling.stop_ids & set(ids[:-1]):
            raise StageFailed(
                f"{self.url}: the server ended an answer for {reason!r} after token {ids[-1]}, where the policy's "
                f"end-of-turn tokens are {sorted(sampling.stop_ids)}",
                NEEDED,
            )
        if not has_stop and len(ids) != sampling.response_length:
            raise StageFailed(
                f"{self.url}: the server cut an answer at {len(ids)} of {sampling.response_length} tokens",
                "start it with a --max-model-len of max_prompt_length + response_length or more, and --generation-config vllm",
            )
        return Generation(ids, "stop" if has_stop else "length", logprobs)

    def abort(self) -> None:
        """Break off all requests under way, and refuse new ones: the server stops working on what nobody waits for."""
        self._is_aborted.set()
        for connection in list(self._open):
            if connection.sock is not None:
                try:
                    connection.sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # it ended meanwhile

    def resume(self) -> None:
        """Take requests again after `abort`."""
        self._is_aborted.clear()

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        status, reply = self._send(method, path, body)
        if status == 401:
            raise StageFailed(f"{self.url}: the server wants another API key", "set VLLM_API_KEY to the server's")
        if status != 200 or not isinstance(reply, dict):
            raise StageFailed(f"{self.url}{path}: the server answers {status}: {_message(reply)}", NEEDED)
        return reply

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        """Status and reply, parsed where it is JSON."""
        problem: Exception | str = ""
        for attempt in range(self._attempts):
            if attempt and self._is_aborted.wait(self._wait_s * 2 ** (attempt - 1)):
                break
            try:
                status, data = self._exchange(method, path, body)
            except TimeoutError:
                raise StageFailed(
                    f"{self.url}{path}: no answer within {self._timeout_s:g} s",
                    "look at the server's log; shorter answers or fewer rollouts at once take less time",
                ) from None
            except (OSError, HTTPException) as error:
                problem = error
                continue
            if status not in BUSY:
                return status, _parsed(data)
            problem = f"status {status}"
        raise StageFailed(f"{self.url}: the vLLM server does not answer: {problem}", f"start it with: {SERVE}")

    def _exchange(self, method: str, path: str, body: Mapping[str, Any] | None) -> tuple[int, bytes]:
        kind = HTTPSConnection if self._parts.scheme == "https" else HTTPConnection
        connection = kind(str(self._parts.hostname), self._port, timeout=self._timeout_s)
        self._open.add(connection)
        try:
            content = None if body is None else json.dumps(body)
            connection.connect()
            if self._is_aborted.is_set():  # from here on `abort` finds the socket
                raise ConnectionAbortedError("broken off")
            connection.request(method, self._parts.path + path, content, self._headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            self._open.discard(connection)
            connection.close()


_WHOLE_DISTRIBUTION = {
    "n": 1,
    "top_p": 1.0,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "min_tokens": 0,
    "stop": [],
}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode(errors="replace")


def _message(reply: Any) -> str:
    """What an error reply says: vLLM's newer ones have it under ``error``, older ones at the top, FastAPI's under ``detail``."""
    if isinstance(reply, dict):
        inner = reply.get("error", reply)
        reply = inner.get("message") or inner.get("detail") or inner if isinstance(inner, dict) else inner
    return " ".join(str(reply).split())[:500] or "nothing"
