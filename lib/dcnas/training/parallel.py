"""One training on several GPUs: processes that `torchrun` starts, each with its share of every batch.

Without torchrun every function here is that of a single process. Batch norm sees the share of its own
process; the first process alone writes files, evaluates, searches and measures.
"""

import atexit
import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .tasks import Batch

PATIENCE = timedelta(hours=2)  # the others wait for the first process while it evaluates


def join(device: torch.device) -> torch.device:
    """Join the processes that torchrun started, if it did; the device of this one."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        atexit.register(dist.destroy_process_group)
    return device


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that writes."""
    return not dist.is_initialized() or dist.get_rank() == 0


def wrap(model: nn.Module) -> nn.Module:
    """The model with gradients averaged over the processes; its weights begin as those of the first."""
    return model if world() == 1 else DistributedDataParallel(model)


def share(batch: Batch) -> Batch:
    """This process's part of a batch."""
    if world() == 1:
        return batch
    return Batch(*(None if part is None else part[dist.get_rank() :: world()] for part in batch))


def mean(value: Tensor) -> Tensor:
    """The mean of a number over the processes."""
    if world() > 1:
        dist.all_reduce(value)
        value /= world()
    return value


def told(value: bool) -> bool:
    """What the first process says; the others wait for it."""
    box = [value]
    if world() > 1:
        dist.broadcast_object_list(box)
    return box[0]
