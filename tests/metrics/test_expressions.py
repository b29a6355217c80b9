"""The language of --fail-if: what it computes is what Python computes, and what it cannot say it refuses."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ftcli.metrics.expressions import DEEPEST, FIELDS, LONGEST, parse_expression

VALUES = {
    "rougeL.delta": -0.034,
    "rougeL.p_holm": 0.004,
    "general.nll.ratio": 1.05,
    "hit_max_rate.value": 0.0,
    "lora.rougeL.n": 60.0,
}
NAMESPACE = {
    "rougeL": SimpleNamespace(delta=-0.034, p_holm=0.004),
    "general": SimpleNamespace(nll=SimpleNamespace(ratio=1.05)),
    "hit_max_rate": SimpleNamespace(value=0.0),
    "lora": SimpleNamespace(rougeL=SimpleNamespace(n=60.0)),
}

numbers = st.one_of(
    st.sampled_from(sorted(VALUES)),
    st.integers(0, 999).map(str),
    st.floats(0, 1e6, allow_nan=False).map(repr),
)
arithmetic = st.recursive(
    numbers,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda part: f"({part[0]} {part[1]} {part[2]})"),
        st.tuples(st.sampled_from("+-"), inner).map("".join),
    ),
    max_leaves=6,
)
compared = st.lists(st.tuples(arithmetic, st.sampled_from(["<", "<=", ">", ">=", "==", "!="])), min_size=1, max_size=3)
comparisons = st.tuples(compared, arithmetic).map(
    lambda part: "".join(f"{left} {op} " for left, op in part[0]) + part[1]
)
conditions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda part: f"({part[0]} {part[1]} {part[2]})"),
        inner.map(lambda text: f"not ({text})"),
    ),
    max_leaves=4,
)


@settings(max_examples=400, deadline=None)
@given(conditions)
def test_a_condition_means_what_python_means_by_it(text: str) -> None:
    assume(len(text) <= LONGEST)
    try:
        expected = eval(text, {"__builtins__": {}}, NAMESPACE)
    except ZeroDivisionError:
        with pytest.raises(ArithmeticError):
            parse_expression(text).holds(VALUES)
        return
    try:
        found = parse_expression(text).holds(VALUES)
    except ArithmeticError:  # Python went past a division by zero behind `or`, or beyond the largest number
        assume("/" in text or "*" in text)
        return
    assert found is bool(expected)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        expression = parse_expression(text)
    except ValueError:
        return
    assert all(name.rpartition(".")[2] in FIELDS for name in expression.names)


def test_each_name_is_listed_once_as_written() -> None:
    text = "0 < rougeL.delta < lora.rougeL.delta or rougeL.delta == general.nll.ratio"
    assert parse_expression(text).names == ("rougeL.delta", "lora.rougeL.delta", "general.nll.ratio")


def test_spaces_inside_a_name_do_not_matter() -> None:
    assert parse_expression("rougeL . delta\n < 0").holds(VALUES) is True


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "__import__('os').system('true') < 1",
        "().__class__.__bases__[0].__subclasses__().n < 1",
        "rougeL.__class__ < 1",
        "rougeL.delta.__class__.__mro__ < 1",
        "rougeL.__class__.delta() < 1",
        "''.n < 1",
        "(1).n < 1",
        "[1][0] < 1",
        "rougeL[0].delta < 1",
        "{1: 2}[1] < 1",
        "2 ** 99 < 1",
        "1 << 99 < 1",
        "9 // 2 < 1",
        "9 % 2 < 1",
        "~1 < 1",
        "1 in rougeL.delta",
        "1 is rougeL.delta",
        "rougeL.delta < 1 if 1 < 2 else 1 < 3",
        "(lambda: 1)() < 1",
        "[x for x in y]",
        "(x := 1) < 2",
        "'a' < 'b'",
        "f'{rougeL.delta}' < 'b'",
        "b'a' < 1",
        "True < 1",
        "None == rougeL.delta",
        "1j < 1",
        "... < 1",
        "await x.n < 1",
        "*x.n < 1",
        "exec.n() < 1",
        "1 < 2, 3",
        "x = 1",
        "import os",
    ],
)
def test_nothing_but_the_language_is_evaluated(text: str) -> None:
    with pytest.raises(ValueError, match=r"not allowed here|unknown field|at its end|column \d+"):
        parse_expression(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a condition is needed, such as rougeL.delta < -0.01"),
        ("  \n", "a condition is needed, such as rougeL.delta < -0.01"),
        ("rougeL.delta < ", "'rougeL.delta <', at its end: invalid syntax"),
        ("rougeL.delta < < 1", "'rougeL.delta < < 1', column 16: invalid syntax"),
        ("(rougeL.delta < 1", r"column 1: '\(' was never closed"),
        ("rougeL.delta = 1", "cannot assign|invalid syntax"),
        ("rougeL < 1", r"column 1: rougeL names no field; write rougeL.delta, or another of value, baseline"),
        ("1 > rougeL.dleta", r"column 5: rougeL.dleta: unknown field dleta; did you mean delta\?"),
        ("general.nll < 1", r"general.nll: unknown field nll; fields are value, baseline, delta"),
        ("rougeL.delta", r"rougeL.delta is a number, and a condition is needed; compare it with something, e.g. < 0"),
        ("rougeL.delta and 1 < 2", "rougeL.delta is a number, and a condition is needed"),
        ("(rougeL.delta < 1) + 1 < 2", "rougeL.delta < 1 is a condition, and a number is needed"),
        ("(rougeL.delta < 1) == (1 < 2)", "column 2: rougeL.delta < 1 is a condition"),
        ("rougeL.delta < 1e999", "column 16: a number too large to compare"),
        ("rougeL.delta < " + "9" * 400, "column 16: a number too large to compare"),
        ("1 < 2 or " * 100 + "1 < 2", f"at most {LONGEST} characters"),
        ("1" + " + 1" * (DEEPEST + 5) + " < 2", "nested too deeply"),
        ("-" * 450 + "1 < 2", "nested too deeply|cannot be read"),
        ("(" * 240 + "1 < 2" + ")" * 240, "too many nested parentheses|nested too deeply|cannot be read"),
        ("a" + ".b" * 240 + " < 1", "unknown field b"),
        ("rougeL.delta < 1\x00", "null bytes"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_expression(text)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("text", ["rougeL.delta < 0", "0 < 1 or rougeL.delta < 0", "not rougeL.delta != 0"])
def test_a_figure_that_is_not_finite_is_never_an_answer(text: str, value: float) -> None:
    with pytest.raises(ArithmeticError, match=r"rougeL\.delta is"):
        parse_expression(text).holds({"rougeL.delta": value})


@pytest.mark.parametrize("text", ["1 / 0 < 1", "1 < 2 or 1 / rougeL.delta < 1", "1e300 * 1e300 > 0"])
def test_arithmetic_without_a_result_is_never_an_answer(text: str) -> None:
    with pytest.raises(ArithmeticError):
        parse_expression(text).holds({"rougeL.delta": 0.0})
