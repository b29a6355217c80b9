from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ftcli.core.config import StageConfig
from ftcli.core.fingerprint import artifact_digest, fingerprint, fingerprint_parts
from ftcli.core.stage import Artifact, Input, Kind, Stage


class OldConfig(StageConfig):
    rate: float = 0.1
    """A rate."""


class NewConfig(StageConfig):
    rate: float = 0.1
    """A rate."""
    added: int = 3
    """A later version has one setting more."""


class OtherDefault(StageConfig):
    rate: float = 0.2
    """Another default."""


def stage(config: type[StageConfig] = OldConfig, version: int = 1) -> Stage[Any]:
    inputs = {"model": Input(Kind.MODEL, ""), "models": Input(Kind.MODEL, "", many=True, required=False)}
    return Stage("s", config, inputs, {}, lambda ctx: None, version)


def model(digest: str, **values: Any) -> Artifact:
    return Artifact(Kind.MODEL, values.pop("ref", "x"), Path("/x"), digest, **values)


def key(items: dict[str, tuple[Artifact, ...]], of: Stage[Any] | None = None, **settings: Any) -> str:
    of = of or stage()
    return fingerprint(fingerprint_parts(of, of.config(**settings), items))


BASE = {"model": (model("sha256:a"),)}


def test_content_counts_and_its_producer_place_and_facts_do_not() -> None:
    other = model("sha256:a", ref="stages/z/model", label="other", facts={"seconds": 3})
    assert key(BASE) == key({"model": (replace(other, path=Path("/elsewhere")),)})
    assert key(BASE) != key({"model": (model("sha256:b"),)})


def test_stage_name_version_and_settings_count() -> None:
    keys = {
        key(BASE),
        key(BASE, stage(version=2)),
        key(BASE, replace(stage(), name="t")),
        key(BASE, rate=0.3),
        key(BASE, seed=1),
        key({}),
    }
    assert len(keys) == 6


def test_a_new_setting_or_a_changed_default_does_not_invalidate_finished_work() -> None:
    assert key(BASE) == key(BASE, stage(NewConfig)) == key(BASE, stage(OtherDefault))
    assert key(BASE, rate=0.3) == key(BASE, stage(NewConfig), rate=0.3)
    assert key(BASE, stage(NewConfig)) != key(BASE, stage(NewConfig), added=4)


def test_labels_count_where_a_report_shows_them() -> None:
    def many(*labels: str) -> str:
        return key({**BASE, "models": tuple(model("sha256:m", label=label) for label in labels)})

    assert many("a", "b") != many("a", "c")
    assert many("a", "b") != many("b", "a")
    assert key({"model": (model("sha256:a", label="x"),)}) == key(BASE)


def test_an_optional_input_that_is_not_given_is_the_same_as_none() -> None:
    assert key(BASE) == key({**BASE, "models": ()})


def test_an_adapter_counts_with_its_base() -> None:
    first = model("sha256:adapter", base=model("sha256:base1"))
    second = model("sha256:adapter", base=model("sha256:base2"))
    assert artifact_digest(first) == "sha256:adapter+sha256:base1"
    assert key({"model": (first,)}) != key({"model": (second,)})
    assert key({"model": (first,)}) != key({"model": (model("sha256:adapter"),)})


def test_the_fingerprint_is_sha256_of_canonical_json() -> None:
    """printf '{"a":1,"b":["é"]}' | sha256sum"""
    expected = "023a8698a7c3c25e97260857c604120c43cc731c72fc227019bb5d85d6cad4cb"
    assert fingerprint({"b": ["é"], "a": 1}) == expected


settings = st.fixed_dictionaries(
    {},
    optional={
        "rate": st.floats(allow_nan=False, allow_infinity=False).map(lambda x: x + 0.0),
        "added": st.integers(),
        "seed": st.integers(),
    },
)


@given(settings, settings)
def test_two_configs_share_a_fingerprint_exactly_if_they_are_equal(one: dict[str, Any], two: dict[str, Any]) -> None:
    of = stage(NewConfig)
    assert (key(BASE, of, **one) == key(BASE, of, **two)) == (NewConfig(**one) == NewConfig(**two))
