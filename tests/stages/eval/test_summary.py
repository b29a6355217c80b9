from __future__ import annotations

from ftcli.stages.eval.summary import summary_text

TABLE = [["model", "perplexity"], ["base", "45.9"], ["lora", "17.1"]]


def record(question: str, **answers: str) -> dict[str, object]:
    return {
        "prompt": [{"role": "user", "content": question}],
        "reference": "Return x.",
        "models": {label: {"greedy": {"text": text}} for label, text in answers.items()},
    }


def test_summary_has_the_table_its_note_and_the_first_two_answers_side_by_side() -> None:
    samples = [record(f"What does f{index} do?", base="It is\na function.", lora="") for index in range(3)]
    text = summary_text(TABLE, "12 rows scored", samples)
    assert text.splitlines()[:5] == ["model  perplexity", "base   45.9", "lora   17.1", "", "12 rows scored"]
    assert "What does f1 do?" in text
    assert "What does f2 do?" not in text
    assert "  reference  Return x." in text
    assert "  base       It is a function." in text
    assert "  lora       (empty)" in text


def test_summary_without_answers_is_the_table_alone() -> None:
    sample = {"prompt": [{"role": "user", "content": "Q"}], "reference": "R", "models": {"base": {}}}
    assert summary_text(TABLE, "note", [sample]).splitlines()[-1] == "note"


def test_a_very_long_answer_is_shortened_to_a_few_lines() -> None:
    text = summary_text(TABLE, "note", [record("Q", base="word " * 2000)])
    assert len(text.splitlines()) < 20
    assert "..." in text
