"""Layers that go on from the states of the batch before."""

from __future__ import annotations

import torch

from caffe.layers.base import Layer, Shape, Tensors


class KeepsStates(Layer):
    """A recurrent layer whose hidden and cell states outlive a batch."""

    _kept: tuple[torch.Tensor, ...] = ()
    _kept_before: tuple[torch.Tensor, ...] = ()

    def kept_states(self, like: torch.Tensor, shape: Shape) -> list[torch.Tensor]:
        """The two states that the last batch left, on the device of `like`; zeros if there was none
        or its states had another shape.
        """
        if self._kept and self._kept[0].shape == shape:
            return [state.to(like) for state in self._kept]
        return [like.new_zeros(shape)] * 2

    def keep_states(self, hidden: torch.Tensor, cell: torch.Tensor) -> None:
        """Keep what a batch leaves, and what it started from."""
        self._kept_before, self._kept = self._kept, (hidden.detach(), cell.detach())

    def record(self, inputs: Tensors) -> Tensors:
        """Run the last batch again: from the states that it started with."""
        kept, self._kept = self._kept, self._kept_before
        tops = super().record(inputs)
        self._kept = kept
        return tops

    def reset(self) -> None:
        """Forget the states: the next batch starts from zeros."""
        self._kept = ()
