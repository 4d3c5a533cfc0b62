"""ImageData against the reference's own LMDB of the same pictures, and WindowData by hand."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

import caffe
from caffe.formats.files import write_blob

INTEROP = Path(__file__).parents[2] / "golden" / "interop"


def image_net(net_of, source, param="", transform="", phase=caffe.TRAIN):
    return net_of(
        f'layer {{ name: "d" type: "ImageData" top: "x" top: "y" transform_param {{ {transform} }}'
        f'image_data_param {{ source: "{source}" {param} }} }}',
        phase,
    )


def test_a_list_gives_what_the_references_database_of_it_holds(net_of):
    listed = image_net(net_of, INTEROP / "list.txt", f'batch_size: 4 root_folder: "{INTEROP}/img/"')
    stored = net_of(
        'layer { name: "d" type: "Data" top: "x" top: "y" data_param { batch_size: 4 '
        f'backend: LMDB source: "{INTEROP}/train_lmdb" }} }}'
    )
    for _ in range(3):
        listed.forward()
        stored.forward()
        for name in ("x", "y"):
            np.testing.assert_array_equal(listed.blobs[name].data, stored.blobs[name].data)


@pytest.fixture
def pictures(tmp_path):
    """Six pictures whose pixels say which they are, and their list."""
    lines = []
    for i in range(6):
        cv2.imwrite(str(tmp_path / f"a {i}.png"), np.full((4, 6, 3), 10 * i, np.uint8))
        lines.append(f"{tmp_path}/a {i}.png {i}\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    return tmp_path


def test_shuffle_skip_resize_and_grey(net_of, pictures):
    param = "batch_size: 6 shuffle: true new_height: 3 new_width: 5 is_color: false"
    net = image_net(net_of, pictures / "list.txt", param)
    net.forward()
    labels = net.blobs["y"].data.copy()
    assert sorted(labels) == list(range(6))
    assert net.blobs["x"].data.shape == (6, 1, 3, 5)
    np.testing.assert_array_equal(net.blobs["x"].data[:, 0, 0, 0], 10 * labels)
    net = image_net(net_of, pictures / "list.txt", "batch_size: 1 rand_skip: 6")
    net.forward()
    (first,) = net.blobs["y"].data.copy()
    net.forward()
    assert net.blobs["y"].data[0] == (first + 1) % 6


@pytest.mark.parametrize("shuffle", ["", "shuffle: true"])
def test_pictures_go_on_where_they_were(net_of, goes_on, pictures, shuffle):
    param = f"batch_size: 4 rand_skip: 5 {shuffle}"
    goes_on(lambda: image_net(net_of, pictures / "list.txt", param, "crop_size: 2 mirror: true"))


def test_a_list_needs_no_labels_and_may_have_blank_lines(net_of, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((2, 2, 3), np.uint8))
    (tmp_path / "list.txt").write_text("a.png\n\n a.png 3\r\n")
    net = image_net(net_of, tmp_path / "list.txt", f'root_folder: "{tmp_path}/"')
    net.forward()
    assert net.blobs["y"].data.tolist() == [0]


@pytest.mark.parametrize(
    ("text", "param", "cause"),
    [
        (None, "", "list.txt: No such file"),
        ("\n", "", "lists no pictures"),
        ("a b.png cat\n", "", "list.txt:1: label 'cat' is no integer"),
        ("none.png 0\n", "", "none.png: No such file or directory"),
        ("none.png 0\n", "new_height: 3", "both new_height and new_width"),
        ("none.png 0\n", "new_height: 10000 new_width: 10000", "10000x10000 pixels; at most"),
        (
            "none.png 0\n",
            "new_height: 999 new_width: 999 batch_size: 4294967295",
            r"blob shape \(4294967295, 3, 999, 999\): the size exceeds INT_MAX",
        ),
        ("none.png 0\n", "batch_size: 0", "batch_size must be positive"),
        ("none.png 0\n", "rand_skip: 2", "rand_skip 2 exceeds the 1 lines"),
    ],
)
def test_what_cannot_be_read_is_refused(net_of, tmp_path, text, param, cause):
    if text is not None:
        (tmp_path / "list.txt").write_text(text)
    with pytest.raises(caffe.CaffeError, match=f"layer 'd' .ImageData.: .*{cause}"):
        image_net(net_of, tmp_path / "list.txt", param)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_picture_that_vanishes_or_breaks_is_named(net_of, pictures, damaged):
    net = image_net(net_of, pictures / "list.txt", "batch_size: 6")
    (pictures / "a 4.png").unlink()
    if damaged:
        (pictures / "a 4.png").write_text("no picture")
    cause = "not a picture that can be read" if damaged else "No such file or directory"
    with pytest.raises(caffe.CaffeError, match=f"a 4.png: {cause}"):
        net.forward()


def test_a_name_of_other_bytes(net_of, tmp_path):
    data = cv2.imencode(".png", np.full((2, 3, 3), 7, np.uint8))[1].tobytes()
    (tmp_path / "T\udcfcr.png").write_bytes(data)
    (tmp_path / "list.txt").write_bytes(os.fsencode(f"{tmp_path}/T\udcfcr.png 3\n"))
    net = image_net(net_of, tmp_path / "list.txt", "batch_size: 1")
    net.forward()
    assert net.blobs["x"].data.max() == 7


# -- WindowData -------------------------------------------------------------------------------


def window_net(net_of, folder, windows, param="", transform="crop_size: 4"):
    """A net on one picture of 8 x 8 whose pixels are 10 row + column, and these windows."""
    rows, columns = np.mgrid[:8, :8]
    image = np.repeat((10 * rows + columns).astype(np.uint8)[..., None], 3, 2)
    cv2.imwrite(str(folder / "w.png"), image)
    lines = "".join(f"{w}\n" for w in windows)
    (folder / "w.txt").write_text(f"# 0\nw.png\n3\n8\n8\n{len(windows)}\n{lines}")
    return net_of(
        f'layer {{ name: "d" type: "WindowData" top: "x" top: "y" transform_param {{ {transform} }}'
        f'window_data_param {{ source: "{folder}/w.txt" root_folder: "{folder}/" batch_size: 4 '
        f"fg_fraction: 0.25 {param} }} }}"
    )


OBJECT, BACKGROUND = "3 0.9 2 1 5 4", "1 0.2 0 0 3 3"


@pytest.mark.parametrize("cache", ["", "cache_images: true"])
def test_background_comes_first_and_then_the_share_of_objects(net_of, tmp_path, cache):
    net = window_net(net_of, tmp_path, [OBJECT, BACKGROUND], cache)
    net.forward()
    assert net.blobs["y"].data.tolist() == [0, 0, 0, 3]
    x = net.blobs["x"].data
    assert x.shape == (4, 3, 4, 4)
    rows, columns = np.mgrid[:4, :4]
    np.testing.assert_array_equal(x[0, 0], 10 * rows + columns)
    np.testing.assert_array_equal(x[3, 2], 10 * (rows + 1) + columns + 2)


def test_windows_go_on_where_they_were(net_of, goes_on, tmp_path):
    windows = [f"1 0.9 {i} 0 {i + 2} 3" for i in range(5)]
    windows += [f"1 0.2 0 {i} 3 {i + 3}" for i in range(4)]
    transform = "crop_size: 4 mirror: true"
    goes_on(lambda: window_net(net_of, tmp_path, windows, transform=transform))


def test_context_beyond_the_picture_stays_zero(net_of, tmp_path):
    # Context of 1 on a crop of 4 doubles the window of 2 x 2 at the corner around its middle, 1:
    # -1 to 3 are 5 pixels, of which 4 lie in the picture: round(4 * 4 / 5) = 3 from round(4 / 5).
    net = window_net(net_of, tmp_path, ["1 0.9 0 0 1 1", BACKGROUND], "context_pad: 1")
    net.forward()
    top = net.blobs["x"].data[3, 0]
    assert not top[0].any()
    assert not top[:, 0].any()
    assert (top[1:, 1:].ravel()[1:] > 0).all()


def test_mean_and_scale(net_of, tmp_path):
    write_blob(tmp_path / "m.binaryproto", np.full((1, 3, 6, 6), 2, np.float32), old_form=True)
    for transform in ("mean_value: 2", f'mean_file: "{tmp_path}/m.binaryproto"'):
        transform = f"crop_size: 4 {transform}"
        net = window_net(net_of, tmp_path, [OBJECT, BACKGROUND], "scale: 0.5", transform)
        net.forward()
        rows, columns = np.mgrid[:4, :4]
        np.testing.assert_array_equal(net.blobs["x"].data[0, 1], (10 * rows + columns - 2) / 2)


@pytest.mark.parametrize(
    ("windows", "param", "transform", "cause"),
    [
        ([OBJECT], "", "crop_size: 4", "no window on background"),
        ([BACKGROUND], "", "crop_size: 4", "no window on objects"),
        ([OBJECT, BACKGROUND], "", "", "must give a crop_size"),
        ([OBJECT, BACKGROUND], "context_pad: 2", "crop_size: 4", "leaves nothing"),
        ([OBJECT, BACKGROUND], "", "crop_size: 4 augmentation_param {}", "does not take augment"),
        (["0 0.9 0 0 1 1", BACKGROUND], "", "crop_size: 4", "an object of class 0"),
        ([OBJECT, "1 0.2 0 0"], "", "crop_size: 4", "broken off"),
        ([OBJECT, BACKGROUND], "", "crop_size: 4 mean_value: [1, 2]", "given 2 time"),
    ],
)
def test_windows_that_cannot_be_used_are_refused(
    net_of, tmp_path, windows, param, transform, cause
):
    with pytest.raises(caffe.CaffeError, match=f"layer 'd' .*{cause}"):
        window_net(net_of, tmp_path, windows, param, transform)


def test_a_window_outside_the_picture_is_named(net_of, tmp_path):
    net = window_net(net_of, tmp_path, ["1 0.9 5 5 9 7", BACKGROUND])
    with pytest.raises(caffe.CaffeError, match=r"w.png: window \(5, 5, 9, 7\) does not lie"):
        net.forward()
