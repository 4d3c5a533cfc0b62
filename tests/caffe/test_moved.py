"""Names that users import: former module names, with a warning, and those that stay."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

import caffe
from boundary.late import Late
from caffe.moved import MOVED

# What a script took from each former module, and the module that has it now.
FORMER = {
    "caffe.augment": {"Augmentation": "caffe.data.augment"},
    "caffe.cli": {"main": "caffe.commands.cli", "time_model": "caffe.commands.cli"},
    "caffe.dataset": {"LMDBDataset": "caffe.data.dataset"},
    "caffe.db": {"Database": "caffe.formats.db", "create": "caffe.formats.db"},
    "caffe.deploy": {"PreparedConvolution": "caffe.plan.prepared"},
    "caffe.device": {
        "set_mode_gpu": "caffe.process.device",
        "current_device": "caffe.process.device",
        "process_seed": "caffe.process.seeds",
        "set_random_seed": "caffe.process.seeds",
        "solver_rank": "caffe.process.ranks",
        "root_solver": "caffe.process.ranks",
    },
    "caffe.distributed": {"PeerLost": "caffe.process.peers", "join": "caffe.process.peers"},
    "caffe.execution": {
        "set_precision": "caffe.process.execution",
        "lasting_memory": "caffe.process.memory",
    },
    "caffe.files": {
        "read_net": "caffe.formats.files",
        "read_weights": "caffe.formats.files",
        "write_weights_hdf5": "caffe.formats.files",
    },
    "caffe.fillers": {"fill": "caffe.layers.fillers"},
    "caffe.flags": {"parse": "caffe.commands.flags", "FlagError": "caffe.commands.flags"},
    "caffe.fused": {"Convolving": "caffe.kernels.fused"},
    "caffe.launch": {"run_processes": "caffe.train.launch"},
    "caffe.learning_rate": {"LearningRate": "caffe.solver.learning_rate"},
    "caffe.module": {"to_module": "caffe.export.module", "NetModule": "caffe.export.module"},
    "caffe.nccl": {"NCCL": "caffe.train.allreduce", "has_nccl": "caffe.train.allreduce"},
    "caffe.onnx_graph": {"write_graph": "caffe.export.onnx", "Graph": "caffe.formats.onnx"},
    "caffe.prototext": {"parse": "caffe.formats.prototext", "text": "caffe.formats.prototext"},
    "caffe.resume": {"capture": "caffe.solver.resume", "side_file": "caffe.solver.resume"},
    "caffe.script": {"run": "caffe.commands.script"},
    "caffe.signals": {"SignalRequests": "caffe.process.signals"},
    "caffe.snapshots": {"latest_snapshot": "caffe.solver.snapshots"},
    "caffe.state_dict": {"load_state_dict": "caffe.export.state_dict"},
    "caffe.sync_bn": {"sync_batch_norm": "caffe.kernels.sync_bn"},
    "caffe.training": {"train": "caffe.train.training", "Run": "caffe.train.training"},
    "caffe.updates": {"SGD": "caffe.solver.updates", "Adam": "caffe.solver.updates"},
    "caffe.upgrade": {"upgrade_net": "caffe.formats.upgrade"},
    "caffe.winograd": {"convolve": "caffe.kernels.winograd"},
    "caffe.wire": {"index": "caffe.formats.wire", "shape": "caffe.formats.wire"},
}


@pytest.fixture
def forgotten() -> Iterator[None]:
    """No former module is loaded, neither before the test nor after it."""

    def forget() -> None:
        for name in MOVED:
            sys.modules.pop(name, None)
            vars(caffe).pop(name.removeprefix("caffe."), None)

    forget()
    yield
    forget()


def test_every_former_module_is_tried() -> None:
    assert FORMER.keys() == MOVED.keys()
    for former, names in FORMER.items():
        assert set(names.values()) == set(MOVED[former])


@pytest.mark.parametrize("former", MOVED)
def test_a_former_module_warns_and_has_the_same_objects(former: str, forgotten: None) -> None:
    homes = " and ".join(MOVED[former])
    with pytest.warns(DeprecationWarning, match=rf"^{former} is now {homes}$") as caught:
        found = importlib.import_module(former)
    assert len(caught) == 1
    for name, home in FORMER[former].items():
        assert getattr(found, name) is getattr(importlib.import_module(home), name)
    for home in MOVED[former]:
        for name, value in vars(importlib.import_module(home)).items():
            ours = not (name.startswith("_") or isinstance(value, Late))
            assert not ours or getattr(found, name) is value


def test_the_warning_names_the_line_of_the_import(forgotten: None) -> None:
    with pytest.warns(DeprecationWarning, match="caffe.formats.files") as caught:
        from caffe.files import read_net  # noqa: F401
    assert caught[0].filename == __file__


def run_python(*arguments: str) -> tuple[int, str, str]:
    """The status of a fresh interpreter, what it prints, and what it logs or warns of."""
    command = [sys.executable, "-W", "always::DeprecationWarning:__main__", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    return done.returncode, done.stdout, done.stderr


def test_importing_caffe_loads_neither_former_modules_nor_their_new_ones() -> None:
    code = (
        "import sys, caffe\n"
        "print(sorted(name for name in sys.modules if name.partition('.')[0] == 'caffe'))\n"
        "caffe.Net, caffe.get_solver, caffe.NCCL, caffe.to_module, caffe.io, caffe.layers\n"
        "print([name for name in caffe.moved.MOVED if name in sys.modules])\n"
    )
    assert run_python("-c", code) == (0, "['caffe', 'caffe.moved']\n[]\n", "")


def test_a_module_that_never_was_is_still_missing() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'caffe\.nix'"):
        importlib.import_module("caffe.nix")


@pytest.mark.parametrize(
    "code",
    [
        "import caffe; caffe.Net, caffe.SGDSolver, caffe.get_solver",
        "import caffe; caffe.io.load_image, caffe.io.Transformer",
        "import caffe.io; caffe.io.blobproto_to_array",
        "from caffe.io import datum_to_array",
        "import caffe; caffe.net_spec.NetSpec, caffe.NetSpec, caffe.to_proto",
        "from caffe.net_spec import NetSpec",
        "from caffe import layers as L, params as P; L.Pooling(pool=P.Pooling.MAX)",
        "import caffe; caffe.layers.ReLU, caffe.params.Pooling.MAX",
        "import caffe; caffe.proto.caffe_pb2.NetParameter",
        "from caffe.proto import caffe_pb2; caffe_pb2.Datum",
        "import caffe.draw; caffe.draw.draw_net_to_file",
        "import caffe; caffe.draw.get_pydot_graph",
        "import caffe; caffe.coord_map.crop",
        "from caffe.coord_map import coord_map_from_to, crop",
        "import caffe; caffe.classifier.Classifier is caffe.Classifier or 1 / 0",
        "from caffe.detector import Detector; import caffe; Detector is caffe.Detector or 1 / 0",
        "import caffe; caffe.log.__call__",
        "import caffe; caffe.Timer().start",
        "import caffe; caffe.NCCL.new_uid",
        "import caffe; caffe.convert.main",
        "import caffe; caffe.data.LMDBDataset.__getitem__",
        "from caffe.layers.base import Layer; Layer.infer_shapes",
        "from caffe.layers import Layer, register",
        *(
            f"from caffe.tools.{tool} import main"
            for tool in (
                "classify",
                "compute_image_mean",
                "convert_imageset",
                "detect",
                "draw_net",
                "train",
                "upgrade_net_proto_binary",
                "upgrade_net_proto_text",
                "upgrade_solver_proto_text",
            )
        ),
    ],
)
def test_names_that_stay(code: str) -> None:
    """Each in a fresh process, without a warning."""
    assert run_python("-c", code) == (0, "", "")


@pytest.mark.parametrize("module", ["caffe", "caffe.convert", "caffe.tools.draw_net"])
def test_commands_that_stay(module: str) -> None:
    status, out, err = run_python("-m", module, "--help")
    assert status == 0
    assert "usage" in (out + err).lower()
