"""The ftcli command with the toy stages in its table: ``python tests/pipeline/toy_ftcli.py make --run X``."""

from __future__ import annotations

from ftcli.cli.app import main
from ftcli.stages import STAGES

STAGES.update(
    make=("tests.pipeline.toy:MAKE", "Write some rows."),
    join=("tests.pipeline.toy:JOIN", "Read some rows."),
)

if __name__ == "__main__":
    main()
