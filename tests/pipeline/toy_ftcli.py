"""The ftcli command with the toy stages in its table: ``python tests/pipeline/toy_ftcli.py make --run X``."""

from __future__ import annotations

from ftcli.cli.app import main
from ftcli.stages import STAGES
from tests.pipeline.toy import TOY_STAGES

STAGES.update(TOY_STAGES)

if __name__ == "__main__":
    main()
