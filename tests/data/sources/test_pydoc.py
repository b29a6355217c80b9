"""Questions and answers from docstrings, read without running what they document."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ftcli.core.errors import BadData, UsageError
from ftcli.data.sources.pydoc import identity, read_pydoc, summary

INIT = '''
"""A toolbox."""
from ._engine import Motor as Engine, start
from .tools import *
from os.path import join
raise RuntimeError("a package is never run")
'''
ENGINE = '''
class Motor:
    """Turns fuel into
    motion.

    More about it.
    """
    def run(self):
        """Run for a while."""
    @property
    def speed(self):
        """Turns a second."""
    @speed.setter
    def speed(self, value):
        """Hidden: the getter speaks for both."""
    def _private(self):
        """Hidden."""
    class Part:
        """A piece."""
def start():
    """start(key) -> None

    Start the engine."""
def unused():
    """Hidden: in a private module and handed on by nobody."""
'''
TOOLS = '''
__all__ = ["hammer"]
__all__ += ["saw"]
if True:
    def hammer():
        """Hit a nail."""
else:
    def hammer():
        """Hit another nail."""
async def saw():
    """
    >>> saw()
    """
def glue():
    """Stick things together."""
if __name__ == "__main__":
    def main():
        """Hidden."""
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "toolbox_of_a_test"
    (folder / "tests").mkdir(parents=True)
    files = {"__init__": INIT, "_engine": ENGINE, "tools": TOOLS, "broken": "def (:", "tests/helpers": TOOLS}
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_every_public_object_is_asked_for_by_its_shortest_name(package: Path) -> None:
    notes: list[str] = []
    found = [
        (item.file, item.line, item.value["question"], item.value["answer"]) for item in read_pydoc(package.name, notes)
    ]
    name = package.name
    assert found == [
        (f"{name}/__init__.py", 1, f"What is the Python module `{name}` for?", "A toolbox."),
        (f"{name}/_engine.py", 2, f"What is the Python class `{name}.Engine`?", "Turns fuel into motion."),
        (f"{name}/_engine.py", 8, f"What does the Python method `{name}.Engine.run` do?", "Run for a while."),
        (f"{name}/_engine.py", 11, f"What does the Python property `{name}.Engine.speed` hold?", "Turns a second."),
        (f"{name}/_engine.py", 18, f"What is the Python class `{name}.Engine.Part`?", "A piece."),
        (f"{name}/_engine.py", 20, f"What does the Python function `{name}.start` do?", "Start the engine."),
        (f"{name}/tools.py", 5, f"What does the Python function `{name}.hammer` do?", "Hit a nail."),
        (f"{name}/tools.py", 8, f"What does the Python function `{name}.hammer` do?", "Hit another nail."),
        (f"{name}/tools.py", 5, f"What does the Python function `{name}.hammer` do?", "Hit a nail."),
        (f"{name}/tools.py", 8, f"What does the Python function `{name}.hammer` do?", "Hit another nail."),
        (f"{name}/tools.py", 14, f"What does the Python function `{name}.tools.glue` do?", "Stick things together."),
    ]
    assert notes == [f"1 modules could not be parsed: {name}.broken"]


def test_a_submodule_can_be_asked_for(package: Path) -> None:
    answers = [item.value["answer"] for item in read_pydoc(f"{package.name}.tools", [])]
    assert answers == ["Hit a nail.", "Hit another nail.", "Stick things together."]


def test_the_identity_changes_with_the_sources(package: Path) -> None:
    before = identity(package.name)
    assert identity(package.name) == before
    (package / "tools.py").write_text(TOOLS + "\n# more\n")
    assert identity(package.name) != before


def test_identities_name_versions() -> None:
    import typer

    assert identity("typer").startswith(f"pydoc:typer typer {typer.__version__} sha256:")
    assert ".".join(map(str, sys.version_info[:3])) in identity("stdlib")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("typr", "did you mean typer?"), ("PyYAML", "its import name is yaml: pydoc:yaml"), ("no way", "install it")],
)
def test_a_package_that_is_not_installed_is_a_usage_error(name: str, hint: str) -> None:
    for use in (identity, lambda name: list(read_pydoc(name, []))):
        with pytest.raises(UsageError, match=f"pydoc:{name}: no package") as caught:
            use(name)
        assert hint in caught.value.hint


def test_a_missing_submodule_is_a_usage_error(package: Path) -> None:
    with pytest.raises(UsageError, match="has no Python source for it"):
        identity(f"{package.name}.nothing")


def test_a_package_without_docstrings_is_bad_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "silent_module_of_a_test.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadData, match="no docstrings in 1 source files"):
        list(read_pydoc("silent_module_of_a_test", []))


@pytest.mark.parametrize(
    ("doc", "answer"),
    [
        ("One line.", "One line."),
        ("Wrapped\nline.\n\nSecond.", "Wrapped line."),
        ("f(x, y=(1, 2)) -> int\n\nThe sum.", "The sum."),
        ("f(x)", None),
        (">>> f()\n1\n\nIt works.", "It works."),
        ("Usage:\n    f(x)\n\nMore.", "Usage:\n    f(x)"),
        ("  \n", None),
    ],
)
def test_the_summary_is_the_first_paragraph_of_prose(doc: str, answer: str | None) -> None:
    assert summary(doc) == answer


@pytest.fixture(scope="module")
def stdlib() -> list[tuple[str, str]]:
    return [(item.value["question"], item.value["answer"]) for item in read_pydoc("stdlib", [])]


def test_the_standard_library_gives_thousands_of_rows_and_natural_duplicates(stdlib: list[tuple[str, str]]) -> None:
    assert len(stdlib) > 5000
    assert 0.1 < 1 - len(set(stdlib)) / len(stdlib) < 0.3


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (
            "What does the Python function `os.path.exists` do?",
            "Test whether a path exists.  Returns False for broken symbolic links",
        ),
        ("What does the Python function `len` do?", "Return the number of items in a container."),
        ("What does the Python function `math.sqrt` do?", "Return the square root of x."),
        (
            "What does the Python method `asyncio.Queue.empty` do?",
            "Return True if the queue is empty, False otherwise.",
        ),
        ("What is the Python class `io.StringIO`?", "Text I/O implementation using an in-memory buffer."),
        ("What is the Python module `this` for?", ""),
    ],
)
def test_well_known_objects_are_there_under_the_names_people_use(
    stdlib: list[tuple[str, str]], question: str, answer: str
) -> None:
    assert ((question, answer) in stdlib) is bool(answer)


def test_no_question_names_an_implementation_module(stdlib: list[tuple[str, str]]) -> None:
    for start in ("posixpath.", "genericpath.", "_io.", "posix.", "builtins.", "test.", "idlelib."):
        assert not any(f"`{start}" in question for question, _ in stdlib), start


def test_reading_a_package_imports_nothing_of_it_and_no_torch() -> None:
    code = (
        "import sys; from ftcli.data.sources.pydoc import identity, read_pydoc; identity('peft'); "
        "list(read_pydoc('rouge_score', [])); print([n for n in ('torch', 'peft', 'rouge_score', 'datasets') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
    assert done.stderr == ""
