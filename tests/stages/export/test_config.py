from __future__ import annotations

import pytest
from pydantic import ValidationError

from ftcli.stages.export.config import ExportConfig


def test_a_gguf_type_needs_a_gguf_file() -> None:
    with pytest.raises(ValidationError, match="gguf_type q8_0 needs to: gguf"):
        ExportConfig(gguf_type="q8_0")
    assert ExportConfig(to="gguf", gguf_type="q8_0").gguf_type == "q8_0"
