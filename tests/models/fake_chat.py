"""An OpenAI-compatible server on loopback. A test gives the function that answers a request's body, and sees what was sent."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]
Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]
"""Status, what is sent as JSON (bytes as they are), and more headers."""


@dataclass
class FakeChat:
    answer: Callable[[Json], Answer]
    url: str = ""
    bodies: list[Json] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def completion(text: str | None, first: Mapping[str, float] | None = None, finish_reason: str = "stop") -> Answer:
    """A chat completion in the form of OpenAI's API reference; ``first`` are probabilities of first tokens."""
    choice: Json = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    if first is not None:
        top = [{"token": token, "logprob": math.log(value), "bytes": None} for token, value in first.items()]
        choice["logprobs"] = {"content": [{"token": text, "logprob": -0.1, "bytes": None, "top_logprobs": top}]}
    return 200, {"object": "chat.completion", "choices": [choice], "usage": {"total_tokens": 7}}


@contextmanager
def serving(answer: Callable[[Json], Answer]) -> Iterator[FakeChat]:
    fake = FakeChat(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with fake.lock:
                fake.bodies.append(body)
                fake.headers.append(dict(self.headers))
                fake.paths.append(self.path)
            status, content, *more = fake.answer(body)
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in (more[0] if more else {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:  # what urllib makes of a redirected POST
            fake.headers.append(dict(self.headers))
            self.send_error(404)

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
