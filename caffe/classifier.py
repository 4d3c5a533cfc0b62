"""Classifier: a net that prepares pictures and classifies them."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from caffe import io
from caffe.net import Net
from caffe.proto.caffe_pb2 import TEST

PathLike = str | os.PathLike[str]


def make_transformer(
    net: Net,
    mean: np.ndarray | None,
    input_scale: float | None,
    raw_scale: float | None,
    channel_swap: Sequence[int] | None,
) -> io.Transformer:
    """A Transformer from height x width x channels pictures to a net's first input."""
    name = net.inputs[0]
    transformer = io.Transformer({name: net.blobs[name].shape})
    transformer.set_transpose(name, (2, 0, 1))
    for set_value, value in (
        (transformer.set_mean, mean),
        (transformer.set_input_scale, input_scale),
        (transformer.set_raw_scale, raw_scale),
        (transformer.set_channel_swap, channel_swap),
    ):
        if value is not None:
            set_value(name, value)
    return transformer


class Classifier(Net):
    """A net in TEST phase that predicts classes of pictures.

    model_file, pretrained_file: prototxt and weights. image_dims: (height, width) to which pictures
    are resized before cropping; default: the net's input size, so that nothing is cropped off.
    mean, input_scale, raw_scale, channel_swap: as io.Transformer's setters take them.
    partial: accept weights that lack parameters of the net, as pycaffe does.
    """

    def __init__(
        self,
        model_file: PathLike,
        pretrained_file: PathLike,
        image_dims: Sequence[int] | None = None,
        mean: np.ndarray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        partial: bool = True,
    ) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file if partial else None)
        if not partial:
            self.copy_from(pretrained_file, complete=True)
        self.transformer = make_transformer(self, mean, input_scale, raw_scale, channel_swap)
        self.crop_dims = np.array(self.blobs[self.inputs[0]].shape[2:])
        self.image_dims = self.crop_dims if image_dims is None else np.array(image_dims)

    def predict(self, inputs: Sequence[np.ndarray], oversample: bool = True) -> np.ndarray:
        """Class probabilities of pictures (height x width x channels each): N x classes.

        oversample: average over ten crops (corners and centre, plain and mirrored); else only the
        centre is used.
        """
        images = np.array([io.resize_image(image, self.image_dims) for image in inputs])
        crops = io.oversample(images, self.crop_dims) if oversample else self._centre(images)
        name = self.inputs[0]
        data = np.array([self.transformer.preprocess(name, crop) for crop in crops])
        predictions = self.forward_all(**{name: data})[self.outputs[0]]
        if oversample:
            predictions = predictions.reshape(len(inputs), 10, -1).mean(1)
        return predictions

    def _centre(self, images: np.ndarray) -> np.ndarray:
        height, width = self.crop_dims
        top, left = ((self.image_dims - self.crop_dims) / 2).astype(int)
        return images[:, top : top + height, left : left + width]
