from __future__ import annotations

from tests.pipeline.conftest import toy_stages as toy_stages
