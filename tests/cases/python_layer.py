"""Cases of the layer in caffe/layers/python_layer.py."""

from __future__ import annotations

import random
from pathlib import Path

from cases import Case, row, shape
from cases.data import more_tops

MODULE = '''\
import caffe


class Sums(caffe.Layer):
    """Each top is the sum of all bottoms and of param_str; without bottoms, 2 x 3 of it."""

    def setup(self, bottom, top):
        self.shift = float(self.param_str or 0)
        for blob in top:
            blob.reshape(2, 3)

    def reshape(self, bottom, top):
        for blob in top if bottom else ():
            blob.reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        for blob in top:
            blob.data[...] = sum(b.data for b in bottom) + self.shift

    def backward(self, top, propagate_down, bottom):
        for blob, wanted in zip(bottom, propagate_down):
            if wanted:
                blob.diff[...] = sum(t.diff for t in top)
'''


def write_module() -> None:
    """The module of the class that the cases name."""
    Path("drawn_python_layer.py").write_text(MODULE)


@row("Python", 'python_param { module: "my_layers" layer: "Sums" param_str: "0.5" }', (), False)
def by_the_user(rng: random.Random, name: str) -> Case:
    text = 'module: "drawn_python_layer" layer: "Sums"'
    if rng.random() < 0.7:
        text += f' param_str: "{rng.uniform(-1, 1)}"'
    bottoms = [shape(rng, 0, 4)] * rng.randint(0, 3)
    text = f"{more_tops(rng.randint(1, 2))} python_param {{ {text} }}"
    return Case(text, bottoms, files=write_module)
