"""State dicts out of torch.save's files, and the answer for each other kind of file."""

from __future__ import annotations

import argparse
import os
import re

import numpy as np
import pytest
import torch

from boundary.checkpoint import read_state_dict
from caffe.export.state_dict import read_state_dict as engines
from data_tools.cli import DataError
from data_tools.unpickle import load_state_dict as tools


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(2, 3)

    def forward(self, x):
        return self.fc(x)


@pytest.fixture
def model():
    return Model()


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("wrap", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("kind", ["state_dict", "named_parameters"])
def test_what_is_read(model, tmp_path, kind, wrap, old):
    state = dict(getattr(model, kind)())
    content = {"epoch": 3, wrap: state} if wrap else state
    torch.save(content, tmp_path / "m.pth", _use_new_zipfile_serialization=not old)
    found = read_state_dict(tmp_path / "m.pth", DataError)
    assert list(found) == ["fc.weight", "fc.bias"]
    for key, values in found.items():
        assert type(values) is torch.Tensor
        assert not values.requires_grad
        np.testing.assert_array_equal(values.numpy(), state[key].detach().numpy())


class Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def saved(kind, folder):
    """A file of that kind."""
    model, path = Model(), folder / "m.pth"
    state = model.state_dict()
    content = {
        "model": model,
        "layer": model.fc,
        "numpy": {key: values.numpy() for key, values in state.items()},
        "namespace": {"state_dict": state, "args": argparse.Namespace(rate=1)},
        "code": {"w": Runs(folder / "ran")},
        "optimizer": torch.optim.SGD(model.parameters(), 0.1).state_dict(),
        "tensor": torch.ones(3),
        "list": [torch.ones(3)],
        "words": {"epoch": 3, "loss": 0.5},
        "sparse": {"w": torch.eye(3).to_sparse()},
        "complex": {"w": torch.ones(2, dtype=torch.complex64)},
        "meta": {"w": torch.ones(2, device="meta")},
        "expanded": {"w": torch.ones(1).expand(1 << 40)},
    }
    if kind in content:
        torch.save(content[kind], path)
    elif kind == "script":
        torch.jit.script(model).save(path)
    elif kind == "cut":
        torch.save(state, path)
        path.write_bytes(path.read_bytes()[:-200])
    else:
        header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
        path.write_bytes(
            {
                "empty": b"",
                "text": b"hello there",
                "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(99),
                "zip": b"PK\x05\x06" + bytes(18),
                "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n",
                "safetensors": len(header).to_bytes(8, "little") + header + bytes(4),
            }[kind]
        )
    return path


ANSWERS = {
    "model": "it holds an object of {here}.Model, as a whole pickled model does, which only code "
    "could load; save model.state_dict() instead",
    "layer": "it holds an object of torch.nn.modules.linear.Linear, as a whole pickled model does",
    "numpy": "it holds NumPy arrays or numbers; save tensors instead (torch.from_numpy)",
    "namespace": "it holds an object of argparse.Namespace, ",
    "code": "it holds an object of {os}.mkdir, ",
    "optimizer": "expected tensors by name, found an optimizer's state; save model.state_dict()",
    "tensor": "expected tensors by name, found a Tensor",
    "list": "expected tensors by name, found a list",
    "words": "expected tensors by name, found 'epoch', 'loss'",
    "script": "it is a TorchScript archive, which is code; save torch.jit.load(FILE).state_dict()",
    "cut": "it is damaged (",
    "empty": "the file is empty",
    "text": "it is no file of torch.save's",
    "hdf5": "it is no file of torch.save's",
    "zip": "it is damaged (",
    "pointer": "it is Git LFS's pointer to the file; fetch the file itself (git lfs pull)",
    "safetensors": "it is a safetensors file; save it by torch.save(safetensors.torch.load_file(",
}
UNUSABLE = {
    "sparse": "w: a sparse tensor; save values.to_dense()",
    "complex": "w: complex numbers, expected real ones",
    "meta": "w: a tensor without values (on the device 'meta')",
    "expanded": "w: shape (1099511627776,), of which the file does not hold every value",
}


@pytest.mark.parametrize("kind", [*ANSWERS, *UNUSABLE])
def test_other_files_are_answered(kind, tmp_path):
    path = saved(kind, tmp_path)
    said = f"no state dict: {ANSWERS[kind]}" if kind in ANSWERS else UNUSABLE[kind]
    said = said.replace("{here}", __name__).replace("{os}", os.mkdir.__module__)
    with pytest.raises(DataError, match=f"^{re.escape(f'{path}: {said}')}") as info:
        read_state_dict(path, DataError)
    assert "\n" not in str(info.value)
    assert len(str(info.value)) < 300 + len(str(path))
    assert not (tmp_path / "ran").exists()


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"m\.pth: No such file"):
        read_state_dict(tmp_path / "m.pth", DataError)


@pytest.mark.parametrize("read", [engines, tools])
@pytest.mark.parametrize("version", ["2.4.0", "2.5.1+cu121", "2.9.1", "2.10.0a0+git1"])
def test_old_pytorchs_read_none(model, tmp_path, monkeypatch, version, read):
    """Their weights_only could be made to run code."""
    torch.save(model.state_dict(), tmp_path / "m.pth")
    monkeypatch.setattr(torch, "load", None)
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(
        (RuntimeError, ValueError),
        match=rf"m\.pth: PyTorch {re.escape(version)} could be made to run code by such a file .*"
        r"it is read with PyTorch 2\.10 or newer$",
    ):
        read(tmp_path / "m.pth")


@pytest.mark.parametrize("version", ["2.10.0", "2.13.0+cpu", "3.0"])
def test_new_pytorchs_read_it(model, tmp_path, monkeypatch, version):
    torch.save(model.state_dict(), tmp_path / "m.pth")
    monkeypatch.setattr(torch, "__version__", version)
    assert tools(tmp_path / "m.pth")["fc.weight"].dtype == np.float64
