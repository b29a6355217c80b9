"""What one module documents, read without running it.

Source files are parsed (`ast`), never imported. The standard library's modules written in C have no source to
parse: they are imported, which runs no code of the user's or of other packages, and their docstrings are taken by
inspection.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
PROPERTIES = {"property", "cached_property", "abstractproperty"}
ACCESSORS = {"setter", "deleter", "getter"}


@dataclass(frozen=True)
class Documented:
    """One object with a docstring.

    ``name`` is its path inside the module, e.g. ``JSONDecoder.decode``; empty for the module.
    """

    name: str
    kind: str
    doc: str
    line: int


@dataclass(frozen=True)
class Imported:
    """``from module import original as name``; ``name`` is ``*`` for all of it."""

    name: str
    module: str
    original: str


@dataclass
class ModuleDocs:
    """The documented objects of one module and the names that it imports.

    ``exported`` is ``__all__`` where it is a plain list.
    """

    name: str
    file: str
    is_package: bool = False
    objects: list[Documented] = field(default_factory=list)
    imports: list[Imported] = field(default_factory=list)
    exported: frozenset[str] | None = None


def is_public(name: str) -> bool:
    """Whether no part of a dotted name begins with an underscore."""
    return not any(part.startswith("_") for part in name.split("."))


def read_source(path: Path, name: str, file: str) -> ModuleDocs:
    """Parse the source file of module ``name``.

    Records will call it ``file``. Raises `SyntaxError` or `ValueError` as `ast` does.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "invalid escape sequence" in somebody else's file is not the user's business
        tree = ast.parse(path.read_bytes())
    docs = ModuleDocs(name, file, is_package=path.name == "__init__.py")
    doc = ast.get_docstring(tree)
    if doc:
        docs.objects.append(Documented("", "module", doc, 1))
    for node in _statements(tree.body):
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            docs.objects += _definitions(node, "", inside_class=False)
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(docs, node)
            docs.imports += [Imported(item.asname or item.name, module, item.name) for item in node.names]
        else:
            docs.exported = _exports(node, docs.exported)
    return docs


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a body, and those under ``if``, ``try`` and ``with``.

    What runs only as a script is left out.
    """
    for node in body:
        if isinstance(node, ast.If) and "__main__" in ast.dump(node.test):
            continue
        if isinstance(node, (ast.If, ast.Try, ast.With)):
            yield from _statements(node.body)
            for handler in getattr(node, "handlers", []):
                yield from _statements(handler.body)
            yield from _statements(getattr(node, "orelse", []))
        else:
            yield node


def _definitions(node: Any, prefix: str, *, inside_class: bool) -> Iterator[Documented]:
    kind = _kind(node, inside_class)
    if node.name.startswith("_") or kind is None:
        return
    name = prefix + node.name
    doc = ast.get_docstring(node)
    if doc:
        yield Documented(name, kind, doc, node.lineno)
    if isinstance(node, ast.ClassDef):
        for child in _statements(node.body):
            if isinstance(child, (*FUNCTIONS, ast.ClassDef)):
                yield from _definitions(child, f"{name}.", inside_class=True)


def _kind(node: Any, inside_class: bool) -> str | None:
    """``class``, ``function``, ``method`` or ``property``.

    None for the setter of a property, whose getter has the docstring.
    """
    if isinstance(node, ast.ClassDef):
        return "class"
    if not inside_class:
        return "function"
    decorators = {getattr(item, "attr", getattr(item, "id", "")) for item in node.decorator_list}
    if decorators & ACCESSORS:
        return None
    return "property" if decorators & PROPERTIES else "method"


def _absolute(docs: ModuleDocs, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = docs.name.split(".")
    kept = parts[: len(parts) - node.level + (1 if docs.is_package else 0)]
    return ".".join([*kept, *([node.module] if node.module else [])])


def _exports(node: ast.stmt, exported: frozenset[str] | None) -> frozenset[str] | None:
    """``__all__`` after the statement ``node``. One that is computed counts as absent."""
    if isinstance(node, ast.Assign):
        targets, known = node.targets, frozenset[str]()
    elif isinstance(node, ast.AugAssign) and exported is not None:
        targets, known = [node.target], exported
    else:
        return exported
    if not any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
        return exported
    try:
        return known | frozenset(ast.literal_eval(node.value))
    except (ValueError, TypeError):
        return exported if isinstance(node, ast.AugAssign) else None


def read_builtin(name: str) -> ModuleDocs | None:
    """Inspect a module of the standard library that is written in C; None where this platform lacks it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some announce their removal on import
            module = importlib.import_module(name)
    except ImportError:
        return None
    docs = ModuleDocs(name, name)
    found = [("", "module", module), *_members(module)]
    for line, (qualname, kind, value) in enumerate(found, start=1):
        doc = getattr(value, "__doc__", None)
        if isinstance(doc, str) and doc.strip():
            docs.objects.append(Documented(qualname, kind, inspect.cleandoc(doc), line))
    return docs


def _members(module: types.ModuleType) -> Iterator[tuple[str, str, Any]]:
    for name, value in sorted(vars(module).items()):
        if name.startswith("_"):
            continue
        if isinstance(value, types.BuiltinFunctionType):
            yield name, "function", value
        elif isinstance(value, type):
            own = value.__name__  # the class may stand there under a second name, as OSError does under IOError
            name = own if getattr(module, own, None) is value else name
            yield name, "class", value
            yield from _class_members(name, value)


def _class_members(name: str, value: type) -> Iterator[tuple[str, str, Any]]:
    kinds = {
        types.MethodDescriptorType: "method",
        types.ClassMethodDescriptorType: "method",
        types.BuiltinFunctionType: "method",
        staticmethod: "method",
        types.GetSetDescriptorType: "property",
        types.MemberDescriptorType: "property",
    }
    for key, member in sorted(vars(value).items()):
        if not key.startswith("_") and type(member) in kinds:
            yield f"{name}.{key}", kinds[type(member)], member
