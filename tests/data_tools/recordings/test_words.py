"""What names of files and folders tell."""

import pytest

from data_tools.recordings import words


@pytest.mark.parametrize(
    ("name", "depth", "rank"),
    [
        ("depth000001", True, None),
        ("livingroom1-depth-clean", True, None),
        ("Depth16", True, None),
        ("aligned_depth_to_color", True, None),
        ("DepthImage", True, None),
        ("desk_Color_123", False, 0),
        ("RGB", False, 0),
        ("undistorted_color_images", False, 0),
        ("images", False, 1),
        ("frame_00001", False, 1),
        ("lowres_wide", False, 2),
        ("left000001", False, 2),
        ("desk_1_1", False, words.UNTOLD),
        ("000001", False, words.UNTOLD),
        ("depth_colormap", False, None),
        ("colorized_depth", False, None),
        ("image_right", False, None),
        ("conf_00001", False, None),
        ("confidence", False, None),
        ("ir0001", False, None),
        ("infra1", False, None),
        ("000001-label", False, None),
    ],
)
def test_colour_depth_or_something_else(name, depth, rank):
    assert (words.is_depth(name), words.color_rank(name)) == (depth, rank)


def test_the_clearest_names_are_taken():
    assert words.clearest(["left1", "frame1", "rgb1", "rgb2", "depth1"], True) == ["rgb1", "rgb2"]
    assert words.clearest(["1", "2", "depth1"], untold=True) == ["1", "2"]
    assert words.clearest(["1", "2", "depth1"], untold=False) == []
