"""Rows that a model wrote, and their seeds, are never held out: synth and prep together, and prep alone on such rows."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from ftcli.core.stage import Kind
from ftcli.data.rows import SPLITS
from tests.conftest import artifact
from tests.models.fake_chat import serving
from tests.stages.prep.test_three_passes import prep, rows_of, values_of, write
from tests.stages.synth.teaching import teach, written

Json = dict[str, Any]


@pytest.mark.enable_socket
def test_children_and_seeds_stay_in_train_when_prep_splits_them_again(tmp_path: Path) -> None:
    options = {"validation_share": 0.2, "test_share": 0.2}
    prep(tmp_path / "first", write(tmp_path / "human.jsonl", values_of(80)), **options)
    with serving(written) as teacher:
        synth = teach(tmp_path / "synth", teacher, tmp_path / "first/out/data", requests=12, examples=1)
    children = artifact(Kind.SOURCE, synth.out / "data", label="synthetic")
    human = artifact(Kind.SOURCE, tmp_path / "first/out/data", label="human")
    stats = prep(tmp_path / "again", human, children, seed=5, **options)
    made = [row for row in rows_of(tmp_path / "again") if "prov" in row["meta"]]
    assert len(made) == 12
    seeds = {name for row in made for name in row["meta"]["prov"]["seed_ids"]}
    assert len(seeds) == 12
    train = {row["id"] for row in rows_of(tmp_path / "again", "train")}
    assert seeds <= train
    assert {row["id"] for row in made} <= train
    counts = {split: len(rows_of(tmp_path / "again", split)) for split in SPLITS}
    assert counts["validation"] + counts["test"] == pytest.approx(0.4 * 68, abs=1), (
        "of the 68 that are free to go there"
    )
    assert any("24 rows stay in train: 12 that a model wrote" in note for note in stats["notes"])


def synthetic(index: int, prov: Any) -> Json:
    draw = random.Random(index)
    words = [" ".join(draw.choices(["bado", "gelu", "kimo", "nara", "pesu", "rilo", "tova"], k=12)) for _ in range(2)]
    messages = [{"role": "user", "content": f"{index} {words[0]}?"}, {"role": "assistant", "content": f"{words[1]}."}]
    return {"id": f"row-{index}", "messages": messages, "meta": {"prov": prov}}


def test_seeds_that_no_prep_named_and_odd_provenance_do_no_harm(tmp_path: Path) -> None:
    provs = [
        {"origin": "synthetic", "seed_ids": ["not from prep", 7]},
        {"origin": "synthetic"},
        "mine",
        None,
        {"seed_ids": 3},
    ]
    rows = [synthetic(n, provs[n % 5]) for n in range(40)]
    prep(
        tmp_path / "a",
        write(tmp_path / "rows.jsonl", rows),
        validation_share=0.3,
        test_share=0.3,
        near_duplicates="off",
    )
    held_out = [row for split in SPLITS[1:] for row in rows_of(tmp_path / "a", split)]
    assert held_out
    assert all(json.dumps(row["meta"]["prov"]).find("synthetic") < 0 for row in held_out)


def test_a_row_that_a_person_edited_is_still_not_held_out(tmp_path: Path) -> None:
    rows = [synthetic(n, {"origin": "edited", "seed_ids": ["f" * 24]} if n < 20 else None) for n in range(40)]
    prep(
        tmp_path / "a",
        write(tmp_path / "rows.jsonl", rows),
        validation_share=0.3,
        test_share=0.3,
        near_duplicates="off",
    )
    held_out = [row for split in SPLITS[1:] for row in rows_of(tmp_path / "a", split)]
    assert held_out
    assert not [row for row in held_out if row["meta"]["prov"]]
