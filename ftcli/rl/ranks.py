"""Several processes that train one model together, each on its share of the rows; with one, every method is the identity.

Every rank holds the whole model and sees the same data. The trainer gives each its rows, `Ranks.gather` makes the results
known to all, and `Ranks.sum_gradients` takes the place of DistributedDataParallel, which expects one forward and one
backward a step, while the roles of `ftcli.rl.roles` have several on one backbone. All ranks must call the same methods in
the same order; one that does not makes the others wait until `TIMEOUT`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ftcli.core.errors import StageFailed

TIMEOUT = timedelta(hours=1)
"""How long a rank waits for the others: longer than any of them samples or evaluates alone. Whoever started them ends the
rest when one dies, so this is for ranks that disagree on what to do next."""


@dataclass
class Ranks:
    """Rank ``rank`` of ``size``. ``objects`` is the group that sends what lies in ordinary memory."""

    rank: int = 0
    size: int = 1
    objects: dist.ProcessGroup | None = None

    def gather(self, value: Any) -> list[Any]:
        """The ``value`` of every rank, in the order of ranks, on every rank. Tensors in it must be on the CPU; what a rank
        gets from itself is a copy too, except where it is alone."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.objects)
        return found

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is true on any rank: what one decides for all, such as to stop."""
        return any(self.gather(flag))

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add up the gradients of all ranks, in place. A missing one counts, and becomes, 0: a rank without rows takes part.

        ``parameters`` have the same order on every rank. There is one reduction for each number format, of a copy.
        """
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for dtype in dict.fromkeys(gradient.dtype for gradient in gradients):
            group = [gradient for gradient in gradients if gradient.dtype == dtype]
            flat = torch.cat([gradient.reshape(-1) for gradient in group])
            dist.all_reduce(flat)
            for gradient, total in zip(group, flat.split([one.numel() for one in group]), strict=True):
                gradient.copy_(total.view_as(gradient))

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Give every rank the ``tensors`` of rank 0, in place: trained weights that each rank drew by itself."""
        for tensor in tensors if self.size > 1 else ():
            whole = tensor.detach().contiguous()
            dist.broadcast(_as_bytes(whole), src=0)
            tensor.detach().copy_(whole)

    def assert_same(self, tensors: Sequence[Tensor]) -> None:
        """Raise `StageFailed`, on every rank, if ``tensors`` are not equal to the last bit on all of them."""
        checksums = self.gather([_checksum(tensor) for tensor in tensors]) if self.size > 1 else []
        for rank, other in enumerate(checksums):
            differ = sum(a != b for a, b in zip(checksums[0], other, strict=True))
            if differ:
                raise StageFailed(
                    f"the trained weights of ranks 0 and {rank} have come apart: {differ} of {len(other)} tensors differ",
                    "the same command goes on from the last checkpoint; with one process this cannot happen",
                )


def _as_bytes(tensor: Tensor) -> Tensor:
    """The memory of a contiguous tensor: unlike numbers, bytes can be sent in every format."""
    return tensor.view(-1).view(torch.uint8)


def _checksum(tensor: Tensor) -> str:
    content = _as_bytes(tensor.detach().contiguous()).cpu()
    return hashlib.blake2b(content.numpy().data, digest_size=16).hexdigest()


def single() -> Ranks:
    """The one rank of a process that works alone."""
    return Ranks()


@contextmanager
def ranks_from_environment(device: torch.device) -> Iterator[Ranks]:
    """The rank that torchrun's variables (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT) make of this process; alone without.

    ``device`` is where this rank's weights and gradients are: its own GPU (NCCL), or the CPU (gloo).
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield single()
        return
    if device.type == "cuda":
        own = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.set_device(own)
        dist.init_process_group("nccl", timeout=TIMEOUT, device_id=own)
        objects = dist.new_group(backend="gloo", timeout=TIMEOUT)
    else:
        dist.init_process_group("gloo", timeout=TIMEOUT)
        objects = dist.group.WORLD
    ranks = Ranks(dist.get_rank(), dist.get_world_size(), objects)
    yield ranks
    # Not after an error: the others may be in a collective, which this would wait for. The process ends anyway.
    ranks.objects = objects = None  # the threads of a group that outlives the interpreter end it with SIGABRT
    dist.destroy_process_group()
