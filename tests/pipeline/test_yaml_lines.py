from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ftcli.metrics.rules import Rule
from ftcli.pipeline.yaml_lines import Document, read, scalar, value_for


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-1.5e+3", -1500.0),
        ("010", 10),
        ("-7", -7),
        ("+7", 7),
        ("true", True),
        ("False", False),
        ("no", "no"),
        ("off", "off"),
        ("yes", "yes"),
        ("y", "y"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("2026-01-01", "2026-01-01"),
        ("null", None),
        ("~", None),
        ("", None),
        ("'2e-4'", "2e-4"),
        ('"true"', "true"),
        ("hf:org/name@main", "hf:org/name@main"),
        ("[a, 1, 2e-1]", ["a", 1, 0.2]),
        ("{a: 1}", {"a": 1}),
        ("!!str 12", "12"),
        ("!!int '12'", 12),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    found = scalar(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text", ["[a", "a: b: c", "*x", "!!int x", "!!python/object:os.system x", "@x", "\x00", "\x07"]
)
def test_text_that_is_no_yaml_stays_text(text: str) -> None:
    assert scalar(text) == text


def test_every_key_and_item_has_its_line() -> None:
    document = read("a: 1\n\n# comment\nb:\n  - x\n  - c: 2\n    d: [1,\n      2]\n")
    assert document.problems == []
    assert document.value == {"a": 1, "b": ["x", {"c": 2, "d": [1, 2]}]}
    assert document.lines == {
        (): 1,
        ("a",): 1,
        ("b",): 4,
        ("b", 0): 5,
        ("b", 1): 6,
        ("b", 1, "c"): 6,
        ("b", 1, "d"): 7,
        ("b", 1, "d", 0): 7,
        ("b", 1, "d", 1): 8,
    }
    assert document.line("b", 1, "unknown", "deeper") == 6, "the nearest parent's"
    assert document.line("unknown") == 1


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("a: 1\nb: 2\na: 3\n", [(3, "duplicate key a (first in line 1)")]),
        ("x:\n  a: 1\n  a: 1\ny: {b: 1, b: 2}\n", [(3, "duplicate key a"), (4, "duplicate key b (first in line 4)")]),
        ("a: 1\n1: 2\n", [(2, "key 1: keys are text")]),
        ("? [a, b]\n: 1\n", [(1, "keys are text")]),
        ("true: 1\n", [(1, "key True: keys are text")]),
        ("a: [1\nb: 2\n", [(2, "no valid YAML")]),
        ("a:\n\t- b\n", [(2, "no valid YAML")]),
        ("a: !secret x\n", [(1, "that can be read")]),
        ("a: !!set {x}\n", [(1, "tag tag:yaml.org,2002:set")]),
        ("a: !!int x\n", [(1, "'x' is no int that can be read")]),
        ("a: 1\n---\nb: 2\n", [(2, "no valid YAML")]),
        ("a: &x [*x]\n", [(1, "aliases that never end")]),
        ("a: \x00\n", [(1, "no valid YAML")]),
        ("[" * 1500, [(1, "nested too deeply")]),
        ("a: " + "1" * 5000, [(1, "that can be read")]),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, problems: list[tuple[int, str]]) -> None:
    found = read(text).problems
    assert [line for line, _ in found] == [line for line, _ in problems]
    for (_, message), (_, part) in zip(found, problems, strict=True):
        assert part in message


def test_aliases_repeat_what_they_name() -> None:
    assert read("a: &x {b: 1}\nc: *x\n").value == {"a": {"b": 1}, "c": {"b": 1}}


def test_aliases_of_aliases_of_aliases_are_refused_before_they_fill_the_memory() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    ((line, text),) = read("\n".join(lines)).problems
    assert "aliases that never end" in text
    assert line > 0


fragments = "a b: - [ ] { } , &x *x !!int ' \" | > # ? 1 ~ --- << :"
pieces = st.sampled_from([*fragments.split(), " ", "  ", "\n", "\t", ": ", "- "])


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(pieces, max_size=25).map("".join)))
@example("? &x [*x]\n: 1")
@example("!!timestamp x")
@example("!!binary =")
@example("=")
def test_any_text_gives_plain_data_or_problems_and_never_raises(text: str) -> None:
    document = read(text)
    assert isinstance(document, Document)
    assert is_plain(document.value)
    assert all(line >= 1 and message for line, message in document.problems)


def is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(plain)
def test_what_pyyaml_writes_as_json_is_read_as_it_was(value: Any) -> None:
    """JSON is YAML 1.2; PyYAML's double-quoted flow style is JSON with other spaces."""
    text = yaml.safe_dump(value, default_flow_style=True, default_style='"')
    found = read(text)
    if found.problems:  # keys such as "1" are quoted and stay text, so there are none
        raise AssertionError(found.problems)
    assert found.value == value or _differs_only_by_float_text(found.value, value)


def _differs_only_by_float_text(found: Any, value: Any) -> bool:
    """PyYAML tags a quoted number (!!float "1.5"), with an exponent that needs no sign."""
    if isinstance(value, dict):
        return found.keys() == value.keys() and all(_differs_only_by_float_text(found[k], value[k]) for k in value)
    if isinstance(value, list):
        return len(found) == len(value) and all(map(_differs_only_by_float_text, found, value))
    return found == value or (isinstance(value, float) and math.isclose(found, value))


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (int, "010", 10),
        (float, "2e-4", 2e-4),
        (int | None, "null", None),
        (int | None, "3", 3),
        (str, "null", "null"),
        (str, "a: b #c", "a: b #c"),
        (str | None, "123", "123"),
        (str | None, "You are: kind", "You are: kind"),
        (str | None, "null", None),
        (bool, "true", True),
        (Literal["no", "yes"], "no", "no"),
        (tuple[str, ...], "a,b", ["a", "b"]),
        (tuple[str, ...], "[a, b]", ["a", "b"]),
        (tuple[str, ...], "10", ["10"]),
        (list[int], "1,2", [1, 2]),
        (list[int] | None, "null", None),
        (dict[str, str], "{a: b}", {"a": "b"}),
        (tuple[Rule, ...], "{metric: rougeL, max: 1}", [{"metric": "rougeL", "max": 1}]),
        (tuple[Rule, ...], "[{metric: rougeL}]", [{"metric": "rougeL"}]),
        (tuple[Rule, ...], "{metric: rougeL, max", ["{metric: rougeL, max"]),
        (tuple[Rule, ...] | None, "null", None),
        (tuple[str, ...], "a: b", ["a: b"]),
        (tuple[str, ...], "rougeL.delta < -0.01 and rougeL.p < 0.05", ["rougeL.delta < -0.01 and rougeL.p < 0.05"]),
    ],
)
def test_text_typed_in_a_shell_means_what_the_setting_takes(annotation: Any, text: str, value: object) -> None:
    assert value_for(annotation, text) == value


def test_a_byte_order_mark_and_windows_lines_do_no_harm(tmp_path: Path) -> None:
    document = read("\ufeffa: 1\r\nb: 2\r\n")
    assert (document.value, document.line("b")) == ({"a": 1, "b": 2}, 2)
