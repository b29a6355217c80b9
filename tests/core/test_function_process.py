from __future__ import annotations

from pathlib import Path

import pytest

from ftcli.core.function_process import Ended, FunctionProcess, remedy


def first_reply(path: Path, text: str) -> dict[str, object]:
    path.write_text(text)
    process = FunctionProcess(path, "f")
    try:
        return process.reply(60)
    finally:
        process.close()


def test_the_first_reply_tells_of_the_function_and_of_what_is_set_on_it(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    text = "def f(a, b=1): return [a]\nf.title, f.margin, f.unit, f._hidden = 'T', 0.5, {1: {2}}, 3\n"
    assert first_reply(path, text) == {
        "accepts": ["a", "b"],
        "needs": ["a"],
        "place": f"{path}:1",
        "attributes": {"title": "T", "margin": 0.5, "unit": "{1: {2}}"},
    }
    built_in = first_reply(path, "import functools\nf = functools.partial(max, default=1)\n")
    assert "does not tell its arguments" in str(built_in["error"])


def test_a_process_that_has_ended_is_asked_nothing(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("import os\ndef f(a): os._exit(9)\n")
    process = FunctionProcess(tmp_path / "own.py", "f")
    process.reply(60)
    with pytest.raises(Ended, match="ended with exit code 9"):
        process.ask({"rows": 1, "arguments": {"a": [1]}}, 60)
    with pytest.raises(ValueError, match="this process has ended"):
        process.ask({"rows": 1, "arguments": {"a": [1]}}, 60)


def test_a_missing_module_beside_the_file_must_come_into_it(tmp_path: Path) -> None:
    (tmp_path / "near.py").write_text("")
    own = tmp_path / "own.py"
    assert remedy(own, None) == ""
    assert remedy(own, "far.away") == "install far where ftcli is installed"
    assert remedy(own, "near.part").startswith("own.py must stand alone, or a change of near.part would go unseen")
