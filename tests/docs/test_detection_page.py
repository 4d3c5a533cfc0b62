"""docs/detection.md: its program for SSD runs, and prints the boxes that the net finds."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

import caffe

ROOT = Path(__file__).parents[2]


def test_the_program_runs(tmp_path, monkeypatch, capsys) -> None:
    """Without weights all places say what a bias says: here column, and no shift of the box."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import ssd

    monkeypatch.chdir(tmp_path)
    Path("deploy.prototxt").write_text(str(ssd.deploy_net()))
    net = caffe.Net("deploy.prototxt", caffe.TEST)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = 0
    net.params["source4_conf"][1].data[3] = 9
    net.save("ssd.caffemodel")
    assert cv2.imwrite("picture.jpg", np.zeros((60, 240, 3), np.uint8))
    page = (ROOT / "docs" / "detection.md").read_text(encoding="utf-8")
    capsys.readouterr()
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], {})
    # The first box of the last source is 84 pixels wide; its places, 2 x 2 over 120 pixels, have
    # their middles at 30 and 90. The picture is twice as wide, and half as high.
    lines = capsys.readouterr().out.splitlines()
    assert "3 1.00: -24,-6 to 144,36" in lines
    assert "3 1.00: 96,24 to 264,66" in lines
