"""The chat client against a server on loopback (`tests.models.fake_chat`)."""

from __future__ import annotations

import email.utils
import math
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from ftcli.core.errors import FtcliError, StageFailed, UsageError
from ftcli.models import remote
from ftcli.models.remote import RemoteChat, Reply, RequestRefused
from tests.models.fake_chat import Answer, FakeChat, Json, completion, serving

pytestmark = pytest.mark.enable_socket  # loopback

HELLO = [{"role": "user", "content": "hello"}]
KEY = "sk-verysecret"


def chat_of(fake: FakeChat, **options: Any) -> RemoteChat:
    return RemoteChat(fake.url, "m", **{"key": KEY, "key_name": "THE_KEY", "wait_s": 0.0, "timeout_s": 20.0, **options})


def in_turn(answers: Iterable[Answer]) -> Callable[[Json], Answer]:
    left = iter(answers)
    return lambda body: next(left)


def failure(answer: Callable[[Json], Answer], **options: Any) -> tuple[FtcliError, FakeChat]:
    with serving(answer) as fake, pytest.raises(FtcliError) as error:
        chat_of(fake, **options).reply(HELLO)
    assert KEY not in f"{error.value.message} {error.value.hint}"
    return error.value, fake


def test_a_reply_has_the_text_and_the_log_probs_of_first_tokens() -> None:
    with serving(lambda body: completion("hi", {"hi": 0.75, "ho": 0.25}, "length")) as fake:
        reply = chat_of(fake).reply(HELLO, temperature=0, top_logprobs=2)
    assert (reply.text, reply.finish_reason) == ("hi", "length")
    assert reply.first == pytest.approx({"hi": math.log(0.75), "ho": math.log(0.25)})
    assert fake.bodies == [{"model": "m", "messages": HELLO, "temperature": 0, "top_logprobs": 2}]
    assert fake.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert fake.paths == ["/v1/chat/completions"]


def test_without_a_key_none_is_sent() -> None:
    with serving(lambda body: completion("hi")) as fake:
        chat_of(fake, key=None).reply(HELLO)
        chat_of(fake, key=" \n").reply(HELLO)
    assert not any("Authorization" in headers for headers in fake.headers)


def test_a_key_from_a_file_may_end_with_a_line_break() -> None:
    with serving(lambda body: completion("hi")) as fake:
        chat_of(fake, key=f"{KEY}\n").reply(HELLO)
    assert fake.headers[0]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("key", ["sk-a\nb", "sk-\u00fc", "sk-\x00"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(UsageError, match="THE_KEY has characters that no key has") as error:
        RemoteChat("http://localhost:1", "m", key, "THE_KEY")
    assert "sk-" not in f"{error.value.message} {error.value.hint}"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/", "http://localhost:8000/v1"),
        ("https://host/v1/", "https://host/v1"),
        ("https://host/api/paas/v4", "https://host/api/paas/v4"),
    ],
)
def test_a_host_alone_gets_the_usual_path_and_any_other_is_kept(url: str, expected: str) -> None:
    assert RemoteChat(url, "m").url == expected


@pytest.mark.parametrize("url", ["localhost:8000", "file:///etc/passwd", "", "http://", "http://host:port/v1"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="no address of a server"):
        RemoteChat(url, "m")


@pytest.mark.parametrize(
    "url", ["https://me:hunter2@host/v1", "https://host/v1?key=hunter2", "https://host/v1#hunter2"]
)
def test_an_address_with_a_secret_in_it_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(UsageError, match="no user, password or query") as error:
        RemoteChat(url, "m")
    assert "hunter2" not in f"{error.value.message} {error.value.hint}"


BUSY: list[Answer] = [(429, {"error": "slow down"}), (503, "down"), (500, b"oops"), (529, {})]


def test_a_busy_server_is_asked_again() -> None:
    with serving(in_turn([*BUSY, completion("hi")])) as fake:
        assert chat_of(fake).reply(HELLO).text == "hi"
    assert len(fake.bodies) == 5


def test_a_server_that_stays_busy_is_told_with_what_it_says() -> None:
    error, fake = failure(lambda body: (500, {"error": "GPU on fire"}), attempts=3)
    assert isinstance(error, StageFailed)
    assert "no reply after 3 attempts" in error.message
    assert "500" in error.message
    assert "GPU on fire" in error.message
    assert len(fake.bodies) == 3


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_names_its_variable_and_is_not_tried_again(status: int) -> None:
    error, fake = failure(lambda body: (status, {"error": f"bad key {KEY}"}))
    assert isinstance(error, UsageError)
    assert "refuses the key: " in error.message
    assert "bad key [key]" in error.message
    assert "THE_KEY" in error.hint
    assert len(fake.bodies) == 1


def test_an_unknown_model_is_named_with_the_way_to_see_those_that_are_there() -> None:
    error, fake = failure(lambda body: (404, {"error": "no such model"}))
    assert isinstance(error, UsageError)
    assert not isinstance(error, RequestRefused)
    assert "404" in error.message
    assert "no such model" in error.message
    assert error.hint == f"`curl {fake.url}/models` lists what it serves"


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_is_an_error_of_its_own(status: int) -> None:
    error, fake = failure(lambda body: (status, {"error": "maximum context length"}))
    assert isinstance(error, RequestRefused)
    assert "maximum context length" in error.message
    assert len(fake.bodies) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"<html>not me</html>",
        b"\xff\xfe",
        [],
        {"choices": []},
        {"error": {"message": "not me"}},
        {"choices": [{"message": None}]},
        {"choices": [{"text": "not me"}]},
    ],
)
def test_what_is_no_chat_completion_is_told_after_all_attempts(content: Any) -> None:
    error, fake = failure(lambda body: (200, content), attempts=2)
    assert isinstance(error, StageFailed)
    assert "no chat completion" in error.message
    assert len(fake.bodies) == 2
    if "not me" in str(content):
        assert "not me" in error.message


@pytest.mark.parametrize(
    "logprobs",
    [None, {}, {"content": None}, {"content": []}, {"content": [{}]}, {"content": [{"top_logprobs": None}]}, [1],
     {"content": [{"top_logprobs": [{"token": "A"}]}]}, {"content": [{"top_logprobs": [{"token": "A", "logprob": None}]}]}],
)  # fmt: skip
def test_log_probs_that_are_not_told_leave_the_text(logprobs: Any) -> None:
    choice = {"message": {"content": "hi"}, "finish_reason": None, "logprobs": logprobs}
    with serving(lambda body: (200, {"choices": [choice]})) as fake:
        assert chat_of(fake).reply(HELLO) == Reply("hi")


def test_a_reply_without_content_is_empty() -> None:
    with serving(lambda body: completion(None)) as fake:
        assert chat_of(fake).reply(HELLO).text == ""


def test_a_server_that_is_not_there_is_told() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(StageFailed, match=r"no reply after 2 attempts: .*refused"):
        RemoteChat(url, "m", wait_s=0.0, attempts=2).reply(HELLO)


def test_a_server_that_does_not_answer_in_time_is_told() -> None:
    release = threading.Event()

    def hang(body: Json) -> Answer:
        release.wait(20)
        return completion("late")

    with serving(hang) as fake:
        try:
            with pytest.raises(StageFailed, match="no reply after 2 attempts: timed out"):
                chat_of(fake, timeout_s=0.1, attempts=2).reply(HELLO)
        finally:
            release.set()


def test_the_key_is_not_carried_to_where_a_redirect_leads() -> None:
    with serving(lambda body: completion("elsewhere")) as other:
        error, _ = failure(lambda body: (302, "", {"Location": f"{other.url}/chat/completions"}))
    assert "302" in error.message
    assert other.headers == []


class Clock:
    """Takes the place of the event that waits between attempts."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return False


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, [1, 2, 4, 8]),
        ("5", [5, 5, 5, 8]),
        ("2.5", [2.5, 2.5, 4, 8]),
        ("9999", [60, 60, 60, 60]),
        ("soon", [1, 2, 4, 8]),
        ("-3", [1, 2, 4, 8]),
        ("Wed, 21 Oct 2015 07:28:00 GMT", [1, 2, 4, 8]),
    ],
)
def test_waits_double_unless_the_server_asks_for_more(asked: str | None, expected: list[float]) -> None:
    clock: Any = Clock()
    headers = {} if asked is None else {"Retry-After": asked}
    with serving(lambda body: (429, {}, headers)) as fake, pytest.raises(StageFailed):
        chat_of(fake, wait_s=1.0).reply(HELLO, clock)
    assert clock.waits == expected


def test_retry_after_may_be_a_date() -> None:
    clock: Any = Clock()
    date = email.utils.formatdate(time.time() + 40, usegmt=True)
    with serving(lambda body: (503, {}, {"Retry-After": date})) as fake, pytest.raises(StageFailed):
        chat_of(fake, wait_s=1.0, attempts=2).reply(HELLO, clock)
    assert 10 < clock.waits[0] <= 40


def test_replies_are_in_the_order_of_the_prompts_and_several_are_asked_at_once() -> None:
    both = threading.Barrier(2, timeout=20)
    second_is_done = threading.Event()

    def answer(body: Json) -> Answer:
        text = body["messages"][0]["content"]
        if text in ("0", "1"):
            both.wait()
            if text == "0":
                assert second_is_done.wait(20)
            else:
                second_is_done.set()
        return completion(f"to {text}")

    heard: list[int] = []
    prompts = [[{"role": "user", "content": str(n)}] for n in range(6)]
    with serving(answer) as fake:
        found = chat_of(fake, at_once=2).replies(prompts, heard.append)
        assert chat_of(fake).replies([]) == []
    assert found == [Reply(f"to {n}", "stop") for n in range(6)]
    assert heard == [1, 2, 3, 4, 5, 6]


def test_a_prompt_that_is_refused_leaves_the_others() -> None:
    def answer(body: Json) -> Answer:
        text = body["messages"][0]["content"]
        return (400, "too long") if text == "1" else completion(text)

    with serving(answer) as fake:
        found = chat_of(fake).replies([[{"role": "user", "content": str(n)}] for n in range(3)])
    assert found[0::2] == [Reply("0", "stop"), Reply("2", "stop")]
    assert isinstance(found[1], RequestRefused)


def test_a_failure_ends_what_waits_for_its_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first prompt's server is down for an hour; the second's key is refused, but only once the first one waits."""
    waiting = threading.Event()
    event_wait = threading.Event.wait

    def noted(self: threading.Event, timeout: float | None = None) -> bool:
        if timeout == 3600:
            waiting.set()
        return event_wait(self, timeout)

    def answer(body: Json) -> Answer:
        if body["messages"][0]["content"] == "0":
            return 503, "down"
        assert event_wait(waiting, 20)
        return 401, "no"

    monkeypatch.setattr(remote, "LONGEST_WAIT_S", 3600.0)
    monkeypatch.setattr(threading.Event, "wait", noted)
    prompts = [[{"role": "user", "content": str(n)}] for n in range(2)]
    with serving(answer) as fake, pytest.raises(UsageError, match="401"):
        chat_of(fake, wait_s=3600.0).replies(prompts)
    assert len(fake.bodies) == 2


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [({"total_tokens": 7}, 7), ({"total_tokens": "7"}, None), ({}, None), ("7", None), (None, None)],
)
def test_tokens_are_what_the_server_counted_or_not_known(usage: Any, tokens: int | None) -> None:
    with serving(lambda body: (200, {**completion("hi")[1], "usage": usage})) as fake:
        assert chat_of(fake).reply(HELLO).tokens == tokens
