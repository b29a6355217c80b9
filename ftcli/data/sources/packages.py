"""Where the Python sources of the standard library and of installed packages lie, found without importing a package."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from ftcli.core.config import nearest
from ftcli.core.errors import UsageError
from ftcli.data.sources.docstrings import is_public

STDLIB = "stdlib"
NO_DOCS = {
    "test",
    "tests",
    "testing",
    "idlelib",
    "lib2to3",
    "antigravity",
    "this",
    "turtledemo",
    "pydoc_data",
    "readline",
}
"""Tests, applications, jokes; and readline, which writes to the terminal when it is imported."""


def find_sources(name: str) -> dict[str, Path]:
    """Source files by module name, of the standard library or of the installed package that ``name`` belongs to.

    Raises `UsageError` if there is none.
    """
    if name == STDLIB:
        root = Path(sysconfig.get_path("stdlib"))
        tops = sorted(sys.stdlib_module_names - NO_DOCS)
        return {module: path for top in tops for module, path in _sources(root / top, root / f"{top}.py", top)}
    top = name.split(".")[0]
    spec = importlib.util.find_spec(top) if top.isidentifier() and top != "__main__" else None
    if spec is None:
        raise UsageError(f"pydoc:{name}: no package {top!r} is installed", _hint(top))
    folders = [Path(folder) for folder in spec.submodule_search_locations or []]
    file = Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else Path("-")
    found = dict(pair for folder in folders or [Path("-")] for pair in _sources(folder, file, top))
    if not any(in_scope(module, name) for module in found):
        raise UsageError(f"pydoc:{name}: {top} is installed, but has no Python source for it", nearest(name, found))
    return found


def in_scope(module: str, name: str) -> bool:
    """Whether ``module`` is, or is inside, what the user asked for as ``name``."""
    return name == STDLIB or module == name or module.startswith(f"{name}.")


def _sources(folder: Path, file: Path, top: str) -> Iterator[tuple[str, Path]]:
    if not folder.is_dir():
        if file.is_file():
            yield top, file
        return
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        kept = parts[:-1] if parts[-1] == "__init__" else parts
        if all(part.isidentifier() for part in kept) and "__main__" not in kept:
            yield ".".join([top, *kept]), path


def version_of(name: str) -> str:
    """The distribution that installed package ``name`` and its version."""
    owners = importlib.metadata.packages_distributions().get(name.split(".")[0], [])
    return " ".join(f"{owner} {importlib.metadata.version(owner)}" for owner in sorted(set(owners))) or "unversioned"


def _hint(top: str) -> str:
    known = importlib.metadata.packages_distributions()
    for module, owners in sorted(known.items()):
        if is_public(module) and any(
            owner.lower().replace("-", "_") == top.lower().replace("-", "_") for owner in owners
        ):
            return f"its import name is {module}: pydoc:{module}"
    return nearest(top, [*(module for module in known if is_public(module)), STDLIB]) or "install it beside ftcli first"
