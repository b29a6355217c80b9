"""Questions and answers made from the docstrings of the standard library or of any installed package.

One row for every public place where a documented object is found: where it is defined, and where another module
hands it on (``asyncio.Queue`` lives in ``asyncio.queues``). Both rows ask for the object by its shortest public
name, so an object found twice gives an exact duplicate, as any crawl of documentation does; prep drops it. Other
noise of the docstrings (signatures, markup, "XXX to be provided") is left as it is.

The answer is the docstring's first paragraph, its lines joined: short enough to learn (a median of 8 words, 95 % within 33),
and the part that authors write to stand alone. Leading paragraphs that hold only a signature or an example are
passed over.

Nothing of a package is run: sources are parsed, and only the standard library's modules in C are imported
(`docstrings`). Extension modules of packages therefore stay out.
"""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ftcli.core.errors import BadData
from ftcli.data.records import Record
from ftcli.data.sources.docstrings import Documented, ModuleDocs, is_public, read_builtin, read_source
from ftcli.data.sources.packages import NO_DOCS, STDLIB, find_sources, in_scope, version_of

INTERNAL = {
    "genericpath",
    "ntpath",
    "nt",
    "posix",
    "nturl2path",
    "sre_compile",
    "sre_constants",
    "sre_parse",
    "builtins",
}
"""Modules whose objects people know under another module's name."""
SHOWN_AS = {"posixpath": "os.path", "builtins": ""}
QUESTIONS = {
    "module": "What is the Python module `{}` for?",
    "class": "What is the Python class `{}`?",
    "function": "What does the Python function `{}` do?",
    "method": "What does the Python method `{}` do?",
    "property": "What does the Python property `{}` hold?",
}
SIGNATURE = re.compile(r"[\w.]+\(.*\)(\s*(->|=|:).*)?", re.DOTALL)


@dataclass(frozen=True)
class Place:
    """A public ``name`` for an object, which is defined in module ``home``."""

    name: str
    home: ModuleDocs
    item: Documented


def identity(name: str) -> str:
    """What decides the rows of ``pydoc:name``, as text: the version of Python, or of the package and a hash of its sources.

    Raises `UsageError` if no such package is installed.
    """
    files = find_sources(name)
    python = f"{platform.python_implementation()} {platform.python_version()} {sys.platform}"
    if name == STDLIB:
        return f"pydoc:{name} {python}"
    digest = hashlib.sha256()
    for module, path in sorted(files.items()):
        digest.update(f"{module}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return f"pydoc:{name} {version_of(name)} sha256:{digest.hexdigest()}"


def read_pydoc(name: str, notes: list[str]) -> Iterator[Record]:
    """Question/answer records of ``stdlib`` or of an installed package, in a fixed order.

    ``notes`` gets a line that names the modules whose source could not be parsed.

    Raises `UsageError` if it is not installed, `BadData` if it documents nothing.
    """
    library = Library(name)
    places = list(library.places())
    if library.unread:
        notes.append(f"{len(library.unread)} modules could not be parsed: {', '.join(library.unread[:5])}")
    shortest: dict[tuple[str, str], Place] = {}
    for place in places:
        key = (place.home.name, place.item.name)
        if key not in shortest or _rank(place) < _rank(shortest[key]):
            shortest[key] = place
    count = 0
    for place in places:
        answer = summary(place.item.doc)
        if answer:
            count += 1
            asked = shortest[place.home.name, place.item.name].name
            value = {"question": QUESTIONS[place.item.kind].format(asked), "answer": answer}
            yield Record(place.home.file, place.item.line, value)
    if not count:
        raise BadData(
            f"pydoc:{name}: no docstrings in {len(library.files)} source files", "is it written in another language?"
        )


def _rank(place: Place) -> tuple[int, bool, str]:
    return place.name.count("."), not place.name.startswith(place.home.name), place.name


def summary(doc: str) -> str | None:
    """The first paragraph of ``doc`` that is prose, on one line unless it is indented; None if there is none."""
    paragraphs = [part.strip("\n").rstrip() for part in re.split(r"\n\s*\n", doc) if part.strip()]
    prose = [
        part for part in paragraphs if not part.lstrip().startswith(">>>") and not SIGNATURE.fullmatch(part.strip())
    ]
    if not prose:
        return None
    lines = prose[0].splitlines()
    if any(line[:1].isspace() for line in lines[1:]):
        return prose[0]
    return " ".join(line.strip() for line in lines)


class Library:
    """The modules of one package, or of the standard library, each read when it is first asked for.

    ``unread`` holds the modules whose source could not be parsed.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.files = find_sources(name)
        self.unread: list[str] = []
        self._read: dict[str, ModuleDocs | None] = {}

    def module(self, name: str) -> ModuleDocs | None:
        if name not in self._read:
            self._read[name] = self._load(name)
        return self._read[name]

    def _load(self, name: str) -> ModuleDocs | None:
        path = self.files.get(name)
        if path is None:
            return read_builtin(name) if self.name == STDLIB and _is_builtin(name) else None
        try:
            return read_source(path, name, _file_name(name, path))
        except (SyntaxError, ValueError):
            self.unread.append(name)
            return None

    def places(self) -> Iterator[Place]:
        """Every public place of every documented object, module by module."""
        extra = sorted(sys.stdlib_module_names - self.files.keys()) if self.name == STDLIB else []
        for name in sorted([*self.files, *extra]):
            shown = SHOWN_AS.get(name, name)
            if not is_public(shown) or NO_DOCS & set(name.split(".")) or (name in INTERNAL and name not in SHOWN_AS):
                continue
            if not in_scope(name, self.name):
                continue
            docs = self.module(name)
            if docs is not None:
                yield from self._places_of(docs, shown)

    def _places_of(self, docs: ModuleDocs, shown: str) -> Iterator[Place]:
        for item in docs.objects:
            yield Place(_join(shown, item.name) or docs.name, docs, item)
        for name, home, item in self._handed_on(docs):
            yield Place(_join(shown, name), home, item)

    def _handed_on(self, docs: ModuleDocs) -> Iterator[tuple[str, ModuleDocs, Documented]]:
        """Objects of other modules that ``docs`` offers as its own: in ``__all__``, by ``*``, or in a package's __init__."""
        for item in docs.imports:
            inside = item.module.split(".")[0] == docs.name.split(".")[0]
            if item.name != "*" and docs.exported is None and not (docs.is_package and inside):
                continue
            for name, home, found in self._resolve(item.module, item.original, frozenset()):
                local = name if item.name == "*" else item.name + name.removeprefix(item.original)
                first = local.split(".")[0]
                if is_public(local) and (docs.exported is None or first in docs.exported):
                    yield local, home, found

    def _resolve(
        self, module: str, original: str, seen: frozenset[tuple[str, str]]
    ) -> Iterator[tuple[str, ModuleDocs, Documented]]:
        """``(name in that module, where it is defined, object)`` for ``from module import original`` and all that is inside it."""
        docs = self.module(module)
        if docs is None or (module, original) in seen:
            return
        seen |= {(module, original)}
        for item in docs.objects:
            first = item.name.split(".")[0]
            if first and (first == original or (original == "*" and (docs.exported is None or first in docs.exported))):
                yield item.name, docs, item
        for further in docs.imports:
            if further.name not in ("*", original) and original != "*":
                continue
            wanted = original if further.name == "*" else further.original
            for name, home, item in self._resolve(further.module, wanted, seen):
                local = name if further.name == "*" else further.name + name.removeprefix(further.original)
                if original != "*" or docs.exported is None or local.split(".")[0] in docs.exported:
                    yield local, home, item


def _file_name(module: str, path: Path) -> str:
    """``json/decoder.py`` for the module ``json.decoder``, wherever it is installed."""
    return module.replace(".", "/") + ("/__init__.py" if path.name == "__init__.py" else ".py")


def _join(module: str, name: str) -> str:
    return ".".join(part for part in (module, name) if part)


def _is_builtin(name: str) -> bool:
    """Whether ``name`` is a module in C that came with Python."""
    if name in sys.builtin_module_names:
        return True
    if name not in sys.stdlib_module_names:
        return False
    spec = importlib.util.find_spec(name)
    return bool(spec and spec.origin and not spec.origin.endswith(".py") and spec.has_location)
