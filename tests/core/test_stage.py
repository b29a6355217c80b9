from __future__ import annotations

import json
from pathlib import Path

import pytest

from ftcli.core.config import StageConfig
from ftcli.core.errors import UsageError
from ftcli.core.events import Events
from ftcli.core.stage import Artifact, Context, Input, Kind, Stage


def test_an_artifact_survives_the_job_file() -> None:
    base = Artifact(Kind.MODEL, "hf:a/b@1", Path("/base"), "sha256:1")
    item = Artifact(Kind.MODEL, "stages/x/1/model", Path("/x y"), "sha256:2", "ü", base, {"seconds": 1.5})
    assert Artifact.from_json(json.loads(json.dumps(item.to_json()))) == item


def test_a_context_gives_inputs_and_makes_outputs(tmp_path: Path) -> None:
    item = Artifact(Kind.DATA, "x", tmp_path, "sha256:1")
    context = Context(StageConfig(), {"data": (item,), "none": ()}, tmp_path / "out", tmp_path, Events(tmp_path))
    assert context.one("data") is item
    assert context.maybe("data") is item
    assert context.maybe("none") is None
    assert context.maybe("other") is None
    assert context.many("data") == (item,)
    assert context.many("other") == ()
    assert context.output("model") == tmp_path / "out" / "model"
    assert context.output("model").is_dir()
    assert context.desk is None


def test_an_input_and_a_setting_may_not_share_a_name() -> None:
    with pytest.raises(UsageError, match="stage s: seed is an input and a setting"):
        Stage("s", StageConfig, {"seed": Input(Kind.DATA, "")}, {}, lambda ctx: None)


def test_an_input_that_another_can_stand_in_for_is_needed_only_without_it() -> None:
    spec = Input(Kind.REWARD, "", unless="reward_func")
    assert spec.is_needed({"data"})
    assert not spec.is_needed({"data", "reward_func"})
    assert not Input(Kind.REWARD, "", required=False).is_needed(())
    assert Input(Kind.REWARD, "").is_needed({"reward_func"})


def test_what_stands_in_for_an_input_is_an_input() -> None:
    with pytest.raises(UsageError, match="stage s: reward is needed unless reward_fun is given, which is no input"):
        Stage("s", StageConfig, {"reward": Input(Kind.REWARD, "", unless="reward_fun")}, {}, lambda ctx: None)
