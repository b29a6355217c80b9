"""The desk on a free port of loopback, in a thread."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from ftcli.human.desk import Desk
from ftcli.human.server import Graders, build_app


@dataclass
class Served:
    port: int
    graders: Graders
    cookies: dict[str, str] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def link(self, grader: str) -> str:
        return f"{self.origin}/login?t={self.graders.tokens[grader]}"


@contextmanager
def serving(desk: Desk) -> Iterator[Served]:
    graders = Graders(desk.graders)
    config = uvicorn.Config(
        build_app(desk, graders, ()), port=0, log_level="warning", lifespan="off", ws="none", loop="asyncio", http="h11"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    try:
        yield Served(server.servers[0].sockets[0].getsockname()[1], graders)
    finally:
        server.should_exit = True
        thread.join(30)


class Client:
    """A grader who speaks HTTP without a browser."""

    def __init__(self, served: Served, grader: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
        self._origin = served.origin
        self._connection.request("GET", f"/login?t={served.graders.tokens[grader]}")
        answer = self._connection.getresponse()
        answer.read()
        self._cookie = (answer.getheader("Set-Cookie") or "").partition(";")[0]

    def post(self, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
        headers = {"Origin": self._origin, "Content-Type": "application/json", "Cookie": self._cookie}
        self._connection.request("POST", path, json.dumps(body), headers)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())

    def close(self) -> None:
        self._connection.close()
