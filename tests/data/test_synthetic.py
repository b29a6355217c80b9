from __future__ import annotations

import pytest

from ftcli.data.synthetic import (
    Exchange,
    Quoted,
    Unusable,
    first_object,
    has_quote,
    is_synthetic,
    read_reply,
    seed_ids,
)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ('Sure!\n```json\n{"a": {"b": 2}}\n```\nMore {"c": 3}', '{"a": {"b": 2}}'),
        ('{"a": "} and { and \\" }"}', '{"a": "} and { and \\" }"}'),
        ('<think>perhaps {"a": 0}</think> {"a": 1}', '{"a": 1}'),
    ],
)
def test_the_first_balanced_object_is_found_wherever_braces_stand(reply: str, expected: str) -> None:
    assert first_object(reply) == expected


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ("I'm sorry.", "no JSON object"),
        ('{"instruction": "Say', "does not end"),
        ("{instruction: hi}", "no valid JSON: Expecting property name"),
        ('{"instruction": "Say hi."}', "response: Field required"),
        ('{"instruction": "Say hi.", "response": 7}', "response: Input should be a valid string"),
        ('{"instruction": "  ", "response": "Hi."}', "instruction: String should have at least 1 character"),
        ('{"instruction": "Say hi.", "response": "\\ud800"}', "unable to parse raw data as a unicode string"),
        ('["Say hi.", {"instruction": 1}]', "instruction: Input should be a valid string; response: Field required"),
    ],
)
def test_a_reply_that_cannot_be_used_says_why(reply: str, problem: str) -> None:
    with pytest.raises(Unusable, match=problem):
        read_reply(reply, Exchange)


def test_line_breaks_in_strings_and_keys_beside_the_form_do_no_harm() -> None:
    read = read_reply('{"instruction": " Say hi. ", "response": "Hi,\nyou.", "note": null}', Exchange)
    assert (read.instruction, read.response) == ("Say hi.", "Hi,\nyou.")


def test_a_quote_is_verbatim_but_for_line_breaks() -> None:
    passage = "Close the file.\nIt frees   the handle."
    assert has_quote(passage, "file. It frees the handle.")
    assert not has_quote(passage, "it frees the handle.")
    assert read_reply('{"instruction": "a", "response": "b", "quote": "c"}', Quoted).quote == "c"


def test_synthetic_rows_are_known_by_their_provenance_also_after_an_edit() -> None:
    assert is_synthetic({"prov": {"origin": "synthetic", "seed_ids": []}})
    assert is_synthetic({"prov": {"origin": "edited", "seed_ids": ["a"]}})
    for meta in (
        {},
        {"prov": None},
        {"prov": "synthetic"},
        {"prov": {"origin": "edited"}},
        {"prov": {"seed_ids": "a"}},
    ):
        assert not is_synthetic(meta)
    assert seed_ids({"prov": {"seed_ids": ["a", 7]}}) == ["a"]
