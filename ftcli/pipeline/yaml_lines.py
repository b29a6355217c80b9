"""Read YAML and keep the line of every key and item, refusing duplicate keys.

Scalars follow YAML 1.2: ``2e-4`` is a number, ``no`` and ``off`` are words, ``010`` is ten, ``12:30`` is text. PyYAML alone
reads YAML 1.1.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic import BaseModel

KeyPath = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2 scalars only."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first) + [""] * ("\0" in _first)
    )


_SCALARS: dict[str, Callable[[str], Any]] = {
    "tag:yaml.org,2002:bool": lambda text: text.lower() == "true",
    "tag:yaml.org,2002:null": lambda text: None,
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": float,
    "tag:yaml.org,2002:str": str,
}
_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
MOST_VALUES = 100_000
"""A recipe has fewer; aliases of aliases of aliases have more."""


@dataclass
class Document:
    """``value`` is plain data; ``lines`` gives the line (from 1) of each key path; ``problems`` are ``(line, text)``."""

    value: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)

    def line(self, *path: str | int) -> int:
        """The line of ``path``, or of its nearest parent."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read(text: str) -> Document:
    """Read one YAML document; what is wrong with it is in ``problems``, nothing is raised."""
    document = Document()
    try:
        node = _Loader(text).get_single_node()
        if node is not None:
            document.value = _build(node, (), document, frozenset())
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        document.problems.append((line, f"no valid YAML: {error.problem}"))
    except yaml.YAMLError as error:
        document.problems.append((1, f"no valid YAML: {error}"))
    except RecursionError:
        document.problems.append((1, "no valid YAML: nested too deeply"))
    return document


def scalar(text: str) -> Any:
    """The value of ``text`` as it would be in a recipe; text that is no YAML stays text."""
    document = read(text)
    return text if document.problems else document.value


def value_for(annotation: Any, text: str) -> Any:
    """What ``text``, typed in a shell, means for a setting of type ``annotation``.

    A setting that takes text gets it unchanged (only ``null`` is no value), a list may be written ``a,b`` or ``[a, b]``, a list of
    mappings ``{...}`` for one of them, and everything else is read as in a recipe.
    """
    union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    members = [
        member for member in (typing.get_args(annotation) if union else [annotation]) if member is not type(None)
    ]
    if union and text in ("null", "~"):
        return None
    if typing.get_origin(members[0]) in (list, tuple):
        whole, item = scalar(text), typing.get_args(members[0])[0]
        if isinstance(whole, list):
            return whole
        if isinstance(item, type) and issubclass(item, BaseModel):
            return [whole]
        return [value_for(item, part) for part in text.split(",")]
    return text if members == [str] else scalar(text)


def _build(node: yaml.Node, path: KeyPath, document: Document, above: frozenset[int]) -> Any:
    """Plain data of ``node``; ``above`` are the nodes that it lies in."""
    line = node.start_mark.line + 1
    document.lines.setdefault(path, line)
    if id(node) in above or len(document.lines) > MOST_VALUES:
        raise yaml.MarkedYAMLError(problem="aliases that never end", problem_mark=node.start_mark)
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, document)
    if node.tag not in _COLLECTIONS:
        document.problems.append((line, f"tag {node.tag}: only plain values are read"))
    above |= {id(node)}
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*path, index), document, above) for index, item in enumerate(node.value)]
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = _key(key_node, document)
        line = key_node.start_mark.line + 1
        if key in mapping:
            document.problems.append((line, f"duplicate key {key} (first in line {document.lines[(*path, key)]})"))
            continue
        document.lines[(*path, key)] = line
        mapping[key] = _build(value_node, (*path, key), document, above)
    return mapping


def _key(node: yaml.Node, document: Document) -> str:
    key = _scalar(node, document) if isinstance(node, yaml.ScalarNode) else "..."
    if not isinstance(key, str) or not isinstance(node, yaml.ScalarNode):
        document.problems.append((node.start_mark.line + 1, f"key {key}: keys are text"))
    return str(key)


def _scalar(node: yaml.ScalarNode, document: Document) -> Any:
    try:
        return _SCALARS[node.tag](node.value)
    except (KeyError, ValueError):
        kind = node.tag.rpartition(":")[2]
        document.problems.append((node.start_mark.line + 1, f"{node.value[:40]!r} is no {kind} that can be read"))
        return None
