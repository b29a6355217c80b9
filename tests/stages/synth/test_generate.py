"""The stage as a whole, with a scripted teacher on loopback; the local path with the tiny model is in test_teacher.py."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.errors import BadData, StageFailed, Stopped, UsageError
from ftcli.core.stage import Kind
from ftcli.core.stop import Stop
from ftcli.data.rows import RowType, read_jsonl, read_split
from ftcli.stages.synth.config import SynthConfig
from ftcli.stages.synth.journal import Question
from ftcli.stages.synth.stage import SYNTH
from ftcli.stages.synth.teacher import ServerTeacher
from tests.conftest import artifact, run_stage, write_data
from tests.models.fake_chat import Answer, completion, serving
from tests.stages.synth.teaching import asked, rejected_of, rows_of, seed_row, seeds, sentence, teach, written

pytestmark = pytest.mark.enable_socket
Json = dict[str, Any]


def test_self_instruct_shows_seeds_and_its_rows_tell_where_they_come_from(tmp_path: Path) -> None:
    with serving(written) as teacher:
        context = teach(tmp_path, teacher, seeds(tmp_path / "seeds"), requests=4, examples=3, teacher_license="mit")
    rows = read_split(context.out / "data", "train", RowType.MESSAGES)
    assert len(rows) == len({row["id"] for row in rows}) == 4
    assert rows_of(context, "validation") == rows_of(context, "test") == []
    by_text = {seed_row(n)["messages"][0]["content"]: seed_row(n)["id"] for n in range(6)}
    for row in rows:
        prov = row["meta"]["prov"]
        prompts = [asked(body) for body in teacher.bodies if written(body)[1] == _exchange_of(row)]
        assert [name for text, name in by_text.items() if text in prompts[0]] == sorted(prov["seed_ids"])
        assert len(prov["seed_ids"]) == 3
        assert prov["origin"] == "synthetic"
        assert prov["teacher"] == {"name": "big", "provider": teacher.url, "license": "mit"}
        assert prov["sampling"] == {"temperature": 0.8, "seed": 42, "max_new_tokens": 512}
        assert prov["review"] is None
        assert prov["gates"].keys() == {"rouge_l", "near", "containment"}
    used = Counter(name for row in rows for name in row["meta"]["prov"]["seed_ids"])
    assert set(used.values()) == {2}, "12 places for 6 seeds, two each"
    assert context.events.summary["synth/tokens"] == 28


def _exchange_of(row: Json) -> Json:
    texts = [message["content"] for message in row["messages"]]
    answer = completion(json.dumps({"instruction": texts[0], "response": texts[1]}))
    body: Json = answer[1]
    return body


def test_every_reply_is_a_row_or_rejected_with_its_reason_and_raw_text(tmp_path: Path) -> None:
    replies = [
        "I will not.",
        json.dumps({"instruction": seed_row(0)["messages"][0]["content"].upper(), "response": "Yes, it is so."}),
        json.dumps({"instruction": f"{sentence('held')}?", "response": "Perhaps it is so."}),
        json.dumps({"instruction": "Whom does one write to about it?", "response": "ann.lee@acme-corp.io, I think."}),
        json.dumps({"instruction": f"{sentence('good')}?", "response": f"{sentence('fine')}."}),
        json.dumps({"instruction": f"{sentence('good')}!", "response": f"{sentence('other')}."}),
    ]

    def answer(body: Json) -> Answer:
        return completion(replies[int(asked(body).partition("number: ")[2].split()[0])])

    held_out = {**seed_row(7), "messages": [{"role": "user", "content": sentence("held")}, seed_row(7)["messages"][1]]}
    data = seeds(tmp_path / "seeds", 6, 1, lambda n: held_out if n == 6 else seed_row(n))
    attributes = {"number": tuple(map(str, range(6)))}
    with serving(answer) as teacher:
        context = teach(tmp_path, teacher, data, requests=6, attributes=attributes)
    assert [(item["number"], item["reason"]) for item in rejected_of(tmp_path)] == [
        (0, "synth_parse"),
        (1, "copy_of_seed"),
        (2, "contaminated"),
        (3, "pii"),
        (5, "rouge_l"),
    ]
    assert [item["raw"] for item in rejected_of(tmp_path)] == [replies[n] for n in (0, 1, 2, 3, 5)]
    assert [row["meta"]["prov"]["attributes"] for row in rows_of(context)] == [{"number": "4"}]
    assert context.events.summary["synth/asked"] == 6
    assert sum(context.events.summary["synth/rejected"].values()) == 5
    assert len(teacher.bodies) == 7, "the one without JSON was asked for once more"
    asked_for = list(read_jsonl(context.out / "report" / "requests.jsonl"))
    assert len(asked_for) == 7
    assert "5 rows" not in (context.out / "report" / "summary.txt").read_text()
    assert "synth_parse" in (context.out / "report" / "summary.txt").read_text()


def test_a_reply_that_cannot_be_read_is_asked_for_again_with_the_problem(tmp_path: Path) -> None:
    def answer(body: Json) -> Answer:
        return written(body) if len(body["messages"]) == 3 else completion('{"instruction": "Say hi."}')

    with serving(answer) as teacher:
        context = teach(tmp_path, teacher, seeds(tmp_path / "seeds"), requests=1)
    assert teacher.bodies[1]["messages"][1] == {"role": "assistant", "content": '{"instruction": "Say hi."}'}
    assert "response: Field required" in teacher.bodies[1]["messages"][2]["content"]
    assert rows_of(context)[0]["meta"]["prov"]["repaired"] is True


def test_a_reply_that_only_repeats_the_form_is_no_row(tmp_path: Path) -> None:
    def echo(body: Json) -> Answer:
        first = asked(body)
        return completion(first[first.rindex("{") :])

    with serving(echo) as teacher, pytest.raises(BadData, match="none of 1 replies became a row: 1 synth_parse"):
        teach(tmp_path, teacher, seeds(tmp_path / "seeds"), mode="augment", requests=1)
    assert rejected_of(tmp_path)[0]["detail"] == "it repeats the form and fills nothing in"


def test_evolve_goes_on_from_its_own_rows_and_names_parent_operator_and_root(tmp_path: Path) -> None:
    with serving(written) as teacher:
        context = teach(tmp_path, teacher, seeds(tmp_path / "seeds", 3), mode="evolve", requests=15, depth=2)
    rows = rows_of(context)
    first, second = ([row for row in rows if row["meta"]["prov"]["depth"] == depth] for depth in (1, 2))
    assert (len(first), len(second)) == (8, 7)
    assert {row["meta"]["prov"]["operator"] for row in first} == {
        "add_constraint",
        "deepen",
        "concretise",
        "reasoning",
        "breadth",
    }
    names = {row["id"]: row for row in first}
    for row in second:
        parent = names[row["meta"]["prov"]["parent_id"]]
        assert row["meta"]["prov"]["seed_ids"] == parent["meta"]["prov"]["seed_ids"]
        assert any(parent["messages"][0]["content"] in asked(body) for body in teacher.bodies)
    assert {seed for row in first for seed in row["meta"]["prov"]["seed_ids"]} == {seed_row(n)["id"] for n in range(3)}


def test_a_question_on_a_document_needs_a_quote_that_is_in_it(tmp_path: Path) -> None:
    def answer(body: Json) -> Answer:
        passage = asked(body).partition("Passage:\n")[2].partition("\n\nWrite")[0]
        quote = passage[:20] if "alpha" in passage else "no such words"
        texts = {"instruction": f"{sentence(passage)}?", "response": "It says so there.", "quote": quote}
        return completion(json.dumps(texts))

    texts = {0: f"alpha {sentence(1, 30)}", 1: f"beta {sentence(2, 30)}"}
    documents = write_data(tmp_path / "text", lambda n: {"id": f"doc-{n}", "text": texts[n], "meta": {}}, 2, 0, 0)
    inputs = {"documents": artifact(Kind.DATA, documents)}
    with serving(answer) as teacher:
        context = teach(tmp_path, teacher, None, inputs=inputs, mode="from_documents", requests=2)
    prov = rows_of(context)[0]["meta"]["prov"]
    assert (prov["document_id"], prov["passage_start"], prov["quote"]) == ("doc-0", 0, texts[0][:20])
    assert [item["reason"] for item in rejected_of(tmp_path)] == ["quote_not_found"]


def test_augment_keeps_the_seeds_answer_and_system_message(tmp_path: Path) -> None:
    def with_system(index: int) -> Json:
        row = seed_row(index)
        return {**row, "messages": [{"role": "system", "content": "Be brief."}, *row["messages"]]}

    def answer(body: Json) -> Answer:
        return completion(json.dumps({"instruction": f"{sentence(asked(body))}?"}))

    with serving(answer) as teacher:
        data = seeds(tmp_path / "seeds", 2, make=with_system)
        context = teach(tmp_path, teacher, data, mode="augment", requests=2)
    for row in rows_of(context):
        seed = with_system(int(row["meta"]["prov"]["seed_ids"][0], 16))
        assert row["messages"][0] == seed["messages"][0]
        assert row["messages"][2] == seed["messages"][2]
        assert row["messages"][1] != seed["messages"][1]


def test_preferences_put_a_flawed_answer_beside_the_seeds_own(tmp_path: Path) -> None:
    def answer(body: Json) -> Answer:
        return completion(json.dumps({"flaw": "a wrong fact", "response": f"{sentence(asked(body))}."}))

    with serving(answer) as teacher:
        context = teach(tmp_path, teacher, seeds(tmp_path / "seeds", 3), mode="preferences", requests=3)
    rows = read_split(context.out / "data", "train", RowType.PREFERENCE)
    assert len(rows) == 3
    for row in rows:
        seed = seed_row(int(row["meta"]["prov"]["seed_ids"][0], 16))
        assert row["prompt"] == seed["messages"][:1]
        assert row["chosen"] == seed["messages"][1:]
        assert row["rejected"] != row["chosen"]
        assert row["meta"]["prov"]["flaw"] == "a wrong fact"


def test_a_run_that_failed_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    count = 0

    def failing(body: Json) -> Answer:
        nonlocal count
        count += 1
        return written(body) if count <= 5 else (404, {"error": "gone"})

    data = seeds(tmp_path / "seeds")
    with serving(written) as teacher:
        whole = rows_of(teach(tmp_path / "whole", teacher, data, requests=12))
    with serving(failing) as teacher:
        with pytest.raises(UsageError, match="404"):
            teach(tmp_path / "again", teacher, data, requests=12, concurrency=1)
        before = [body["seed"] for body in teacher.bodies[:5]]
        teacher.answer = written
        teacher.bodies.clear()
        context = teach(tmp_path / "again", teacher, data, requests=12, concurrency=3)
        assert len(teacher.bodies) == 7
        assert not {body["seed"] for body in teacher.bodies} & set(before)
    assert _without_address(rows_of(context)) == _without_address(whole)


def _without_address(rows: list[Json]) -> list[Json]:
    for row in rows:
        del row["meta"]["prov"]["teacher"]
    return rows


def test_a_torn_last_line_of_the_journal_is_asked_again(tmp_path: Path) -> None:
    data = seeds(tmp_path / "seeds")
    with serving(written) as teacher:
        first = rows_of(teach(tmp_path, teacher, data, requests=4, concurrency=1))
        journal = tmp_path / "scratch" / "requests.jsonl"
        journal.write_bytes(journal.read_bytes()[:-30])
        teacher.bodies.clear()
        assert rows_of(teach(tmp_path, teacher, data, requests=4, concurrency=1)) == first
        assert len(teacher.bodies) == 1


def test_a_stop_keeps_the_replies_and_says_so(tmp_path: Path) -> None:
    stop = Stop()

    def answer(body: Json) -> Answer:
        stop.ask("SIGTERM")
        return written(body)

    with serving(answer) as teacher, pytest.raises(Stopped, match="stopped by SIGTERM with 1 replies kept"):
        teach(tmp_path, teacher, seeds(tmp_path / "seeds"), requests=4, concurrency=1, stop=stop)
    assert len(teacher.bodies) == 1


def test_the_token_budget_ends_the_asking_and_is_told(tmp_path: Path) -> None:
    notes: list[str] = []
    with serving(written) as teacher:
        context = teach(
            tmp_path,
            teacher,
            seeds(tmp_path / "seeds"),
            requests=9,
            max_tokens=20,
            concurrency=1,
            sink=lambda event: notes.append(str(event.get("text", ""))),
        )
    assert len(teacher.bodies) == len(rows_of(context)) == 3, "of 7 tokens each, the third passes 20"
    assert any("21 of 20 tokens used; 6 requests were not made" in note for note in notes)
    assert "6 of 9 requests were not made" in (context.out / "report" / "summary.txt").read_text()


def test_a_server_that_counts_no_tokens_cannot_have_a_budget(tmp_path: Path) -> None:
    def answer(body: Json) -> Answer:
        content = dict(written(body)[1])
        del content["usage"]
        return 200, content

    data = seeds(tmp_path / "seeds")
    with serving(answer) as teacher:
        with pytest.raises(UsageError, match="does not count tokens"):
            teach(tmp_path, teacher, data, requests=2, max_tokens=10)
        context = teach(tmp_path, teacher, data, requests=2)
    assert context.events.summary["synth/tokens"] is None


def test_settings_that_a_server_does_not_take_are_left_out_and_told(tmp_path: Path) -> None:
    def answer(body: Json) -> Answer:
        return (400, {"error": "unknown field seed"}) if "seed" in body else written(body)

    notes: list[str] = []
    with serving(answer) as teacher:
        context = teach(
            tmp_path,
            teacher,
            seeds(tmp_path / "seeds"),
            requests=3,
            sink=lambda event: notes.append(str(event.get("text", ""))),
        )
    assert any("does not take seed" in note for note in notes)
    assert len(teacher.bodies) == 4
    assert {tuple(row["meta"]["prov"]["sampling"]) for row in rows_of(context)} == {("temperature", "max_new_tokens")}


def test_a_request_that_the_server_refuses_is_counted_and_the_others_go_on(tmp_path: Path) -> None:
    def answer(body: Json) -> Answer:
        return (400, {"error": "too long"}) if "number: 1" in asked(body) else written(body)

    with serving(answer) as teacher:
        data = seeds(tmp_path / "seeds")
        context = teach(tmp_path, teacher, data, requests=3, attributes={"number": ("0", "1", "2")})
    assert len(rows_of(context)) == 2
    assert [(item["reason"], "too long" in item["detail"]) for item in rejected_of(tmp_path)] == [
        ("request_refused", True)
    ]


def test_a_server_that_fails_ends_the_run_with_what_came_kept(tmp_path: Path) -> None:
    with serving(lambda body: (200, {"no": "choices"})) as teacher:
        server = ServerTeacher(SynthConfig(teacher_url=teacher.url, teacher_model="big"), None, attempts=1)
        with pytest.raises(StageFailed, match="no reply after 1 attempts"):
            server.ask(
                [Question("a", [{"role": "user", "content": "hi"}])], lambda question, answer: None, lambda: False
            )


def test_nothing_that_passes_is_an_error_that_counts_the_reasons(tmp_path: Path) -> None:
    with (
        serving(lambda body: completion("no")) as teacher,
        pytest.raises(BadData, match="none of 2 replies became a row: 2 synth_parse"),
    ):
        teach(tmp_path, teacher, seeds(tmp_path / "seeds"), requests=2)
    assert [item["raw"] for item in rejected_of(tmp_path)] == ["no", "no"]


def test_the_key_goes_to_the_server_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTCLI_TEACHER_API_KEY", "sk-very-secret")
    with serving(written) as teacher:
        teach(tmp_path, teacher, seeds(tmp_path / "seeds"), requests=1)
    assert teacher.headers[0]["Authorization"] == "Bearer sk-very-secret"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not any(b"sk-very-secret" in path.read_bytes() for path in files)


def test_missing_or_doubled_inputs_are_one_plain_error(tmp_path: Path, tiny_model: Path) -> None:
    data = artifact(Kind.DATA, seeds(tmp_path / "seeds"))
    server = {"teacher_url": "http://localhost:9/v1", "teacher_model": "big"}
    with pytest.raises(UsageError, match="no teacher"):
        run_stage(SYNTH, tmp_path / "a", {"seeds": data})
    with pytest.raises(UsageError, match="two teachers"):
        run_stage(SYNTH, tmp_path / "b", {"seeds": data, "teacher": artifact(Kind.MODEL, tiny_model)}, **server)
    with pytest.raises(UsageError, match="mode from_documents has no documents"):
        run_stage(SYNTH, tmp_path / "c", {"seeds": data}, mode="from_documents", **server)
    with pytest.raises(UsageError, match="mode evolve has no seeds"):
        run_stage(SYNTH, tmp_path / "d", {"documents": data}, mode="evolve", **server)
    with pytest.raises(UsageError, match="mode evolve reads no documents"):
        run_stage(SYNTH, tmp_path / "e", {"seeds": data, "documents": data}, mode="evolve", **server)


def test_data_with_nothing_to_use_is_refused(tmp_path: Path) -> None:
    server = {"teacher_url": "http://localhost:9/v1", "teacher_model": "big"}
    bare = seeds(tmp_path / "bare", 2, make=lambda n: {"id": str(n), "prompt": seed_row(n)["messages"][:1], "meta": {}})
    with pytest.raises(BadData, match="none of 2 rows in train can be a seed of augment: 0 are not one request"):
        run_stage(SYNTH, tmp_path / "a", {"seeds": artifact(Kind.DATA, bare)}, mode="augment", **server)
    empty = write_data(tmp_path / "empty", lambda n: {}, 0, 0, 0)
    documents = {"documents": artifact(Kind.DATA, empty)}
    with pytest.raises(BadData, match="no text in train"):
        run_stage(SYNTH, tmp_path / "b", documents, mode="from_documents", **server)
    inputs = {"seeds": artifact(Kind.DATA, seeds(tmp_path / "seeds")), "against": artifact(Kind.DATA, empty)}
    with pytest.raises(BadData, match="no validation or test rows to compare with"):
        run_stage(SYNTH, tmp_path / "c", inputs, **server)


def test_rows_of_several_turns_are_no_seeds_and_counted(tmp_path: Path) -> None:
    def make(index: int) -> Json:
        row = seed_row(index)
        return {**row, "messages": row["messages"] * 2} if index == 0 else row

    notes: list[str] = []
    with serving(written) as teacher:
        data = seeds(tmp_path / "seeds", 3, make=make)
        context = teach(
            tmp_path, teacher, data, requests=2, sink=lambda event: notes.append(str(event.get("text", "")))
        )
    assert any("2 of 3 rows are seeds: 1 are not one request of a user, 0 have no answer" in note for note in notes)
    assert {len(row["meta"]["prov"]["seed_ids"]) for row in rows_of(context)} == {2}
