"""data_tools.prepared: what others made is taken over pixel by pixel."""

import pickle

import cv2
import h5py
import numpy as np
import pytest

from data_tools.nyuv2 import split_indices
from data_tools.store import Reader

SIZE = (5, 7)  # height, width


def parts(index):
    """RGB, depth 0..255 and label of a frame; no two frames are alike."""
    rng = np.random.default_rng(index)
    shapes = ((256, (*SIZE, 3)), (256, SIZE), (38, SIZE))
    return [rng.integers(0, high, shape, np.uint8) for high, shape in shapes]


def check(reader, indices, scenes=None):
    assert len(reader) == len(indices)
    for position, (index, (_, planes, scene)) in enumerate(
        zip(indices, reader.planes(), strict=True)
    ):
        rgb, depth, label = parts(index)
        assert (planes[2::-1] == rgb.transpose(2, 0, 1)).all()
        assert (planes[3] == depth).all()
        assert (planes[4] == label).all()
        assert scene == (scenes[position] if scenes else 0)


@pytest.fixture
def sun(tmp_path):
    root = tmp_path / "sunrgbd"
    for folder in ("images-224", "depth-inpaint-u8-224", "seglabel-224"):
        (root / folder).mkdir(parents=True)
    for index in (1, 2, 5051, 5052, 5053):
        rgb, depth, label = parts(index)
        cv2.imwrite(str(root / "images-224" / f"{index}.png"), rgb[..., ::-1])
        cv2.imwrite(str(root / "depth-inpaint-u8-224" / f"{index}.png"), depth)
        cv2.imwrite(str(root / "seglabel-224" / f"{index}.png"), label)
    splits = {"test": np.array([1, 2]), "trainval": np.array([5051, 5052, 5053])}
    (root / "splits.pkl").write_bytes(pickle.dumps(splits, 0))
    return root


def test_the_ports_sun_archive(sun, command, tmp_path):
    command("prepared", sun, "out", "--workers", 2)
    check(Reader(tmp_path / "out" / "train"), [5051, 5052, 5053])
    test = Reader(tmp_path / "out" / "test")
    check(test, [1, 2])
    assert test.keys() == [b"00000000_1", b"00000001_2"]
    assert test.info["dataset"] == "sunrgbd-37"


def test_the_ports_nyuv2_file(command, tmp_path):
    frames = [parts(index) for index in range(20)]
    lists = {name: [frame[i] for frame in frames] for i, name in
             enumerate(("rgb_images", "depth_images", "masks"))}  # fmt: skip
    np.save(tmp_path / "nyuv2.npy", lists)
    command("prepared", "nyuv2.npy", "out")
    for split in ("trainval", "test"):
        indices = [index for index in split_indices(split) if index < 20]
        check(Reader(tmp_path / "out" / split), indices)


def test_zanilzanzans_file(command, tmp_path):
    counts = {"train": 10, "test": 3}
    scenes = {"train": [1 + i for i in range(10)], "test": [10, 1, 5]}
    with h5py.File(tmp_path / "nyu.h5", "w") as file:
        for number, (part, count) in enumerate(counts.items()):
            frames = [parts(100 * number + index) for index in range(count)]
            file[f"rgb_{part}"] = np.stack([f[0].transpose(2, 0, 1) for f in frames])
            file[f"depth_{part}"] = np.stack([f[1][None] for f in frames]).astype(np.float32)
            file[f"label_{part}"] = np.stack([f[2] for f in frames]).astype(np.int64)
            file[f"class_{part}"] = np.array(scenes[part])
    command("prepared", "nyu.h5", "out")
    train = Reader(tmp_path / "out" / "trainval")
    check(train, range(10), [scene - 1 for scene in scenes["train"]])
    check(Reader(tmp_path / "out" / "test"), range(100, 103), [9, 0, 4])
    assert train.info["scenes"][9] == "others"


def test_bad_input_is_named(sun, command, tmp_path):
    (sun / "seglabel-224" / "2.png").unlink()
    assert "seglabel-224/2.png: No such file" in command("prepared", sun, "out", code=1).stderr
    (sun / "splits.pkl").write_bytes(pickle.dumps({"test": np.arange(2)}))
    assert "expected the splits trainval" in command("prepared", sun, "out", code=1).stderr
    (sun / "splits.pkl").unlink()
    assert "has no splits.pkl" in command("prepared", sun, "out", code=1).stderr
    (tmp_path / "x").write_text("something")
    assert "x: neither a folder nor" in command("prepared", "x", "out", code=1).stderr
    with h5py.File(tmp_path / "e.h5", "w"):
        pass
    assert "has no variable 'rgb_train'" in command("prepared", "e.h5", "out", code=1).stderr
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["rgb"] = np.zeros((1, 3, 2, 2), np.uint8)
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file["rgb_train"] = h5py.ExternalLink("other.h5", "rgb")
    assert "e.h5: 'rgb_train' is a link" in command("prepared", "e.h5", "out", code=1).stderr
    np.save(tmp_path / "n.npy", {"rgb_images": [1]})
    assert "n.npy: expected a dictionary" in command("prepared", "n.npy", "out", code=1).stderr
