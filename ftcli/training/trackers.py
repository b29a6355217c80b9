"""Trackers that get a trainer's metrics too (``report_to``), through transformers' own callbacks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from transformers.integrations import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from ftcli.core.errors import UsageError


def require_trackers(names: Sequence[str]) -> None:
    """Raise `UsageError` for a tracker that transformers does not know, or that is not installed."""
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            raise UsageError(
                f"report_to: no tracker is named {name}",
                f"transformers knows {', '.join(sorted(INTEGRATION_TO_CALLBACK))}",
            )
        if name not in get_available_reporting_integrations():
            raise UsageError(f"report_to: {name} is not installed", f"pip install {name}, or leave it out")


@contextmanager
def tracking_in(folder: Path) -> Iterator[None]:
    """Meanwhile trackers without a server write into ``folder``, and Weights & Biases asks nobody for a login: it stays offline
    without a key. What the user's environment says goes first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {
        "TENSORBOARD_LOGGING_DIR": str(folder),
        "TRACKIO_DIR": str(folder),
        "WANDB_DIR": str(folder),
        "WANDB_MODE": "online" if os.environ.get("WANDB_API_KEY") else "offline",
        "WANDB_SILENT": "true",
        "MLFLOW_TRACKING_URI": f"file:{folder}",
    }
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
