"""Read YAML and keep the line of every key and item, refusing duplicate keys.

Scalars follow YAML 1.2: ``2e-4`` is a number, ``no`` and ``off`` are words, ``010`` is ten, ``12:30`` is text. PyYAML alone reads YAML 1.1.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import yaml

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


def _decimal(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value)


_Loader.add_constructor("tag:yaml.org,2002:int", _decimal)


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
    document = Document()
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is not None:
            document.value = _build(loader, node, (), document)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        document.problems.append((line, f"no valid YAML: {error.problem}"))
    except yaml.YAMLError as error:
        document.problems.append((1, f"no valid YAML: {error}"))
    finally:
        loader.dispose()
    return document


def scalar(text: str) -> Any:
    """The value of ``text`` as it would be in a recipe; text that is no YAML stays text."""
    document = read(text)
    return text if document.problems else document.value


def _build(loader: _Loader, node: yaml.Node, path: KeyPath, document: Document) -> Any:
    document.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        mapping: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                document.problems.append((line, f"key {key!r}: keys are text"))
                key = str(key)
            if key in mapping:
                document.problems.append((line, f"duplicate key {key} (first in line {document.lines[(*path, key)]})"))
                continue
            document.lines[(*path, key)] = line
            mapping[key] = _build(loader, value_node, (*path, key), document)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, item, (*path, index), document) for index, item in enumerate(node.value)]
    return loader.construct_object(node)
