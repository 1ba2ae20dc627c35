"""A training step's forward and backward pass as a CUDA graph: recorded once, then replayed with one call.

The study's networks are so small that a GPU waits for Python to launch its kernels; a recorded step leaves nothing to launch.
The optimiser stays outside, so that learning rates, momenta and the clipping of gradients may change from step to step.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .tasks import Batch

EAGER_STEPS = 3  # real steps before the recording, in which libraries choose their kernels and allocate what they keep


class Recorded:
    """`recorded(gradients, batch)` does what `gradients(batch)` does, which runs forward and backward and returns the loss.

    Batches must all have the shapes of the first. The gradients of a replay are written to where the recording put them, so
    nobody may set them to None after it.
    """

    def __init__(self, device: torch.device):
        self.device, self.eager_left, self.stream, self.graph = device, EAGER_STEPS, torch.cuda.Stream(device), None

    def __call__(self, gradients: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
        if self.eager_left:
            self.eager_left -= 1
            return self._eagerly(gradients, batch)
        if self.graph is None:
            self._record(gradients, batch)
        for kept, new in zip(self.batch, batch, strict=True):
            if new is not None:
                if kept.shape != new.shape:
                    raise ValueError(f"a recorded step takes batches of {tuple(kept.shape)}, not {tuple(new.shape)}")
                kept.copy_(new, non_blocking=True)
        self.graph.replay()
        return self.loss.clone()

    def _eagerly(self, gradients: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            loss = gradients(batch)
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        return loss

    def _record(self, gradients: Callable[[Batch], Tensor], batch: Batch) -> None:
        self.batch = Batch(*(None if part is None else part.clone() for part in batch))
        torch.cuda.synchronize(self.device)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.device), torch.cuda.graph(self.graph, stream=self.stream):
            self.loss = gradients(self.batch)
