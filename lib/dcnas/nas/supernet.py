"""The supernet: every operator of every layer at once, and alphas between them (Section 4.1, [16]).

Three ways through a layer:
- `one`: a single sampled operator, for training weights;
- `mixed`: the sum of all (or some) operators, each times its Gumbel weight, for training alphas,
  computed with operators of one kernel size side by side in large calls, which equals the plain sum;
- the plain sum, which only the test uses.

Alphas are log-probabilities. With learned beta, a stage's output is the softmax(beta) weighted sum of
its blocks' outputs; with beta removed, the paper's proposal, it is the last block's.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby, repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import InvertedResidual
from .networks import Decoder, encoder_levels, make_block, make_head, make_stem
from .space import ENCODER_STAGES, Layer, Operator, Space

EPS = 1e-5  # of batch norm


def _norm(x: Tensor, weight: Tensor | None = None) -> Tensor:
    """Batch norm with the batch's own statistics, as in a search."""
    return F.batch_norm(x, None, None, weight, None, training=True, eps=EPS)


class MixedLayer(nn.Module):
    """All operators of one layer at their largest width; the first `hidden[i]` channels take part."""

    def __init__(self, layer: Layer, operators: Sequence[Operator]):
        super().__init__()
        self.layer, self.operators = layer, tuple(operators)
        inside = layer.in_channels
        blocks = (make_block(layer, o, o.most_hidden(inside), affine=False) for o in operators)
        self.blocks = nn.ModuleList(blocks)
        self.hidden = [layer.stepped(o, o.start_hidden(inside)) for o in operators]
        self.alphas = nn.Parameter(torch.full((len(operators),), 1 / len(operators)).log())

    def one(self, x: Tensor, index: int) -> Tensor:
        """The output of operator `index` alone."""
        block, n = self.blocks[index], self.hidden[index]
        z = _expand(x, block.expand[0].weight[:n], block.expand[2])
        z = _depthwise(z, block.depthwise[0].weight[:n], block)
        if self.operators[index].se:
            z = z * _gate(z.mean((2, 3)), block, n)[:, :, None, None]
        z = _norm(F.conv2d(z, block.project[0].weight[:, :n]))
        return x + z if block.residual else z

    def mixed(self, x: Tensor, weights: Tensor, indices: Sequence[int] | None = None) -> Tensor:
        """The sum of operators `indices` (default: all), each times its `weights`, which sum to 1."""
        indices = range(len(self.blocks)) if indices is None else indices
        # operators with squeeze-and-excitation last, so that they lie together in memory
        order = sorted(indices, key=lambda i: (self.operators[i].kernel, self.operators[i].se))
        projected = []
        for _, group in groupby(order, lambda i: self.operators[i].kernel):
            projected += self._group(x, list(group))
        scales = weights[[list(indices).index(i) for i in order]]
        outs, batch = self.layer.out_channels, len(x)
        # the weight of an operator enters as batch norm's scale
        normed = _norm(torch.cat(projected, 1), scales.repeat_interleave(outs))
        summed = normed.view(-1, len(order), outs).sum(1)
        size = (-(-side // self.layer.stride) for side in x.shape[2:])  # after the layer, rounded up
        out = summed.view(batch, *size, outs).permute(0, 3, 1, 2)
        return x + out if self.layer.residual else out

    def _group(self, x: Tensor, group: Sequence[int]) -> list[Tensor]:
        """Of each operator of one kernel size the projection before its batch norm, (B * H * W, out)."""
        pairs = [(self.blocks[i], self.hidden[i]) for i in group]
        first, _ = pairs[0]
        z = _expand(x, torch.cat([b.expand[0].weight[:n] for b, n in pairs]), first.expand[2])
        z = _depthwise(z, torch.cat([b.depthwise[0].weight[:n] for b, n in pairs]), first)
        rows = z.permute(0, 2, 3, 1).contiguous()  # a view in channels_last
        means = rows.mean((1, 2)) if any(self.operators[i].se for i in group) else None
        parts, start = [], 0
        for i, (block, width) in zip(group, pairs, strict=True):
            place = slice(start, start + width)
            part, start = rows[..., place], place.stop
            if self.operators[i].se:
                part = part * _gate(means[:, place], block, width)[:, None, None, :]
            parts.append(part.reshape(-1, width) @ block.project[0].weight[:, :width, 0, 0].T)
        return parts


def _expand(x: Tensor, weight: Tensor, activation: nn.Module) -> Tensor:
    return activation(_norm(F.conv2d(x, weight)))


def _depthwise(z: Tensor, weight: Tensor, block: InvertedResidual) -> Tensor:
    conv = block.depthwise[0]
    z = F.conv2d(z, weight, stride=conv.stride, padding=conv.padding, groups=len(weight))
    return block.depthwise[2](_norm(z))


def _gate(means: Tensor, block: InvertedResidual, n: int) -> Tensor:
    """Squeeze-and-excitation's gate (B, n) from the mean of each of the first n channels (B, n)."""
    reduce, expand = block.se.reduce, block.se.expand
    inside = block.se.activation(F.linear(means, reduce.weight[:, :n, 0, 0], reduce.bias))
    return torch.sigmoid(F.linear(inside, expand.weight[:n, :, 0, 0], expand.bias[:n]))


class Supernet(nn.Module):
    """Stems, mixed layers and head; with `decoder`, also the fixed decoder, for a search on both losses
    (Section 4.3 Exp 2)."""

    def __init__(
        self, space: Space, learn_beta: bool = False, decoder: bool = False, classifies: bool = True
    ):
        super().__init__()
        self.space, self.learn_beta = space, learn_beta
        self.stem = make_stem(space, affine=False)
        self.layers = nn.ModuleList(MixedLayer(layer, space.candidates) for layer in space.layers)
        # a first block that keeps the shape could be left out too, but no stage of this space begins
        # with one
        self.betas = (
            nn.ParameterList(nn.Parameter(torch.zeros(len(stage))) for stage in space.stages)
            if learn_beta
            else None
        )
        self.head = make_head(space, affine=False) if classifies else None
        self.decoder = Decoder(encoder_levels(space), affine=False) if decoder else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def alphas(self) -> list[nn.Parameter]:
        return [layer.alphas for layer in self.layers]

    def architecture_parameters(self) -> list[nn.Parameter]:
        """Alphas and, where they are learned, betas."""
        return [*self.alphas(), *(self.betas or ())]

    def weight_parameters(self) -> list[nn.Parameter]:
        own = {id(p) for p in self.architecture_parameters()}
        return [p for p in self.parameters() if id(p) not in own]

    def run_stem(self, x: Tensor) -> Tensor:
        """Both stems: the part of a pass that does not depend on the operators."""
        return self.stem["second"](self.stem["first"](x))

    def forward_paths(
        self, x: Tensor, paths: Sequence[Sequence[int]]
    ) -> list[tuple[Tensor | None, Tensor]]:
        """(denoised or None, logits) of single paths, each a list of operators; the stems run once."""
        stem = self.run_stem(x)
        chains = ([partial(layer.one, index=i) for layer, i in zip(self.layers, path)] for path in paths)
        return [self._through(x, stem, chain) for chain in chains]

    def forward_mixed(
        self, x: Tensor, weights: Sequence[Tensor], indices: Sequence[Sequence[int]] | None = None
    ) -> tuple[Tensor | None, Tensor]:
        """(denoised or None, logits) with all operators, or `indices` of each layer, weighted."""
        mixtures = zip(self.layers, weights, indices or repeat(None))
        chain = [partial(layer.mixed, weights=w, indices=some) for layer, w, some in mixtures]
        return self._through(x, self.run_stem(x), chain)

    def _through(
        self, image: Tensor, x: Tensor, layers: Sequence[Callable[[Tensor], Tensor]]
    ) -> tuple[Tensor | None, Tensor]:
        maps = [x]
        for s, stage in enumerate(self.space.stages[: None if self.head else ENCODER_STAGES]):
            outputs = []
            for i in stage:
                x = layers[i](x)
                outputs.append(x)
            if self.learn_beta and len(stage) > 1:
                x = sum(w * out for w, out in zip(F.softmax(self.betas[s], 0), outputs, strict=True))
            if s < ENCODER_STAGES:
                maps = [*maps[:-1], x] if x.shape[-1] == maps[-1].shape[-1] else [*maps, x]
        denoised = None if self.decoder is None else self.decoder(image, maps)
        return denoised, self.head(x) if self.head else None

    def expected_latency_ms(
        self, weights: Sequence[Tensor], block_ms: Sequence[Tensor], base_ms: float
    ) -> Tensor:
        """Latency of the mixture: operators by `weights`, depth by beta.

        `block_ms`: per layer a tensor with each operator's ms.
        """
        layers = [(w * ms).sum() for w, ms in zip(weights, block_ms, strict=True)]
        total = torch.as_tensor(base_ms, dtype=layers[0].dtype, device=layers[0].device)
        for s, stage in enumerate(self.space.stages):
            upto = torch.stack([layers[i] for i in stage]).cumsum(0)
            total = total + ((F.softmax(self.betas[s], 0) * upto).sum() if self.learn_beta else upto[-1])
        return total
