"""DetectNetTransformation: worked cases of its grid, and what its changes leave alone."""

import numpy as np
import torch
from cases import Case, make_layer

import caffe

PARAM = """
detectnet_groundtruth_param { stride: 4 scale_cvg: 0.5 gridbox_type: GRIDBOX_MIN min_cvg_len: 4
  image_size_x: 16 image_size_y: 16 obj_norm: true object_class { src: 1 dst: 0 } }
transform_param { mean_value: 51 }
detectnet_augmentation_param { crop_prob: 0 scale_prob: 0 flip_prob: %d rotation_prob: 0
  hue_rotation_prob: 0 desaturation_prob: 0 }
top: "image" top: "grid"
"""


def made(phase: int, flip: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The tops for a picture of 16 x 16 with a box of class 1 from (2, 4) to (10, 12)."""
    shapes = [(1, 3, 16, 16), (1, 1, 3, 16)]
    layer = make_layer("DetectNetTransformation", Case(PARAM % flip, shapes, phase=phase))
    picture = torch.full(shapes[0], 102.0)
    picture[..., :4] = 255
    labels = torch.zeros(shapes[1])
    labels[0, 0, 0, :2] = torch.tensor([1.0, 16.0])
    labels[0, 0, 1, [0, 1, 2, 3, 5]] = torch.tensor([2.0, 4.0, 8.0, 8.0, 1.0])
    image, grid = layer.forward([picture, labels], [])
    return image[0].numpy(), grid[0].numpy()


def test_the_grid_of_a_box():
    """Half the box, 4 x 4 pixels around (6, 8), touches cells 1 and 2 of the rows and 1 of the
    columns: each has a sixteenth to a half of it.
    """
    image, grid = made(caffe.TEST)
    np.testing.assert_allclose(image[0, 0], [204] * 4 + [51] * 12, rtol=1e-5)
    assert np.argwhere(grid[8] == 1).tolist() == [[1, 1], [2, 1]]
    # From the corner (4, 4) of the cell: left, top, right, bottom; 1 / 8; all cells of the object.
    np.testing.assert_allclose(grid[:8, 1, 1], [1, -2, 0, 6, 8, 0.125, 0.125, 1])
    assert not grid[:, 0].any()


def test_a_mirrored_picture_has_a_mirrored_box():
    """Left is 16 - 2 - 8 - 1 = 5, as the fork counts."""
    image, grid = made(caffe.TRAIN, flip=1)
    np.testing.assert_allclose(image[0, 0], [51] * 12 + [204] * 4, rtol=1e-5)
    assert grid[1, 1, 2] == 5 - 8


def test_all_changes_at_once_keep_the_shapes():
    text = (PARAM % 1).replace("prob: 0", "prob: 1")
    text = text.replace(
        "detectnet_augmentation_param {", "detectnet_augmentation_param { shift_x: 3 "
    )
    layer = make_layer("DetectNetTransformation", Case(text, [(1, 3, 20, 30), (1, 1, 2, 16)]))
    torch.manual_seed(1)
    picture = torch.rand(1, 3, 20, 30) * 255
    labels = torch.zeros(1, 1, 2, 16)
    for _ in range(5):
        image, grid = layer.forward([picture, labels], [])
        assert image.shape == (1, 3, 16, 16)
        assert grid.shape == (1, 9, 4, 4)
        assert bool(image.isfinite().all())
        assert not grid.any()
