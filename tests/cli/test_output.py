from __future__ import annotations

import pytest

from ftcli.cli.output import launcher, print_table
from ftcli.launch.inline import run_inline
from ftcli.launch.process import run_in_workers


def test_a_table_has_columns_as_wide_as_their_widest_cell(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["a", "long name"], [["wide cell", "x"], ["y", ""]])
    assert capsys.readouterr().out == "a          long name\nwide cell  x\ny\n"


def test_an_empty_table_is_its_header(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["a", "b"], [])
    assert capsys.readouterr().out == "a  b\n"


def test_stages_run_in_a_process_of_their_own_unless_asked() -> None:
    assert launcher(in_process=False) is run_in_workers
    assert launcher(in_process=True) is run_inline
