"""The name of a result before it exists: a digest of what decides it.

`[stage, version, semantic config, {input: [[label, content digest], ...]}]`, so an input counts by its content and not by
who produced it: when a rerun of an earlier stage gives equal bytes, everything after it stays cached.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ftcli.core.config import semantic
from ftcli.core.stage import Artifact, Stage


def fingerprint_parts(stage: Stage[Any], config: Any, inputs: Mapping[str, tuple[Artifact, ...]]) -> dict[str, Any]:
    """What the fingerprint is made of; kept in stage.json so that a later run can say what changed.

    Labels count for inputs that take many models, since a report shows them.
    """
    return {
        "stage": stage.name,
        "version": stage.version,
        "config": semantic(config),
        "inputs": {
            name: [[item.label if stage.inputs[name].many else "", artifact_digest(item)] for item in items]
            for name, items in sorted(inputs.items())
            if items
        },
    }


def artifact_digest(artifact: Artifact) -> str:
    """An adapter is its own bytes and those of its base."""
    return artifact.digest if artifact.base is None else f"{artifact.digest}+{artifact_digest(artifact.base)}"


def fingerprint(parts: Mapping[str, Any]) -> str:
    """64 hex digits; the first 12 name the folder."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
