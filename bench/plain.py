"""FuseNet-SF5 as a user of plain PyTorch would write it: the baseline of the benchmarks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def block(inputs: int, outputs: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in outputs:
        layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
        inputs = channels
    return nn.Sequential(*layers)


def decoder_block(inputs: int, outputs: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in outputs:
        conv = nn.ConvTranspose2d(inputs, channels, 3, padding=1)
        layers += [conv, nn.BatchNorm2d(channels), nn.ReLU()]
        inputs = channels
    return nn.Sequential(*layers)


class PlainFuseNet(nn.Module):
    """Two VGG-16 encoders, depth added to colour after each block, an unpooling decoder.

    width: multiplies all channels. Inputs: N x 3 x H x W and N x 1 x H x W; output: N x (classes +
    1) x H x W.
    """

    def __init__(self, classes: int, width: float = 1.0) -> None:
        super().__init__()
        blocks = [tuple(max(1, round(c * width)) for c in b) for b in BLOCKS]
        ends = [b[-1] for b in blocks]
        self.color = nn.ModuleList(map(block, [3, *ends[:-1]], blocks))
        self.depth = nn.ModuleList(map(block, [1, *ends[:-1]], blocks))
        mirrored = [(*b[-2::-1], e) for b, e in zip(blocks, [ends[0], *ends[:-1]], strict=True)]
        mirrored[0] = (blocks[0][0],)  # the last convolution of the mirror is `score`
        self.decoder = nn.ModuleList(map(decoder_block, ends, mirrored))
        self.score = nn.Conv2d(blocks[0][0], classes + 1, 3, padding=1)

    def forward(self, rgb: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
        x, y, places = rgb, depth, []
        for i, (color_block, depth_block) in enumerate(zip(self.color, self.depth, strict=True)):
            y = depth_block(y)
            x = color_block(x) + y
            size = x.shape[2:]
            x, indices = F.max_pool2d(x, 2, 2, ceil_mode=True, return_indices=True)
            y = F.max_pool2d(y, 2, 2, ceil_mode=True)
            places.append((indices, size))
            if i >= 2:
                x, y = F.dropout(x, 0.5, self.training), F.dropout(y, 0.5, self.training)
        for i in reversed(range(len(BLOCKS))):
            indices, size = places[i]
            x = self.decoder[i](F.max_unpool2d(x, indices, 2, 2, output_size=size))
            if i >= 2:
                x = F.dropout(x, 0.5, self.training)
        return self.score(x)
