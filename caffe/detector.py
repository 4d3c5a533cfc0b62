"""Detector: a net that looks at windows of pictures, as R-CNN does.

Girshick et al., Rich feature hierarchies for accurate object detection and semantic segmentation,
CVPR 2014.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from caffe import io
from caffe.classifier import PathLike, make_transformer
from caffe.errors import CaffeError
from caffe.net import Net
from caffe.proto.caffe_pb2 import TEST


class Detector(Net):
    """A net in TEST phase that predicts classes of windows, each warped to its input size.

    model_file, pretrained_file: prototxt and weights. mean, input_scale, raw_scale, channel_swap:
    as io.Transformer's setters take them. context_pad: width in pixels, on each side of the net's
    input, of the border that shows the window's surroundings; beyond the picture it is the mean.
    partial: accept weights that lack parameters of the net, as pycaffe does.
    """

    def __init__(
        self,
        model_file: PathLike,
        pretrained_file: PathLike,
        mean: np.ndarray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
        partial: bool = True,
    ) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file if partial else None)
        if not partial:
            self.copy_from(pretrained_file, complete=True)
        self.transformer = make_transformer(self, mean, input_scale, raw_scale, channel_swap)
        self.configure_crop(context_pad)

    def detect_windows(
        self, images_windows: Iterable[tuple[PathLike, Iterable[Sequence[float]]]]
    ) -> list[dict[str, Any]]:
        """Predictions for windows (ymin, xmin, ymax, xmax), in pixels, of picture files.

        Returns a dict for each window: its `filename`, the `window` and the `prediction`.
        """
        found, inputs, name = [], [], self.inputs[0]
        for filename, windows in images_windows:
            image = io.load_image(filename)
            for window in windows:
                inputs.append(self.transformer.preprocess(name, self.crop(image, window)))
                found.append({"window": window, "filename": filename})
        if not inputs:
            return []
        predictions = self.forward_all(**{name: np.array(inputs)})[self.outputs[0]]
        for detection, prediction in zip(found, predictions, strict=True):
            detection["prediction"] = prediction
        return found

    def detect_selective_search(self, image_fnames: Iterable[PathLike]) -> list[dict[str, Any]]:
        """Predictions for the windows that Selective Search proposes, as from detect_windows.

        Raises CaffeError if the package selective_search_ijcv_with_python is not installed; it
        needs MATLAB.
        """
        try:
            import selective_search_ijcv_with_python as selective_search
        except ImportError:
            raise CaffeError(
                "proposing windows needs the package selective_search_ijcv_with_python and MATLAB; "
                "give the windows yourself (detect_windows, --crop_mode list)"
            ) from None
        paths = [os.path.abspath(name) for name in image_fnames]
        windows = selective_search.get_windows(paths, cmd="selective_search_rcnn")
        return self.detect_windows(zip(paths, windows, strict=True))

    def crop(self, im: np.ndarray, window: Sequence[float]) -> np.ndarray:
        """A window (ymin, xmin, ymax, xmax) cut out of a height x width x channels picture.

        With context_pad the result has the net's input size and shows the window's surroundings.
        Raises CaffeError for a window that lies outside the picture.
        """
        top, left, bottom, right = (int(v) for v in window)
        if not self.context_pad:
            crop = im[max(top, 0) : bottom, max(left, 0) : right]
            if not crop.size:
                raise CaffeError(f"window {list(window)} holds nothing of a {im.shape[:2]} picture")
            return crop
        return self._crop_with_context(im, np.array([top, left, bottom, right]))

    def _crop_with_context(self, im: np.ndarray, box: np.ndarray) -> np.ndarray:
        """The window, warped so that a border of context_pad pixels shows its surroundings."""
        size = self.crop_dims[0]  # the input is taken to be square
        scale = size / (size - 2.0 * self.context_pad)
        half = (box[2:] - box[:2] + 1) / 2
        centre = box[:2] + half
        box = np.round(np.concatenate([centre - scale * half, centre + scale * half]))
        zoom = size / (box[2:] - box[:2] + 1)
        pad = np.round(np.maximum(-box[:2], 0) * zoom).astype(int)
        limits = np.tile(im.shape[:2], 2)
        box = np.clip(box, 0, limits).astype(int)
        warped = np.round((box[2:] - box[:2] + 1) * zoom).astype(int)
        warped = np.minimum(warped, size - pad)
        part = im[box[0] : box[2], box[1] : box[3]]
        if not part.size or warped.min() <= 0:
            raise CaffeError(f"window around {centre} holds nothing of a {im.shape[:2]} picture")
        crop = np.ones(self.crop_dims, np.float32) * self.crop_mean
        crop[pad[0] : pad[0] + warped[0], pad[1] : pad[1] + warped[1]] = io.resize_image(
            part, warped
        )
        return crop

    def configure_crop(self, context_pad: int | None) -> None:
        """Set context_pad, and crop_mean: the mean in the scale and axes of unprepared pictures."""
        name, t = self.inputs[0], self.transformer
        back = np.argsort(t.transpose[name])
        self.crop_dims = np.array(self.blobs[name].shape[1:])[back]
        self.context_pad = context_pad
        self.crop_mean: np.ndarray = np.zeros(self.crop_dims, np.float32)
        if context_pad and t.mean.get(name) is not None:
            mean = np.array(t.mean[name], np.float32).transpose(back)
            if name in t.channel_swap:
                mean = mean[:, :, np.argsort(t.channel_swap[name])]
            self.crop_mean = mean / t.raw_scale.get(name, 1)
