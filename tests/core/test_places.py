from __future__ import annotations

from pathlib import Path

import pytest

from ftcli.core.places import cache_dir


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTCLI_CACHE", "/own")
    assert cache_dir() == Path("/own")
    monkeypatch.delenv("FTCLI_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_dir() == Path("/xdg/ftcli")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "ftcli"
