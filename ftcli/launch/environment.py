"""The environment variables of a worker, and those by which several workers of one stage find each other: torchrun's."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping

from ftcli.core.errors import UsageError
from ftcli.launch.gpus import VISIBLE, one_gpu_each
from ftcli.launch.spec import Job

ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}

OFFLINE = {"HF_HUB_OFFLINE": "1"}

DEFAULTS = {
    # Threads that spin long at OpenMP's barriers waste the core that another process holds up. Measured on two cores, a LoRA step:
    # alone 1.9 s by default and 2.0 s with a short spin, beside one busy process 6.4 s and 4.1 s.
    "GOMP_SPINCOUNT": "3000",
    # numpy's linear algebra is a small part of any stage, and its threads wait for each other while torch's work: an
    # eigenvalue problem of 600 rows beside another busy process took 25 s with two threads and 0.2 s with one.
    "OPENBLAS_NUM_THREADS": "1",
    # Large blocks go back to the system when freed, and their pages are faulted in anew for the next one, which took a fifth of a
    # forward pass of 1,500 tokens. Kept, they are reused.
    "MALLOC_MMAP_THRESHOLD_": str(2**33),
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    # One process uses one GPU; with several in sight, transformers would wrap the model in DataParallel.
    VISIBLE: "0",
}
"""What a worker gets unless the user's environment says otherwise."""

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
HOST = "127.0.0.1"


def worker_environment(job: Job) -> dict[str, str]:
    """This environment, without telemetry, and without the hub unless a data set must come from there.

    Models are fetched by the controller before a worker starts, so a hub outage cannot stop a run half-way.
    """
    environment = {**DEFAULTS, **os.environ, **ENVIRONMENT}
    return environment if needs_hub(job) else environment | OFFLINE


def needs_hub(job: Job) -> bool:
    return any(item.ref.startswith("hf:") and item.kind == "source" for items in job.inputs.values() for item in items)


def rank_environments(job: Job) -> list[dict[str, str]]:
    """The environment of each worker of ``job``, in the order of ranks. Raises `UsageError` where GPUs are too few."""
    common = worker_environment(job)
    if job.processes == 1:
        return [common]
    gpus = one_gpu_each(job.processes)
    defaults = {
        "OMP_NUM_THREADS": str(max(1, _cores() // job.processes)),
        # gloo asks for the address of the host's name, which with a VPN or in a container may lead nowhere.
        "GLOO_SOCKET_IFNAME": LOOPBACK,
    }
    size = str(job.processes)
    group = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": HOST, "MASTER_PORT": str(_free_port())}
    return [
        {**defaults, **common, **group, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        | ({VISIBLE: gpus[rank]} if gpus else {})
        for rank in range(job.processes)
    ]


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])


def check_processes(processes: int, *, in_process: bool) -> None:
    """Raise `UsageError` where a stage cannot have so many processes: inside this one, or with fewer GPUs."""
    if processes > 1 and in_process:
        raise UsageError(
            f"{processes} processes cannot run inside this one", "leave out --in-process, or ask for one process"
        )
    if processes > 1:
        one_gpu_each(processes)


def refuse_other_launchers(environment: Mapping[str, str], instead: str) -> None:
    """Raise `UsageError` where torchrun or its like started this command several times; ``instead`` is what to do."""
    rank, size = environment.get("RANK"), environment.get("WORLD_SIZE", "")
    if rank is not None and size.isdigit() and int(size) > 1:
        raise UsageError(
            f"this is rank {rank} of {size} by RANK and WORLD_SIZE, as torchrun and its like set them: "
            "ftcli starts the processes of a stage itself, on one machine",
            f"start the command once, {instead}",
        )
