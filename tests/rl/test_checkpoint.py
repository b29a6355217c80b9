from __future__ import annotations

from pathlib import Path

import torch

from ftcli.rl.checkpoint import load_checkpoint, save_checkpoint


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"step": 3, "weights": {"a": torch.arange(3)}})
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found["step"] == 3
    assert torch.equal(found["weights"]["a"], torch.arange(3))


def test_a_torn_new_checkpoint_leaves_the_old_one(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"step": 1})
    (tmp_path / ".checkpoint.pt.tmp").write_bytes(b"half a fi")
    assert load_checkpoint(tmp_path) == {"step": 1}
    save_checkpoint(tmp_path, {"step": 2})
    assert load_checkpoint(tmp_path) == {"step": 2}


def test_an_empty_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
