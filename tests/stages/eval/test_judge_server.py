"""The judge behind a server on loopback (`tests.models.fake_chat`), which answers as servers of different kinds do."""

from __future__ import annotations

from math import log
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.errors import StageFailed, UsageError
from ftcli.core.stage import Artifact
from ftcli.models.remote import Reply
from ftcli.stages.eval.judge_prompt import CALIBRATION, Pair
from ftcli.stages.eval.judge_server import KEY_NAME, ServerJudge, verdict
from tests.models.fake_chat import Answer, FakeChat, Json, completion, serving
from tests.stages.eval.evaluating import comparison, evaluate, report_of

pytestmark = pytest.mark.enable_socket  # loopback

PAIRS = [Pair(f"question {n}", f"first {n}", f"second {n}") for n in range(5)]


def judge_of(fake: FakeChat, **options: Any) -> ServerJudge:
    return ServerJudge(fake.url, "big", "sk-key", wait_s=0.0, **options)


def question(body: Json) -> str:
    return str(body["messages"][0]["content"])


def test_the_verdict_is_the_probability_of_one_letter_beside_the_other() -> None:
    """In whatever form a tokenizer has them: 0.5 + 0.1 of 0.8 for A."""
    with serving(lambda body: completion("A", {"A": 0.5, " A": 0.1, "B": 0.2, "The": 0.15, "a": 0.05})) as fake:
        judge = judge_of(fake)
        assert judge.prefers_first(PAIRS) == pytest.approx([0.75] * 5)
    assert judge.who == f"big at {fake.url}"
    assert [question(body) for body in fake.bodies[:1]] == [CALIBRATION[0].question]
    assert sorted(map(question, fake.bodies[1:])) == [pair.question for pair in PAIRS]
    body = fake.bodies[-1]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("big", 0, 4)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 20)


def test_verdicts_are_in_the_order_of_the_pairs_and_told_as_they_come() -> None:
    def answer(body: Json) -> Answer:
        place = next((n for n, pair in enumerate(PAIRS) if pair.question == question(body)), 0)
        return completion("A", {"A": 0.5 + place / 10, "B": 0.5 - place / 10})

    told: list[tuple[str, int, int]] = []
    with serving(answer) as fake:
        found = judge_of(fake, progress=lambda *about: told.append(about)).prefers_first(PAIRS)
    assert found == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9])
    assert told == [("judging", done, 5) for done in range(1, 6)]


def test_a_server_that_tells_no_probabilities_is_read_by_its_text_and_this_is_said() -> None:
    with serving(lambda body: completion("B" if "first 1" in question(body) else "**A**.")) as fake:
        judge = judge_of(fake)
        assert judge.prefers_first(PAIRS[:3]) == [1.0, 0.0, 1.0]
    assert judge.who == f"big at {fake.url}, without probabilities"
    assert judge.identity == "big|without probabilities"


@pytest.mark.parametrize(("most", "expected"), [(5, 5), (0, None)])
def test_a_server_that_gives_fewer_log_probs_or_none_is_asked_for_what_it_gives(
    most: int, expected: int | None
) -> None:
    def answer(body: Json) -> Answer:
        if body.get("top_logprobs", 0) > most or ("logprobs" in body and not most):
            return 400, {"error": "top_logprobs: too many"}
        return completion("A", {"A": 0.9, "B": 0.1} if most else None)

    with serving(answer) as fake:
        judge = judge_of(fake)
        assert judge.prefers_first(PAIRS[:1]) == pytest.approx([0.9 if most else 1.0])
    assert fake.bodies[-1].get("top_logprobs") == expected
    assert ("without probabilities" in judge.who) == (not most)


@pytest.mark.parametrize("tells_logprobs", [True, False])
def test_a_model_that_thinks_first_is_read_after_its_thoughts(tells_logprobs: bool) -> None:
    def answer(body: Json) -> Answer:
        if body.get("max_completion_tokens", 4) < 100:
            return completion("<think>\nHm", {"<think>": 0.99, "A": 0.001} if tells_logprobs else None, "length")
        assert "temperature" not in body
        return completion("<think>\nB? No. A is better, B is worse.\n</think>\n\nA")

    with serving(answer) as fake:
        judge = judge_of(fake)
        assert judge.prefers_first(PAIRS[:2]) == [1.0, 1.0]
    assert judge.who.endswith(", after thinking, sampled")


def test_a_server_that_hides_the_thoughts_is_read_too() -> None:
    def answer(body: Json) -> Answer:
        return completion("B") if body.get("max_completion_tokens", 4) > 100 else completion(None, None, "length")

    with serving(answer) as fake:
        assert judge_of(fake).prefers_first(PAIRS[:2]) == [0.0, 0.0]


def test_a_model_that_never_says_a_letter_has_no_verdicts() -> None:
    with serving(lambda body: completion("Both are good.", {"Both": 0.9, "A": 0.05, "B": 0.01})) as fake:
        judge = judge_of(fake)
        assert judge.prefers_first(PAIRS) == [None] * 5
    assert fake.bodies[-1]["top_logprobs"] == 20


def test_a_pair_that_the_server_refuses_has_no_verdict_and_this_is_said() -> None:
    def answer(body: Json) -> Answer:
        if "first 3" in question(body):
            return 400, {"error": "maximum context length is 64 tokens"}
        return completion("A", {"A": 0.8, "B": 0.2})

    notes: list[str] = []
    with serving(answer) as fake:
        found = judge_of(fake, note=notes.append).prefers_first(PAIRS)
    assert found[3] is None
    assert [value for value in found if value is not None] == pytest.approx([0.8] * 4)
    [note] = notes
    assert note.startswith("judge: 1 of 5 requests have no verdict")
    assert "maximum context length is 64 tokens" in note


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (401, UsageError, KEY_NAME),
        (404, UsageError, "models"),
        (400, UsageError, "refuses the request"),
        (500, StageFailed, "no reply"),
    ],
)
def test_a_server_that_cannot_be_asked_is_an_error_before_any_pair(
    status: int, kind: type[Exception], says: str
) -> None:
    with serving(lambda body: (status, {"error": "no"})) as fake, pytest.raises(kind) as error:
        judge_of(fake)
    assert says in f"{error.value.message} {error.value.hint}"  # type: ignore[attr-defined]
    assert {question(body) for body in fake.bodies} == {CALIBRATION[0].question}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A", 1.0),
        ("B", 0.0),
        (" \n**B**", 0.0),
        ("(A).", 1.0),
        ("`B`", 0.0),
        ("Answer A", 1.0),
        ("answer: B.", 0.0),
        ("Answer is B", 0.0),
        ("A is better", 1.0),
        ("A good", None),
        ("a", None),
        ("Both", None),
        ("A B", None),
        ("A or B", None),
        ("AB", None),
        ("C", None),
        ("", None),
        ("<think>A", None),
        ("<think>A</think>B", 0.0),
    ],
)
def test_what_a_text_says(text: str, expected: float | None) -> None:
    assert verdict(Reply(text)) == expected


def test_likely_letters_beside_a_text_that_is_none() -> None:
    """Log-probs decide where they hold most of the probability; letters that are unlikely are no verdict."""
    assert verdict(Reply("I", first={"A": log(0.3), "B": log(0.3), "I": log(0.4)})) == pytest.approx(0.5)
    assert verdict(Reply("I", first={"A": log(0.2), "B": log(0.1), "I": log(0.7)})) is None
    assert verdict(Reply("**A**", first={"**": log(0.9), "A": log(0.01), "B": log(0.02)})) == 1.0


# In the stage ------------------------------------------------------------------------------------------------------------------


def knowing(body: Json) -> Answer:
    """A judge that knows the answers of the calibration set, and of others prefers the longer one."""
    known = {one.question: one for pair in CALIBRATION for one in (pair, pair.swapped())}.get(question(body))
    if known is not None:
        is_first = known in CALIBRATION
    else:
        first, _, second = question(body).partition("Answer A:\n")[2].partition("\n\nAnswer B:\n")
        is_first = len(first) > len(second.partition("\n\nWhich answer is better?")[0])
    return completion("A" if is_first else "B", {"A": 0.9, "B": 0.1} if is_first else {"A": 0.1, "B": 0.9})


def test_an_evaluation_is_judged_and_gated_by_a_server(
    tmp_path: Path, base: Artifact, lora: Artifact, data: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_NAME, "sk-verysecret")
    with serving(knowing) as fake:
        ctx = evaluate(
            tmp_path,
            {"models": (base, lora), "data": data},
            metrics=("health",),
            judge_url=fake.url,
            judge_model="big",
            gate=({"metric": "judge.llm", "min": 0.01},),
        )
    result, samples = report_of(tmp_path)
    pairs = [(row["models"]["lora"]["greedy"]["text"], row["models"]["base"]["greedy"]["text"]) for row in samples]
    longer = [0.5 if own.strip() == other.strip() else 0.9 if len(own) > len(other) else 0.1 for own, other in pairs]
    assert {abs(len(own) - len(other)) for own, other in pairs}.isdisjoint({0}), "no two of equal length"
    [judge] = result["judges"]
    assert (judge["who"], judge["fit"], judge["consistency"], judge["calibration"]) == (
        f"big at {fake.url}",
        True,
        1.0,
        1.0,
    )
    assert result["models"]["lora"]["judge.llm"]["value"] == pytest.approx(sum(longer) / 8)
    assert comparison(result, "lora", "base", "judge.llm")["change"] == pytest.approx(sum(longer) / 8 - 0.5)
    assert ctx.events.summary["gate"]["exit_code"] == 0
    assert fake.headers[0]["Authorization"] == "Bearer sk-verysecret"
    written = [path for path in tmp_path.rglob("*") if path.is_file() and b"verysecret" in path.read_bytes()]
    assert written == []


def test_a_server_that_cannot_be_asked_ends_the_stage_before_any_model_works(
    tmp_path: Path, base: Artifact, lora: Artifact, data: Artifact
) -> None:
    seen: list[str] = []
    with serving(lambda body: (401, "no")) as fake, pytest.raises(UsageError, match="refuses the key"):
        evaluate(
            tmp_path,
            {"models": (base, lora), "data": data},
            lambda event: seen.append(event["event"]),
            judge_url=fake.url,
            judge_model="big",
        )
    assert "progress" not in seen
