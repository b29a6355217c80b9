"""Python functions as inputs, written ``FILE.py:NAME``; checked by reading the code, never by running it."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from ftcli.core.config import nearest
from ftcli.core.errors import UsageError

FUNCTION = re.compile(r"(?P<file>.*\.py):(?P<name>\w*)")
SHAPE = "a function is written FILE.py:NAME, for example rewards.py:accuracy"


def split_function(text: str) -> tuple[str, str]:
    """File and name of ``FILE.py:NAME``; an empty name where only the file is written. Raises `UsageError` for anything else."""
    found = FUNCTION.fullmatch(text if ":" in text else f"{text}:")
    if found is None:
        raise UsageError(f"{text}: no function of a .py file", SHAPE)
    return found["file"], found["name"]


def check_function(path: Path, name: str) -> None:
    """Refuse, with `UsageError`, a file that is no Python or has no function ``name`` in its outermost level.

    A name that is bound otherwise (assigned, imported) may be a function and passes; who loads it sees.
    """
    bound = dict(_bound(_parsed(path).body))
    functions = [other for other, statement in bound.items() if isinstance(statement, ast.FunctionDef)]
    have = f"it has {', '.join(functions)}" if functions else "it has none"
    if not name:
        raise UsageError(f"{path}: which function? ({have})", f"write {path.name}:NAME")
    if name not in bound and "*" not in bound:
        raise UsageError(f"{path}: no function {name} ({have})", nearest(name, functions) or "correct the name")
    statement = bound.get(name)
    if isinstance(statement, ast.AsyncFunctionDef):
        raise UsageError(f"{path}:{statement.lineno}: {name} is an async def", "make it a plain def")
    if isinstance(statement, ast.ClassDef):
        raise UsageError(f"{path}:{statement.lineno}: {name} is a class ({have})", "name a function")


def _parsed(path: Path) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes; the file's own business
            return ast.parse(path.read_bytes(), str(path))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}", SHAPE) from None
    except SyntaxError as error:
        raise UsageError(f"{path}:{error.lineno or 1}: no valid Python: {error.msg}", "correct that line") from None
    except (ValueError, RecursionError, MemoryError) as error:  # zero bytes; nested too deeply
        raise UsageError(f"{path}: no valid Python: {error}") from None


def _bound(statements: Iterable[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """Names that a module's own level binds, each with its statement, also below ``if``, ``try``, ``with`` and loops."""
    for statement in statements:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement.name, statement
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            yield from ((item.asname or item.name.partition(".")[0], statement) for item in statement.names)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            stored = [node for target in targets for node in ast.walk(target)]
            yield from ((node.id, statement) for node in stored if isinstance(node, ast.Name))
        else:
            for part in ("body", "orelse", "finalbody"):
                yield from _bound(getattr(statement, part, []))
            for handler in getattr(statement, "handlers", []):
                yield from _bound(handler.body)
