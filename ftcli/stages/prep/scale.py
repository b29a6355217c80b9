"""The first pass on datatrove's executors: processes of this machine, a Ray cluster, or Slurm job arrays.

Each task is `run_part` of one rank, which writes the same chunks as a single process would, so the engine changes no byte of the
result. The second and third pass stay here. The run directory must be on a file
system that all tasks see. A task that is done is not done again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor

from ftcli.core.errors import StageFailed, UsageError
from ftcli.stages.prep.config import PrepConfig
from ftcli.stages.prep.plan import Plan
from ftcli.stages.prep.row_steps import run_part

POLL_S = float(os.environ.get("FTCLI_SLURM_POLL_S", "10"))


@dataclass(frozen=True)
class Part:
    """The pipeline of one task, in the form that datatrove calls."""

    plan: str

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        run_part(Plan.from_json(self.plan), rank, world_size)
        return data


def run_tasks(plan: Plan, config: PrepConfig) -> None:
    """Run ``config.tasks`` tasks on ``config.executor`` and wait for them. Raises `StageFailed` where one does not finish."""
    folder = Path(plan.folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Not among the chunks. The number of tasks decides which chunks a task writes, so each number has its own record.
    logs = folder.with_name(f"datatrove-{config.executor}-{config.tasks}")
    pipeline = [Part(plan.to_json())]
    common: dict[str, Any] = {"pipeline": pipeline, "tasks": config.tasks, "logging_dir": str(logs)}
    if config.executor == "slurm":
        _run_slurm(common, config)
    elif config.executor == "ray":
        _run_ray(common)
    else:
        LocalPipelineExecutor(**common, workers=config.workers or -1, start_method="spawn").run()
    missing = LocalPipelineExecutor(**common).get_incomplete_ranks()
    if missing:
        raise StageFailed(
            f"{len(missing)} of {config.tasks} tasks did not finish, the first is task {missing[0]}",
            f"its log is {logs / 'logs' / f'task_{missing[0]:05d}.log'}; run again to do only what is missing",
        )


def _run_ray(common: dict[str, Any]) -> None:
    """On the cluster at RAY_ADDRESS, else in a Ray of this machine that ends with the stage."""
    started = not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        RayPipelineExecutor(**common, mem_per_cpu_gb=1).run()
    finally:
        if started:
            ray.shutdown()


def _run_slurm(common: dict[str, Any], config: PrepConfig) -> None:
    if not config.slurm_partition:
        raise UsageError("executor slurm needs slurm_partition", "say which: --slurm-partition NAME")
    if shutil.which("sbatch") is None:
        raise UsageError("executor slurm: there is no sbatch here", "run it on a login node of the cluster")
    executor = SlurmPipelineExecutor(
        **common,
        time=config.slurm_time,
        partition=config.slurm_partition,
        job_name="ftcli-prep",
        qos="",
        env_command=f'export PATH="{Path(sys.executable).parent}:$PATH"',
    )
    executor.run()
    while executor.get_incomplete_ranks():
        if not _is_queued(str(executor.job_id)):
            return  # whatever is missing now stays so
        time.sleep(POLL_S)


def _is_queued(job: str) -> bool:
    found = subprocess.run(["squeue", "--noheader", "--jobs", job], capture_output=True, text=True, check=False)
    return found.returncode == 0 and bool(found.stdout.strip())
