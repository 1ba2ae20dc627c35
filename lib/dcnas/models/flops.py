"""FLOPs as the paper counts them: multiply-accumulates by fvcore, no bias, GroupNorm 5 per element."""

import warnings

import torch
from torch import nn


def count_flops(model: nn.Module, *inputs: torch.Tensor) -> int:
    """FLOPs of one forward pass on `inputs`, for all images in the batch."""
    with warnings.catch_warnings():  # it compiles a few functions in a way that torch now deprecates
        warnings.simplefilter("ignore", FutureWarning)
        from fvcore.nn import FlopCountAnalysis  # here, so that training needs torch alone

    training = model.training
    model.eval()
    try:
        analysis = FlopCountAnalysis(model, inputs)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        return int(analysis.total())
    finally:
        model.train(training)


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
