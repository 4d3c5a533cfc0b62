"""Adapts Caffe's Python files to today's Python and libraries."""

import numpy as np
import skimage
import skimage.io


def instead(replacement):
    """
    Decorate a function to be replaced by another of the same signature.
    """
    return lambda replaced: replacement


def load_image(filename, color=True):
    """
    Load an image converting from grayscale or alpha as needed.

    scikit-image 0.16 renamed imread's as_grey to as_gray, which older releases
    accept, too.

    Parameters
    ----------
    filename : string
    color : boolean
        flag for color format. True (default) loads as RGB while False
        loads as intensity.

    Returns
    -------
    image : (H x W x 3) ndarray for color, else (H x W x 1), of type np.float32
        in range [0, 1].
    """
    image = skimage.io.imread(filename, as_gray=not color)
    image = skimage.img_as_float(image).astype(np.float32)
    if image.ndim == 2:
        return np.repeat(image[:, :, np.newaxis], 3 if color else 1, axis=2)
    return image[:, :, :3]
