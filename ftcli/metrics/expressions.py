"""The conditions of ``--fail-if``: arithmetic and comparisons of named figures, and nothing else that Python has.

    rougeL.delta < -0.01 and rougeL.p_holm < 0.05
    0.9 < perplexity.ratio < 1.05
    not hit_max_rate.value <= 0.05
    lora.rougeL.delta < 2 * dpo.rougeL.delta

A name is a metric and a field of it; a model's label may stand before it. Python's parser reads the text, and every node that is
not listed here is refused, so there are no calls, subscripts, powers, words in quotes or attributes of anything.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from ftcli.core.config import nearest

FIELDS: dict[str, str] = {
    "value": "the model's own figure",
    "baseline": "the figure of the model that it is compared with",
    "delta": "value - baseline, as shown: a fall is negative, whichever way is better",
    "ratio": "value / baseline",
    "ci_low": "lower end of the interval of the change, as shown (of the ratio where a metric is compared by it)",
    "ci_high": "upper end of that interval",
    "p": "p-value of the change",
    "p_holm": "the same after Holm's correction over all checks of the gate that test something",
    "n": "rows that both models have",
    "mde": "smallest change that these rows would show four times in five",
}
LONGEST = 500
DEEPEST = 40

_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_SIGNS: dict[type[ast.unaryop], Callable[[float], float]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
_COMPARISONS: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_Kind = Literal["condition", "number"]


@dataclass(frozen=True)
class Expression:
    """A condition that was checked; ``names`` are the figures that it needs, as written, each once."""

    text: str
    tree: ast.expr
    names: tuple[str, ...]

    def holds(self, values: Mapping[str, float]) -> bool:
        """Whether it is true of ``values``, one for each of ``names``. Both sides of ``and`` and ``or`` are always computed.

        Raises `ArithmeticError` where a number is not finite, or something is divided by zero.
        """
        return _holds(self.tree, values)


def parse_expression(text: str) -> Expression:
    """Read a condition; raises `ValueError` that says where it goes wrong and what is known."""
    line = " ".join(text.split())
    if not line:
        raise ValueError("a condition is needed, such as rougeL.delta < -0.01")
    if len(line) > LONGEST:
        raise ValueError(f"a condition has at most {LONGEST} characters, this one {len(line)}")
    try:
        tree = ast.parse(line, mode="eval").body
    except SyntaxError as error:
        where = f"column {error.offset}" if error.offset else "at its end"
        raise ValueError(f"{line!r}, {where}: {error.msg}") from None
    except (ValueError, MemoryError, RecursionError) as error:
        raise ValueError(f"{line!r}: cannot be read: {error}") from None
    names: dict[str, None] = {}
    _check(tree, "condition", line, names)
    return Expression(line, tree, tuple(names))


def _check(node: ast.expr, kind: _Kind, line: str, names: dict[str, None], depth: int = 0) -> None:
    """Refuse ``node`` unless it is a condition, or a number, built from what is allowed; collect the names in it."""
    if depth > DEEPEST:
        raise ValueError(f"{line!r}: nested too deeply")
    found, parts, wanted = _taken_apart(node, line)
    if found != kind:
        what = f"{_source(node, line)} is a {found}, and a {kind} is needed"
        raise _wrong(node, line, f"{what}; compare it with something, e.g. < 0" if kind == "condition" else what)
    if isinstance(node, ast.Name | ast.Attribute):
        names[_name(node, line)] = None
    for part in parts:
        _check(part, wanted, line, names, depth + 1)


def _taken_apart(node: ast.expr, line: str) -> tuple[_Kind, list[ast.expr], _Kind]:
    """What ``node`` is, its parts, and what those must be; raises `ValueError` for everything that is not allowed."""
    match node:
        case ast.BoolOp(values=parts):
            return "condition", parts, "condition"
        case ast.UnaryOp(op=ast.Not(), operand=part):
            return "condition", [part], "condition"
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _COMPARISONS for op in ops):
            return "condition", [left, *others], "number"
        case ast.UnaryOp(op=op, operand=part) if type(op) in _SIGNS:
            return "number", [part], "number"
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return "number", [left, right], "number"
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            if abs(value) > 1e300:
                raise _wrong(node, line, "a number too large to compare")
            return "number", [], "number"
        case ast.Name() | ast.Attribute():
            return "number", [], "number"
    allowed = "numbers, METRIC.FIELD, + - * /, comparisons, and, or, not"
    raise _wrong(node, line, f"{_source(node, line)!r} is not allowed here; a condition is made of {allowed}")


def _name(node: ast.expr, line: str) -> str:
    """The dotted name, whose last part is a field."""
    text = _dotted(node)
    if not text:
        raise _wrong(node, line, f"{_source(node, line)!r} is not allowed here; a name is METRIC.FIELD")
    _, dot, field = text.rpartition(".")
    if not dot:
        raise _wrong(node, line, f"{text} names no field; write {text}.delta, or another of {', '.join(FIELDS)}")
    if field not in FIELDS:
        known = f"fields are {', '.join(FIELDS)}"
        raise _wrong(node, line, f"{text}: unknown field {field}; {nearest(field, FIELDS) or known}")
    return text


def _dotted(node: ast.expr) -> str:
    """``a.b.c`` of nested attributes of a name; empty for attributes of anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def _source(node: ast.expr, line: str) -> str:
    text = ast.get_source_segment(line, node) or line
    return text if len(text) <= 60 else f"{text[:57]}..."


def _wrong(node: ast.expr, line: str, message: str) -> ValueError:
    return ValueError(f"{line!r}, column {node.col_offset + 1}: {message}")


def _holds(node: ast.expr, values: Mapping[str, float]) -> bool:
    match node:
        case ast.BoolOp(op=op, values=parts):
            found = [_holds(part, values) for part in parts]
            return all(found) if isinstance(op, ast.And) else any(found)
        case ast.UnaryOp(operand=part):
            return not _holds(part, values)
        case ast.Compare(left=left, ops=ops, comparators=others):
            numbers = [_number(part, values) for part in (left, *others)]
            pairs = zip(ops, numbers, numbers[1:], strict=False)
            return all(_COMPARISONS[type(op)](first, second) for op, first, second in pairs)
    raise TypeError(f"{ast.dump(node)} was never checked")


def _number(node: ast.expr, values: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.UnaryOp(op=op, operand=part):
            return _SIGNS[type(op)](_number(part, values))
        case ast.BinOp(left=left, op=op, right=right):
            found = _ARITHMETIC[type(op)](_number(left, values), _number(right, values))
        case _:
            found = values[_dotted(node)]
    if not math.isfinite(found):
        raise ArithmeticError(f"{_dotted(node) or 'a result'} is {found}")
    return found
