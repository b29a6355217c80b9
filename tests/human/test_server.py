"""What the desk refuses, what it never tells, and that no vote is lost or doubled."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from ftcli.human.desk import Desk
from ftcli.human.server import REVIEW_BYTES, VOTE_BYTES, Graders, build_app, host_name
from ftcli.human.store import Candidate, Item, Store
from tests.human.conftest import answers, pair, rank_task, review_item, review_task
from tests.human.serving import Client, serving

HOST = "127.0.0.1:8321"
ORIGIN = f"http://{HOST}"
PAIRS = [pair(number, "base-model-label", "tuned-model-label") for number in range(6)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "desk.sqlite")
    made.publish(rank_task(criteria=("helpful",), guidelines="Be fair."), PAIRS)
    made.publish(review_task(), [review_item(number) for number in range(3)])
    made.publish(rank_task(id="rank-3"), [answers(number, 3) for number in range(3)])
    return made


class Browser:
    """One grader's requests, as the page makes them unless told otherwise."""

    def __init__(self, app: Any, graders: Graders, grader: str | None) -> None:
        self.client = TestClient(app, base_url=ORIGIN, follow_redirects=False)
        if grader is not None:
            assert self.client.get("/login", params={"t": graders.tokens[grader]}).status_code == 200

    def post(self, path: str, body: Any = None, *, content: bytes | None = None, **headers: str | None) -> Any:
        given = {"Origin": ORIGIN, "Content-Type": "application/json"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}  # type: ignore[misc]
        data = json.dumps(body).encode() if content is None else content
        return self.client.post(
            path, content=data, headers={key: value for key, value in given.items() if value is not None}
        )


@pytest.fixture
def graders() -> Graders:
    return Graders(["ann", "bob"])


@pytest.fixture
def app(store: Store, graders: Graders) -> Any:
    return build_app(Desk(store, ["ann", "bob"], overlap=2), graders, ["desk.example"])


@pytest.fixture
def ann(app: Any, graders: Graders) -> Browser:
    return Browser(app, graders, "ann")


def vote_on(view: dict[str, Any], **said: Any) -> dict[str, Any]:
    given = {"verdict": "ranked", "ranks": [1, *[2] * (len(view["answers"]) - 1)]}
    return {"task": view["task"], "showing": view["showing"], "seconds": 2.0, **given, **said}


# ---- who may enter


@pytest.mark.parametrize("path", ["/", "/desk.js", "/desk.css", "/api/tasks"])
def test_nothing_is_shown_without_a_link(app: Any, graders: Graders, path: str) -> None:
    assert Browser(app, graders, None).client.get(path).status_code == 401


@pytest.mark.parametrize("path", ["/api/view", "/api/vote", "/api/review", "/api/undo", "/api/summary"])
def test_nothing_is_done_without_a_link(app: Any, graders: Graders, path: str, store: Store) -> None:
    assert Browser(app, graders, None).post(path, {"task": 0}).status_code == 401
    assert store.judgements("rank-1") == []


@pytest.mark.parametrize("token", ["", "x", "\udcff", "é" * 22])
def test_a_wrong_token_opens_nothing(app: Any, graders: Graders, token: str) -> None:
    browser = Browser(app, graders, None)
    answer = browser.client.get("/login", params={"t": token.encode("utf-8", "surrogateescape")})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


def test_a_token_is_no_cookie_and_a_cookie_no_token(app: Any, graders: Graders) -> None:
    browser = Browser(app, graders, None)
    assert browser.client.get("/login", params={"t": graders.sessions["ann"]}).status_code == 401
    browser.client.cookies.set("ftcli_desk", graders.tokens["ann"])
    assert browser.client.get("/api/tasks").status_code == 401


def test_tokens_have_128_bits_and_are_new_each_time() -> None:
    one, other = Graders(["ann", "bob"]), Graders(["ann", "bob"])
    drawn = [*one.tokens.values(), *one.sessions.values(), *other.tokens.values(), *other.sessions.values()]
    assert len(set(drawn)) == 8
    assert all(len(value) == 22 for value in drawn)  # 16 bytes in base64 without padding


def test_the_cookie_is_out_of_reach_of_scripts_and_of_other_sites(app: Any, graders: Graders) -> None:
    answer = Browser(app, graders, None).client.get("/login", params={"t": graders.tokens["ann"]})
    flags = {part.strip().lower() for part in answer.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= flags
    assert graders.tokens["ann"] not in answer.headers["set-cookie"] + answer.text


def test_a_grader_votes_under_the_name_of_the_link_alone(app: Any, graders: Graders, store: Store) -> None:
    for name in ("ann", "bob"):
        browser = Browser(app, graders, name)
        view = browser.post("/api/view", {"task": 0}).json()
        assert browser.post("/api/vote", vote_on(view) | {"grader": "eve"}).status_code == 422
        assert browser.post("/api/vote", vote_on(view)).status_code == 200
    assert sorted(one.grader for one in store.judgements("rank-1")) == ["ann", "bob"]


# ---- which requests are heard


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8321", "127.0.0.1.evil.example", "127.0.0.2", "", "localhost@evil"]
)
def test_a_foreign_host_name_is_refused_even_with_the_cookie(ann: Browser, host: str) -> None:
    answer = ann.client.get("/api/tasks", headers={"Host": host})
    assert answer.status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:9", "localhost:8321", "LOCALHOST", "[::1]:8321", "desk.example"])
def test_names_of_this_desk_are_heard_behind_any_port(ann: Browser, host: str) -> None:
    assert ann.client.get("/", headers={"Host": host}).status_code in (200, 401)  # the cookie is of one name


@pytest.mark.parametrize(
    ("host", "name"), [("a:1", "a"), ("A.", "a"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("a:b", "a:b"), (":1", "")]
)
def test_the_name_in_a_host_header(host: str, name: str) -> None:
    assert host_name(host) == name


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", "http://127.0.0.1:1", f"ftp://{HOST}", f"{ORIGIN}.evil.example"]
)
def test_a_post_from_another_origin_is_refused(ann: Browser, store: Store, origin: str | None) -> None:
    view = ann.post("/api/view", {"task": 0}).json()
    assert ann.post("/api/vote", vote_on(view), Origin=origin).status_code == 403
    assert store.judgements("rank-1") == []


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx"]
)
def test_a_post_that_is_not_json_is_refused(ann: Browser, kind: str | None) -> None:
    assert ann.post("/api/view", {"task": 0}, Content_Type=kind).status_code == 415


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'"x"', b"\xff\xfe", b"[" * 60_000, b"NaN"])
def test_a_body_that_is_no_json_object_is_refused(ann: Browser, body: bytes) -> None:
    assert ann.post("/api/view", content=body).status_code == 400


@pytest.mark.parametrize(
    ("path", "limit"), [("/api/vote", VOTE_BYTES), ("/api/undo", VOTE_BYTES), ("/api/review", REVIEW_BYTES)]
)
def test_a_longer_body_is_refused(ann: Browser, path: str, limit: int) -> None:
    fits = b'{"task": 99, "note": "' + b"x" * (limit - 24) + b'"}'
    assert len(fits) == limit
    assert ann.post(path, content=fits).status_code == 422
    assert ann.post(path, content=fits + b" ").status_code == 413


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_other_methods_are_refused(ann: Browser, method: str) -> None:
    assert ann.client.request(method, "/api/vote").status_code == 405


def test_every_answer_carries_the_headers_that_protect_it(app: Any, graders: Graders, ann: Browser) -> None:
    nobody = Browser(app, graders, None).client
    seen = [
        ann.client.get("/"),
        ann.client.get("/api/tasks"),
        nobody.get("/"),
        nobody.get("/", headers={"Host": "evil.example"}),
        nobody.get("/x"),
    ]
    for answer in seen:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


def test_the_page_runs_its_own_script_only_with_a_nonce_of_each_answer(ann: Browser) -> None:
    nonces = set()
    for answer in (ann.client.get("/"), ann.client.get("/")):
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
        nonce = policy["script-src"].removeprefix("'nonce-").removesuffix("'")
        assert policy["script-src"] == policy["style-src"] == f"'nonce-{nonce}'"
        assert "unsafe" not in str(policy)
        assert answer.text.count(f'nonce="{nonce}"') == 2
        assert answer.text.count("<script") == answer.text.count("<link") == 1
        nonces.add(nonce)
    assert len(nonces) == 2


def test_the_script_makes_no_html_from_strings() -> None:
    script = (Path(__file__).parents[2] / "ftcli" / "human" / "page" / "desk.js").read_text()
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "DOMParser",
        ".style",
    ):
        assert word not in script.replace("element.style", "").replace("box.style.height", ""), word


# ---- what is told


def test_models_and_repeats_are_not_told_before_the_end(app: Any, graders: Graders, store: Store) -> None:
    ann = Browser(app, graders, "ann")
    heard = ann.client.get("/api/tasks").text + ann.client.get("/").text
    for task in (0, 1):
        answer = ann.post("/api/view", {"task": task})
        while answer.json()["showing"] is not None:
            heard += answer.text
            view = answer.json()
            said = {"verdict": "accept", "ranks": None} if view["kind"] == "review" else {}
            answer = ann.post("/api/review" if view["kind"] == "review" else "/api/vote", vote_on(view, **said))
            assert answer.status_code == 200, answer.text
        heard += answer.text
    assert any(one.is_repeat for one in store.judgements("rank-1"))
    for secret in ("model-label", "repeat", "source", "secret-teacher", *(one.id for one in PAIRS[0].candidates)):
        assert secret not in heard


def test_the_summary_names_the_models_once_all_is_judged_and_then_votes_stay(ann: Browser, store: Store) -> None:
    view = ann.post("/api/view", {"task": 0}).json()
    early = ann.post("/api/summary", {"task": 0})
    assert (early.status_code, early.json()["error"]) == (422, "0 of 7 are judged: the models are told at the end")
    first = vote_on(view)
    while view["showing"] is not None:
        source = {one.text: one.source for item in PAIRS for one in item.candidates}
        tuned = [source[text] == "tuned-model-label" for text in view["answers"]]
        view = ann.post("/api/vote", vote_on(view, ranks=[1 if one else 2 for one in tuned])).json()
    assert (view["done"], view["total"]) == (7, 7)
    summary = ann.post("/api/summary", {"task": 0}).json()
    assert summary["models"] == [
        {"model": "base-model-label", "won": 0, "tied": 0, "lost": 6},
        {"model": "tuned-model-label", "won": 6, "tied": 0, "lost": 0},
    ]
    assert summary["left"] == {"of": 6, "left": 3}  # balanced sides, and a grader who looks at answers
    assert summary["repeats"] == {"of": 1, "same": 1}
    kept = store.judgements("rank-1")
    assert ann.post("/api/vote", first).status_code == 409
    assert ann.post("/api/undo", {"task": 0}).status_code == 409
    assert store.judgements("rank-1") == kept


def test_who_knows_the_models_is_shown_nothing_more(store: Store) -> None:
    desk = Desk(store, ["ann", "bob"])
    while (view := desk.view("ann", 0))["showing"] is not None:
        desk.vote("ann", vote_on(view))
    assert view["total"] == 3
    desk.summary("ann", 0)
    more = Desk(store, ["ann"], overlap=2).view("ann", 0)
    assert (more["total"], more["showing"], more["revealed"]) == (7, None, True)


# ---- votes


def test_a_vote_is_kept_with_what_was_on_the_screen(ann: Browser, store: Store) -> None:
    view = ann.post("/api/view", {"task": 0}).json()
    said = vote_on(view, ranks=[2, 1], strength=3, criteria={"helpful": 0}, note="n", seconds=4.25)
    after = ann.post("/api/vote", said).json()
    assert (after["done"], after["showing"]) == (1, 1)
    (kept,) = store.judgements("rank-1")
    texts = {one.id: one.text for item in PAIRS for one in item.candidates}
    assert [texts[id] for id in kept.order] == view["answers"]
    assert [kept.ranks[id] for id in kept.order] == [2, 1]
    assert kept.criteria == {"helpful": kept.order[0]}
    assert (kept.grader, kept.strength, kept.note, kept.seconds) == ("ann", 3, "n", 4.25)


def test_the_same_vote_sent_twice_counts_once(ann: Browser, store: Store) -> None:
    said = vote_on(ann.post("/api/view", {"task": 0}).json())
    for _ in range(2):
        assert ann.post("/api/vote", said).json()["done"] == 1
    assert len(store.judgements("rank-1")) == 1


def test_undo_brings_the_last_showing_back(ann: Browser, store: Store) -> None:
    first = ann.post("/api/view", {"task": 0}).json()
    second = ann.post("/api/vote", vote_on(first)).json()
    ann.post("/api/vote", vote_on(second))
    back = ann.post("/api/undo", {"task": 0}).json()
    assert (back["showing"], back["done"], back["answers"]) == (second["showing"], 1, second["answers"])
    assert ann.post("/api/undo", {"task": 0}).json()["answers"] == first["answers"]
    assert ann.post("/api/undo", {"task": 0}).status_code == 200
    assert store.judgements("rank-1") == []


def test_a_new_server_goes_on_where_the_grader_was(ann: Browser, store: Store) -> None:
    view = ann.post("/api/view", {"task": 0}).json()
    after = ann.post("/api/vote", vote_on(view)).json()
    graders = Graders(["ann", "bob"])
    again = Browser(build_app(Desk(Store(store.path), ["ann", "bob"], overlap=2), graders, ()), graders, "ann")
    assert again.post("/api/view", {"task": 0}).json() == after


def test_what_others_judged_often_enough_is_not_asked_again(store: Store) -> None:
    earlier = Desk(store, ["cid"])
    for _ in range(3):
        earlier.vote("cid", vote_on(earlier.view("cid", 0)))
    assert Desk(store, ["ann"]).tasks("ann")[0]["total"] in (
        3,
        4,
    )  # of six, and a repeat where that is not among the judged
    assert Desk(store, ["ann"], overlap=2).tasks("ann")[0]["total"] == 7


def test_a_row_is_edited_in_its_texts_alone(ann: Browser, store: Store) -> None:
    view = ann.post("/api/view", {"task": 1}).json()
    assert [(part["label"], part["editable"]) for part in view["parts"]] == [("user", True), ("assistant", True)]
    said = {"task": 1, "showing": view["showing"], "verdict": "edit", "texts": [view["parts"][0]["text"], "Better."]}
    assert ann.post("/api/review", said).status_code == 200
    (kept,) = store.judgements("review-1")
    row = dict(store.item("review-1", kept.item).row or {})
    assert kept.edited == {**row, "messages": [row["messages"][0], {"role": "assistant", "content": "Better."}]}


def test_rows_of_every_kind_show_their_texts() -> None:
    from ftcli.human.desk import parts

    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]}
    row = {
        "id": "a",
        "prompt": [{"role": "user", "content": "Q"}],
        "chosen": [{"role": "assistant", "content": "A"}],
        "text": "T",
        "label": True,
        "messages": [call],
        "meta": {"from": "x"},
    }
    assert [(path, label, text if label != "assistant: tool_calls" else "") for path, label, text in parts(row)] == [
        (("prompt", 0, "content"), "user", "Q"),
        (("chosen", 0, "content"), "chosen", "A"),
        (("text",), "text", "T"),
        ((), "label", "true"),
        (("messages", 0, "content"), "assistant", ""),
        ((), "assistant: tool_calls", ""),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": 9}, "no task 9"),
        ({"task": None}, "no task None"),
        ({"task": True}, "no task True"),
        ({"task": -1}, "no task -1"),
        ({"showing": 99}, "no showing 99"),
        ({"showing": -1}, "no showing -1"),
        ({"showing": "0"}, "no showing '0'"),
        ({"verdict": "accept"}, "verdict 'accept'"),
        ({"verdict": ["ranked"]}, "verdict: a text"),
        ({"ranks": [1]}, "a list of 2 whole numbers"),
        ({"ranks": [1, "2"]}, "whole numbers"),
        ({"ranks": [True, 2]}, "whole numbers"),
        ({"ranks": {"a": 1}}, "whole numbers"),
        ({"ranks": [2, 2]}, "from 1"),
        ({"ranks": [1, 9]}, "at most 2"),
        ({"ranks": None}, "a rank for every answer"),
        ({"strength": 9}, "1 to 7"),
        ({"strength": 1.5}, "strength: a whole number"),
        ({"criteria": []}, "criteria: an object"),
        ({"criteria": {"helpful": 2}}, "the place of an answer"),
        ({"criteria": {"style": 0}}, "no such criterion: style"),
        ({"note": "x" * 2001}, "2000"),
        ({"note": 1}, "note: a text"),
        ({"reason": []}, "reason: a text"),
        ({"seconds": -1}, "seconds: 0 or more"),
        ({"seconds": "1"}, "seconds: 0 or more"),
        ({"seconds": float("nan")}, "seconds: 0 or more"),
        ({"texts": ["x"]}, "a list of 0 texts"),
        ({"is_repeat": True}, "unknown key is_repeat"),
        ({"item": "i0"}, "unknown key item"),
    ],
)
def test_a_vote_that_cannot_be_is_refused_and_says_why(
    ann: Browser, store: Store, changes: dict[str, Any], message: str
) -> None:
    answer = ann.post("/api/vote", vote_on(ann.post("/api/view", {"task": 0}).json()) | changes)
    assert answer.status_code == 422
    assert message in answer.json()["error"]
    assert store.judgements("rank-1") == []


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["one"], "a list of 2 texts"),
        (["one", 2], "a list of 2 texts"),
        ("ab", "a list of 2 texts"),
        (None, "edited row"),
    ],
)
def test_an_edit_that_cannot_be_is_refused(ann: Browser, texts: Any, message: str) -> None:
    said = {"task": 1, "showing": 0, "verdict": "edit", "texts": texts}
    answer = ann.post("/api/review", said)
    assert (answer.status_code, message in answer.json()["error"]) == (422, True)


def test_an_edit_that_changes_nothing_is_refused(ann: Browser) -> None:
    view = ann.post("/api/view", {"task": 1}).json()
    said = {"task": 1, "showing": 0, "verdict": "edit", "texts": [part["text"] for part in view["parts"]]}
    assert ann.post("/api/review", said).json()["error"] == "texts: nothing was changed"


def test_a_long_absence_is_kept_as_one_hour(ann: Browser, store: Store) -> None:
    ann.post("/api/vote", vote_on(ann.post("/api/view", {"task": 0}).json(), seconds=1e9))
    assert store.judgements("rank-1")[0].seconds == 3600.0


def test_identical_answers_are_never_shown(tmp_path: Path) -> None:
    store = Store(tmp_path / "same.sqlite")
    same = Item("same", [], (Candidate.of("Yes.", "a"), Candidate.of("Yes.", "b")))
    store.publish(rank_task(), [same])
    view = Desk(store, ["ann"]).view("ann", 0)
    assert (view["showing"], view["total"]) == (None, 0)


# ---- many at once


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "crowd.sqlite")
    store.publish(rank_task(overlap=50), [pair(number) for number in range(5)])
    yield store
    store.close()


@pytest.mark.enable_socket
def test_fifty_graders_at_once_lose_and_double_no_vote(crowd: Store) -> None:
    names = [f"g{number}" for number in range(50)]
    start, refused = threading.Barrier(50), []
    with serving(Desk(crowd, names)) as served:

        def judge(name: str) -> None:
            client = Client(served, name)
            start.wait()
            status, view = client.post("/api/view", task=0)
            while status == 200 and view["showing"] is not None:
                said = vote_on(view, note=f"{name} {view['showing']}")
                client.post("/api/vote", **said)  # sent twice, as after an answer that was lost
                status, view = client.post("/api/vote", **said)
            if status != 200:
                refused.append((name, status, view))
            client.close()

        threads = [threading.Thread(target=judge, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert refused == []
    found = crowd.judgements("rank-1")
    assert Counter((one.grader, one.note) for one in found) == {
        (name, f"{name} {n}"): 1 for name in names for n in range(6)
    }
    assert {(one.grader, one.item, one.is_repeat) for one in found if not one.is_repeat} == {
        (name, f"i{n}", False) for name in names for n in range(5)
    }
