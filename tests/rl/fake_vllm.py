"""A server on loopback that answers as vLLM does (its completion/serving.py, models/serving.py and sched/utils.py of 2026) and
really samples: one forward pass over the whole row for each token, with transformers and PEFT alone.

``faults`` changes what it does: see where each is read.
"""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from peft import PeftModel


class FakeVllm:
    def __init__(self, base: Any, **faults: Any) -> None:
        self.base, self.faults = base, faults
        self.adapters: dict[str, Any] = {}
        self.roots: dict[str, str] = {}
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.keys: list[str | None] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.url = ""

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        with self.lock:
            self.requests.append((path, body))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            turn = len(self.requests)
        try:
            if turn <= self.faults.get("busy", 0):
                return 503, "Service Unavailable"
            if path == "/v1/models":
                return 200, {"data": self.cards()}
            if path.endswith("_lora_adapter"):
                if self.faults.get("no_updating"):
                    return 404, {"detail": "Not Found"}
                return self.load(body) if path == "/v1/load_lora_adapter" else self.unload(body)
            return self.complete(body)
        finally:
            with self.lock:
                self.at_once -= 1

    def cards(self) -> list[dict[str, Any]]:
        adapters = [{"id": name, "root": root, "parent": "tiny"} for name, root in self.roots.items()]
        return [{"id": "tiny", "root": "tiny", "parent": None, "max_model_len": 64}, *adapters]

    def load(self, body: dict[str, Any]) -> tuple[int, Any]:
        if self.faults.get("no_lora"):
            return _error(500, "LoRA is not enabled.")
        name, root = body["lora_name"], body["lora_path"]
        if name in self.roots:
            return _error(400, f"The lora adapter '{name}' has already been loaded.")
        model = PeftModel.from_pretrained(copy.deepcopy(self.base), root).eval()
        if self.faults.get("stale") and self.adapters:
            model = next(iter(self.adapters.values()))
        self.adapters = {name: model}  # room for one: the older is pushed out of the engine, not off the list
        self.roots[name] = root
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def unload(self, body: dict[str, Any]) -> tuple[int, Any]:
        name = body["lora_name"]
        if name not in self.roots:
            return _error(404, f"The lora adapter '{name}' cannot be found.")
        if name not in self.adapters:
            return _error(500, f"Failed to remove lora adapter '{name}' from the engine.")
        if self.faults.get("stale"):
            self.roots.pop(name)
            return 200, ""
        del self.adapters[name], self.roots[name]
        return 200, ""

    def complete(self, body: dict[str, Any]) -> tuple[int, Any]:
        if body["model"] not in self.roots and body["model"] != "tiny":
            return _error(404, f"The model `{body['model']}` does not exist.")
        if 31 in body["prompt"] and "refuse" in self.faults:
            return _error(400, self.faults["refuse"])
        time.sleep(self.faults.get("delay", 0.0))
        with self.lock:
            ids, logprobs, reason = self.sample(body)
        choice = {
            "index": 0,
            "text": "",
            "finish_reason": reason,
            "stop_reason": None,
            "token_ids": ids,
            "prompt_token_ids": body["prompt"],
            "logprobs": {"token_logprobs": logprobs, "tokens": [], "text_offset": [], "top_logprobs": []},
        }
        return 200, {"choices": [choice | self.faults.get("choice", {})]}

    @torch.inference_mode()
    def sample(self, body: dict[str, Any]) -> tuple[list[int], list[float], str]:
        model = self.base if self.faults.get("ignores_adapter") else next(iter(self.adapters.values()))
        ends = set(body["stop_token_ids"]) | ({1} if not body["ignore_eos"] else set())
        room = min(body["max_tokens"], self.faults.get("max_model_len", 64) - len(body["prompt"]))
        generator = torch.Generator().manual_seed(body["seed"])
        ids: list[int] = []
        logprobs: list[float] = []
        while len(ids) < room:
            logits = model(torch.tensor([body["prompt"] + ids])).logits[0, -1].float()
            scores = torch.log_softmax(logits / (body["temperature"] or 1.0), dim=0)
            greedy = body["temperature"] == 0
            token = int(scores.argmax() if greedy else torch.multinomial(scores.exp(), 1, generator=generator))
            raw = torch.log_softmax(logits, dim=0)
            ids.append(token)
            logprobs.append(float((raw if self.faults.get("raw_logprobs") else scores)[token]))
            if token in ends:
                return ids, logprobs, "stop"
        return ids, logprobs, "length"


def _error(status: int, message: str) -> tuple[int, Any]:
    return status, {"error": {"message": message, "type": "Error", "param": None, "code": status}}


@contextmanager
def serving(base: Any, **faults: Any) -> Iterator[FakeVllm]:
    """A server on a free port of loopback until the block ends."""
    fake = FakeVllm(base, **faults)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply({})

        def do_POST(self) -> None:
            self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def reply(self, body: dict[str, Any]) -> None:
            fake.keys.append(self.headers.get("Authorization"))
            status, content = fake.answer(self.path, body)
            data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:
                pass  # the client hung up

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
