"""The caffe command: what it runs, what it prints where, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import caffe
from caffe.commands.cli import main
from caffe.formats import db, files
from caffe.process import log
from caffe.proto import caffe_pb2 as pb
from netgen import Architecture, Training, deploy_net, train_net

pytestmark = pytest.mark.usefixtures("fresh")

NET = """name: "small"
layer { name: "data" type: "Data" top: "x" top: "label"
  data_param { source: "lmdb" backend: LMDB batch_size: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.01 } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy"
  include { phase: TEST } }
layer { name: "aside" type: "Power" bottom: "ip" top: "aside" include { stage: "show" } }
layer { name: "deep" type: "Power" bottom: "ip" top: "deep" include { min_level: 2 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """net: "net.prototxt" base_lr: 0.001 lr_policy: "fixed" max_iter: 4 display: 2
snapshot_prefix: "out" random_seed: 1
"""


@pytest.fixture
def folder(own_folder: Path) -> Path:
    """A folder with a net, a solver and an LMDB, as the working directory."""
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(SOLVER)
    _records("lmdb", [(np.full((3, 4, 4), 10 * i, np.uint8), i % 3) for i in range(6)])
    return own_folder


def _records(name: str, items: list[tuple[np.ndarray, int]]) -> None:
    with db.create(name) as put:
        for i, (array, label) in enumerate(items):
            datum = pb.Datum(label=label, data=array.tobytes())
            datum.channels, datum.height, datum.width = array.shape
            put(b"%04d" % i, datum.SerializeToString())


@pytest.fixture
def say(folder: Path, capsys) -> Callable[[str], tuple[int, str, list[str]]]:
    """say(line): exit status, stdout, and stderr's lines without the log's prefixes, and without
    what the reading thread says at any time.
    """

    def run(line: str) -> tuple[int, str, list[str]]:
        capsys.readouterr()
        status = main(line.split())
        out, err = capsys.readouterr()
        lines = [line for line in err.splitlines() if "Restarting data" not in line]
        return status, out, [re.sub(r"^[IWE]\d{4} .*?\] ", "", line) for line in lines]

    return run


# -- train ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["-solver solver.prototxt", "--solver=solver.prototxt"])
def test_train(say, folder: Path, form: str) -> None:
    status, out, lines = say(f"train {form}")
    assert (status, out) == (0, "")
    assert lines[0] == "Use CPU."
    assert "Optimization Done." in lines
    assert (folder / "out_iter_4.caffemodel").is_file()
    assert (folder / "out_iter_4.solverstate").is_file()


def test_weights_of_several_files(say, folder: Path) -> None:
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    for value, name in ((1, "a"), (2, "b")):
        net.params["ip"][0].data[...] = value
        net.save(name)
    Path("solver.prototxt").write_text(SOLVER.replace("0.001", "0"))
    status, _, lines = say("train -solver solver.prototxt -weights a,b")
    assert status == 0
    assert [line for line in lines if "Finetuning" in line] == [
        "Finetuning from a",
        "Finetuning from b",
    ]
    assert (files.read_weights("out_iter_4.caffemodel")["ip"][0] == 2).all()


# A head on an encoder, whose layers learn unless they say otherwise.
HEADED = """
layer { name: "data" type: "Data" top: "x" top: "label"
  data_param { source: "lmdb" backend: LMDB batch_size: 2 } transform_param { scale: 0.01 } }
layer { name: "frozen" type: "InnerProduct" bottom: "x" top: "f" param { lr_mult: 0 }
  param { lr_mult: 0 } inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "body" type: "InnerProduct" bottom: "f" top: "b" inner_product_param {
  num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "score" type: "InnerProduct" bottom: "b" top: "score" inner_product_param {
  num_output: 3 weight_filler { type: "constant" value: 0.5 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
"""


@pytest.mark.parametrize("outputs", [7, 3], ids=["another shape", "the same shape"])
def test_fresh_layers_start_by_their_fillers(say, folder: Path, outputs: int) -> None:
    """What changed after 0 and after 10 iterations, against the file that training starts from."""
    Path("old.prototxt").write_text(HEADED.replace("num_output: 3", f"num_output: {outputs}"))
    caffe.set_random_seed(5)
    old = caffe.Net("old.prototxt", caffe.TRAIN)
    for blobs in old.params.values():
        blobs[0].data[...] += 1  # as no filler has them
        blobs[1].data[...] = 0.25
    old.save("old.caffemodel")
    Path("net.prototxt").write_text(HEADED)

    def differ(iterations: int) -> set[str]:
        """The parameters that are not the old net's."""
        text = SOLVER.replace("max_iter: 4", f"max_iter: {iterations} test_iter: 1")
        Path("solver.prototxt").write_text(text + "test_interval: 99")
        status, _, lines = say("train -solver solver.prototxt -weights old.caffemodel -fresh sc?re")
        assert status == 0
        assert (
            lines.count("Fresh, whatever old.caffemodel has for them: score") == 2
        )  # and the test net
        new = files.read_weights(f"out_iter_{iterations}.caffemodel")
        return {
            f"{name} {i}"
            for name, blobs in old.params.items()
            for i, blob in enumerate(blobs)
            if not np.array_equal(blob.data, new[name][i])
        }

    assert differ(0) == {"score 0", "score 1"}
    untrained = files.read_weights("out_iter_0.caffemodel")["score"]
    assert (untrained[0] == 0.5).all()
    assert (untrained[1] == 0).all()
    assert differ(10) == {"body 0", "body 1", "score 0", "score 1"}
    trained = files.read_weights("out_iter_10.caffemodel")["score"]
    assert not any(np.array_equal(a, b) for a, b in zip(trained, untrained, strict=True))


def test_fresh_is_for_the_beginning_only(say, folder: Path) -> None:
    """Beside -snapshot latest it counts where there is no snapshot."""
    Path("net.prototxt").write_text(HEADED)
    caffe.Net("net.prototxt", caffe.TRAIN).save("old.caffemodel")
    command = "train -solver solver.prototxt -weights old.caffemodel -fresh score -snapshot latest"
    status, _, lines = say(command)
    assert (status, "Fresh, whatever old.caffemodel has for them: score" in lines) == (0, True)
    head = files.read_weights("out_iter_4.caffemodel")["score"]
    status, _, lines = say(command)
    assert (status, any(line.startswith("Fresh") for line in lines)) == (0, False)
    again = files.read_weights("out_iter_4.caffemodel")["score"]
    assert all(np.array_equal(a, b) for a, b in zip(head, again, strict=True))


def test_snapshot_goes_on(say, folder: Path) -> None:
    whole = SOLVER.replace("max_iter: 4", "max_iter: 6 snapshot: 3 momentum: 0.9")
    Path("solver.prototxt").write_text(whole)
    say("train -solver solver.prototxt")
    unbroken = files.read_weights("out_iter_6.caffemodel")["ip"][0]
    Path("out_iter_6.caffemodel").unlink()
    status, _, lines = say("train -solver solver.prototxt -snapshot out_iter_3.solverstate")
    assert status == 0
    assert "Resuming from out_iter_3.solverstate" in lines
    # 3 iterations of 2 are the 6 records: the data, too, starts where it would go on
    assert np.array_equal(files.read_weights("out_iter_6.caffemodel")["ip"][0], unbroken)


def test_level_and_stage(say, folder: Path) -> None:
    for flags, extra in (("", set()), ("-stage show", {"aside"}), ("-level 2", {"deep"})):
        for command in ("train -solver solver.prototxt", "time -model net.prototxt -iterations 1"):
            _, _, lines = say(f"{command} {flags}")
            outputs = {line.split()[-1] for line in lines if "produces output" in line}
            assert outputs == {"loss", *extra} if extra else {"loss"}


def test_sigint_of_a_running_command(folder: Path) -> None:
    Path("solver.prototxt").write_text(SOLVER.replace("max_iter: 4", "max_iter: 100000000"))
    command = [sys.executable, "-m", "caffe", "train", "-solver", "solver.prototxt"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(60, process.kill)  # should it not heed the signals
        watchdog.start()
        assert any("Iteration 2 " in line for line in process.stderr)
        process.send_signal(signal.SIGHUP)
        while process.poll() is None and not list(folder.glob("out_iter_*.solverstate")):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        lines = process.stderr.readlines()
        watchdog.cancel()
    assert process.returncode == 0
    states = sorted(folder.glob("out_iter_*.solverstate"))
    assert len(states) == 2  # at SIGHUP, and after SIGINT
    assert [line.split("] ")[1].strip() for line in lines if "] " in line][-2:] == [
        "Optimization stopped early.",
        "Optimization Done.",
    ]


# -- test and time --------------------------------------------------------------------------------


def test_test(say, folder: Path) -> None:
    net = caffe.Net("net.prototxt", caffe.TEST)
    net.params["ip"][0].data[...] = 0
    net.params["ip"][1].data[...] = [3, 2, 1]  # always class 0: right for records 0 and 3
    net.save("weights")
    status, out, lines = say("test -model net.prototxt -weights weights -iterations 3")
    assert (status, out) == (0, "")
    start = lines.index("Running for 3 iterations.")
    first = np.log(np.exp([0, -1, -2]).sum())  # -log softmax of class 0; 1 and 2 more for 1 and 2
    losses = [first + 0.5, first + 1, first + 1.5]
    assert lines[start + 1 : start + 3] == [
        "Batch 0, accuracy = 0.5",
        f"Batch 0, loss = {losses[0]:g}",
    ]
    mean = f"{np.mean(losses):g}"
    assert lines[-3:] == [
        f"Loss: {mean}",
        "accuracy = 0.333333",
        f"loss = {mean} (* 1 = {mean} loss)",
    ]


def test_test_tells_figures_of_all_batches(say, folder: Path) -> None:
    """Batches of the labels 0, 1 and 2, 0: the constant answer 0 is right for half of each."""
    with open("net.prototxt", "a") as file:
        file.write("""layer { name: "maps" type: "Reshape" bottom: "ip" top: "maps"
              reshape_param { shape { dim: 0 dim: 0 dim: 1 dim: 1 } } }
            layer { name: "one" type: "Reshape" bottom: "label" top: "one"
              reshape_param { shape { dim: 0 dim: 1 dim: 1 dim: 1 } } }
            layer { name: "iou" type: "SegmentationAccuracy" bottom: "maps" bottom: "one"
              top: "right" top: "mean" top: "iou" }""")
    net = caffe.Net("net.prototxt", caffe.TEST)
    net.params["ip"][0].data[...] = 0
    net.params["ip"][1].data[...] = [3, 2, 1]  # always class 0
    net.save("weights")
    _, _, lines = say("test -model net.prototxt -weights weights -iterations 2")
    told = [line for line in lines if re.search("right|mean|iou", line) and " = " in line]
    # Labels 0, 1: class 0 has all its pixels right and a union of 2. Then 2, 0: of 2 and of 4.
    assert told == [
        *("Batch 0, iou = 0.25", "Batch 0, mean = 0.5", "Batch 0, right = 0.5"),
        *("Batch 1, iou = 0.166667", "Batch 1, mean = 0.333333", "Batch 1, right = 0.5"),
        *("iou = 0.166667", "mean = 0.333333", "right = 0.5"),
    ]


def _zero(folder: Path) -> None:
    """Weights by which all scores are equal."""
    net = caffe.Net(str(folder / "net.prototxt"), caffe.TEST)
    for blob in net.params["ip"]:
        blob.data[...] = 0
    net.save(str(folder / "zero.caffemodel"))


@pytest.mark.parametrize("quiet", ["", " -minloglevel 1 -v 1"])
def test_test_by_an_engine(say, folder: Path, quiet: str) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    _zero(folder)
    command = "test -model net.prototxt -weights zero.caffemodel -iterations 2"
    wanted = say(command)[2]
    status, _, lines = say(f"{command} -engine onnxruntime{quiet}")
    told = "Net 'small', inputs 2x3x4x4, 1 thread: onnxruntime computes 1 of 6 layers"
    assert status == 0
    if quiet:
        assert lines == [told]
    else:
        assert told in lines
        assert lines[-3:] == wanted[-3:]


def test_time_of_an_engine(say, folder: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    _zero(folder)
    command = "time -model net.prototxt -weights zero.caffemodel -iterations 1"
    status, _, lines = say(f"{command} -engine onnxruntime")
    assert status == 0
    assert "Initial loss: 1.09861" in lines  # ln 3
    timed = [line.split("\t")[0].strip() for line in lines if "\tforward" in line]
    assert timed == ["data", "onnxruntime", "accuracy", "loss"]


def test_time_takes_weights(say, folder: Path) -> None:
    _zero(folder)
    command = "time -model net.prototxt -iterations 1 -phase TEST"
    status, _, lines = say(f"{command} -weights zero.caffemodel")
    assert status == 0
    (loss,) = (line for line in lines if line.startswith("Initial loss"))
    assert loss == "Initial loss: 1.09861"  # ln 3: all scores are equal
    status, _, _ = say(f"{command} -weights none.caffemodel")
    assert status == 1


def test_time_uses_the_threads_of_whole_passes(
    say, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from caffe.commands import cli

    seen: list[int] = []
    monkeypatch.setattr(cli, "_time_layers", lambda *_: seen.append(torch.get_num_threads()))
    torch.set_num_threads(2)
    status, _, _ = say("time -model net.prototxt -iterations 2 -phase TEST")
    assert (status, seen) == (0, [1, 1])  # the net is a little one


def test_time(say, folder: Path) -> None:
    status, _, lines = say("time -model net.prototxt -iterations 2 -phase TEST")
    assert status == 0
    text = "\n".join(lines[lines.index("Performing Forward") :])
    number = r"[\d.e+-]+"
    layers = ["      data", "label_data_1_split", "        ip", "ip_ip_0_split", "  accuracy",
              "      loss"]  # fmt: skip
    per_layer = "\n".join(
        rf"{name}\tforward: {number} ms\.\n{name}\tbackward: {number} ms\." for name in layers
    )
    assert re.fullmatch(
        rf"Performing Forward\nInitial loss: {number}\nPerforming Backward\n"
        r"\*\*\* Benchmark begins \*\*\*\nTesting for 2 iterations\.\n"
        rf"Iteration: 1 forward-backward time: {number} ms\.\n"
        rf"Iteration: 2 forward-backward time: {number} ms\.\n"
        rf"Average time per layer: \n{per_layer}\n"
        rf"Average Forward pass: {number} ms\.\nAverage Backward pass: {number} ms\.\n"
        rf"Average Forward-Backward: {number} ms\.\nTotal Time: {number} ms\.\n"
        r"\*\*\* Benchmark ends \*\*\*",
        text,
    )


def test_device_query_without_devices(say) -> None:
    assert say("device_query") == (0, "", ["Querying GPUs "])


# -- bad input: exit 1 and one line ---------------------------------------------------------------

TRAIN = "train -solver solver.prototxt"


def _typo() -> None:
    Path("net.prototxt").write_text(NET.replace("num_output", "num_outputs"))


def _missing_lmdb() -> None:
    Path("net.prototxt").write_text(NET.replace('"lmdb"', '"nowhere"'))


def _wrong_channels() -> None:
    cut = 'layer { name: "cut" type: "Slice" bottom: "x" top: "rgb" top: "rest" '
    Path("net.prototxt").write_text(NET + cut + "slice_param { slice_point: 4 } }")


def _one_wrong_record() -> None:
    _records("bad", [(np.zeros((c, 4, 4), np.uint8), 0) for c in (3, 3, 3, 1)])
    Path("net.prototxt").write_text(NET.replace('"lmdb"', '"bad"'))


def _unknown_bottom() -> None:
    Path("net.prototxt").write_text(NET.replace('bottom: "ip" bottom', 'bottom: "pi" bottom'))


def _label_out_of_range() -> None:
    _records("bad", [(np.zeros((3, 4, 4), np.uint8), label) for label in (0, 3)])
    Path("net.prototxt").write_text(NET.replace('"lmdb"', '"bad"'))


def _other_weights() -> None:
    Path("other").write_text(NET.replace("num_output: 3", "num_output: 4"))
    caffe.Net("other", caffe.TRAIN).save("weights")


def _gpu_solver() -> None:
    Path("solver.prototxt").write_text(SOLVER + "solver_mode: GPU")


def _unwritable() -> None:
    Path("solver.prototxt").write_text(SOLVER.replace('"out"', '"nowhere/out"'))


def _nothing() -> None:
    """The input is good; the command line is not."""


BAD_INPUT = [
    (_typo, TRAIN, r'net\.prototxt:5:25: InnerProductParameter has no field "num_outputs" '
     r'\(did you mean "num_output"\?\)'),
    (_missing_lmdb, TRAIN, r"layer 'data' \(Data\): nowhere: No such file or directory"),
    (_wrong_channels, TRAIN, r"layer 'cut' \(Slice\): slice_point \[4\] must rise within the 3 of "
     "axis 1"),
    (_one_wrong_record, TRAIN, r"layer 'data' \(Data\): bad: record b'0003': it is 1 x 4 x 4, "
     r"others in its batch are 3 x 4 x 4 \(channels x height x width\)"),
    (_unknown_bottom, TRAIN, r"layer 'loss': unknown bottom blob 'pi' \(bottom 0\); no layer .*"),
    (_label_out_of_range, TRAIN, r"layer 'loss' \(SoftmaxWithLoss\): label 3 is out of range, "
     "expected 0 to 2, the 3 classes of the scores"),
    (_other_weights, TRAIN + " -weights weights", r"weights: layer 'ip', parameter blob 0: shape "
     r"mismatch: the file has 4 48 \(192\), the net 3 48 \(144\); to learn this layer from "
     r"scratch: -fresh ip, in Python fresh=\['ip'\]"),
    (_other_weights, TRAIN + " -weights weights -fresh pi", "fresh: no layer with weights is named "
     "'pi'; they are: ip"),
    (_nothing, TRAIN + " -weights nowhere", "nowhere: No such file or directory"),
    (_nothing, TRAIN + " -snapshot net.prototxt", r"net\.prototxt: .*"),
    (_nothing, "train -solver nowhere", "nowhere: No such file or directory"),
    (_unwritable, TRAIN, r"solver: cannot write to snapshot prefix 'nowhere/out' \(No such .*"),
    (_nothing, TRAIN + " -sigint_effect quit", 'Invalid signal effect "quit" was specified: .*'),
    (_nothing, TRAIN + " -log_dir nowhere", "-log_dir nowhere: no such directory"),
    (_nothing, "test -model nowhere -weights w", "nowhere: No such file or directory"),
    (_nothing, "time -model solver.prototxt", r"solver\.prototxt:1:1: NetParameter has no field "
     '"net".*'),
]  # fmt: skip
NO_GPU = [
    (_nothing, TRAIN + " -gpu 0", "GPU 0 was asked for, but PyTorch .* sees no CUDA device; .*"),
    (_nothing, TRAIN + " -gpu all", "GPU 0 was asked for, but PyTorch .* sees no CUDA device; .*"),
    (_nothing, TRAIN + " -gpu 1,2", "GPU 1 was asked for, but PyTorch .* sees no CUDA device; .*"),
    (_nothing, "time -model net.prototxt -gpu 0", "GPU 0 was asked for, but .*"),
    (_nothing, "device_query -gpu 0", "GPU 0 was asked for, but .*"),
    (_gpu_solver, TRAIN, r"solver\.prototxt: solver_mode is GPU: GPU 0 was asked for, but .*"),
]
if not torch.cuda.is_available():
    BAD_INPUT += NO_GPU


@pytest.mark.parametrize(("spoil", "line", "message"), BAD_INPUT)
def test_bad_input(say, monkeypatch, spoil, line: str, message: str) -> None:
    monkeypatch.setattr(log._sink, "min_level", 3)
    spoil()
    status, out, lines = say(line)
    assert (status, out, len(lines)) == (1, "", 1), lines
    assert re.fullmatch(f"caffe: {message}", lines[0]), lines[0]


def test_what_nobody_foresaw_is_one_line_too(say, monkeypatch) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("not enough memory: you tried too much\nmore\nand more")

    monkeypatch.setattr(log._sink, "min_level", 3)
    monkeypatch.setattr(caffe.SGDSolver, "solve", fail)
    status, out, lines = say(TRAIN)
    assert (status, out, len(lines)) == (1, "", 1)
    message = r"caffe: RuntimeError: not enough memory: you tried too much \(test_cli.py:\d+\)"
    assert re.fullmatch(message, lines[0])


# -- bad usage: exit 2 ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "expected one command, got none"),
        ("train test", "expected one command, got train test"),
        ("trian", "unknown command 'trian'; expected one of device_query, test, time, train"),
        ("train", "train: a solver definition is needed: -solver"),
        (TRAIN + " -weights a -snapshot b", "give a -snapshot to resume training, or -weights"),
        (TRAIN + " -fresh ip", "-fresh is about -weights: give both"),
        (TRAIN + " -fresh ip -snapshot a", "-fresh is about -weights: give both"),
        ("test -model m", "test: model weights is needed: -weights"),
        ("test -weights w", "test: a model definition is needed: -model"),
        ("test -model m -weights w -iterations 0", "test: a positive number is needed: -iter"),
        ("time", "time: a model definition is needed: -model"),
        ("time -model m -phase VAL", '-phase VAL: phase must be "TRAIN" or "TEST"'),
        (
            "time -model m -engine x",
            "-engine x: expected one of auto, torch, openvino",
        ),
        (
            "time -model m -phase TRAIN -engine auto",
            "-engine auto computes nets in phase TEST",
        ),
        (TRAIN + " -engine auto", "-engine is for 'test' and 'time'"),
        (TRAIN + " -gpu x", "-gpu x: expected 'all', or numbers separated by ','"),
        (TRAIN + " -gpu 0 -cpu 2", "give -gpu or -cpu, but not both"),
        (TRAIN + " -cpu -1", "-cpu -1: expected the number of processes, at least 1"),
        (TRAIN + " -iterations many", "illegal value 'many' specified for int32 flag 'iterations'"),
        ("train -solvr s", "unknown command line flag 'solvr'"),
        ("train -solver", "flag '-solver' is missing its argument"),
    ],
)
def test_bad_usage(say, line: str, message: str) -> None:
    status, out, lines = say(line)
    assert (status, out) == (2, "")
    assert message in lines[0]


# -- help, version, logs --------------------------------------------------------------------------


def test_help(say) -> None:
    status, out, lines = say("-help")
    assert (status, lines) == (0, [])
    assert out.startswith("caffe: command line brew\nusage: caffe <command> <args>\n")
    for name in ("train", "test", "device_query", "time", "-solver", "-weights", "-iterations"):
        assert name in out


def test_version(say) -> None:
    assert say("-version") == (0, f"caffe version {caffe.__version__}\n", [])


def test_minloglevel(say, monkeypatch) -> None:
    assert say("train -solver solver.prototxt -minloglevel 2")[2] == []


def test_log_dir(say, folder: Path, monkeypatch) -> None:
    monkeypatch.delenv("GLOG_logtostderr", raising=False)
    Path("logs").mkdir()
    _, _, lines = say("train -solver solver.prototxt -log_dir logs")
    found = [path for path in Path("logs").iterdir() if not path.is_symlink()]
    assert len(found) == 1
    assert re.match(r"caffe\..+\..+\.log\.INFO\.\d{8}-\d{6}\.\d+$", found[0].name)
    kept = [line for line in found[0].read_text().splitlines() if "Restarting data" not in line]
    assert len(kept) == 3 + len([line for line in lines if "caffe train: waited" not in line])
    assert Path("logs/caffe.INFO").resolve() == found[0].resolve()


def test_logtostderr(say, folder: Path, monkeypatch) -> None:
    Path("logs").mkdir()
    say("train -solver solver.prototxt -log_dir logs -logtostderr")
    monkeypatch.setattr(log, "_sink", log._Sink())
    monkeypatch.setenv("GLOG_logtostderr", "1")
    say("train -solver solver.prototxt -log_dir logs")
    assert not list(Path("logs").iterdir())


# -- as commands of their own ---------------------------------------------------------------------


def _command(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("caffe")
    start = [str(program)] if program.exists() else [sys.executable, "-m", "caffe"]
    env = {**os.environ, **environment}
    return subprocess.run([*start, *line.split()], env=env, capture_output=True, text=True)


def test_the_installed_command(folder: Path) -> None:
    done = _command("train -solver solver.prototxt", GLOG_minloglevel="1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (folder / "out_iter_4.caffemodel").is_file()


def test_its_exit_statuses(folder: Path) -> None:
    quiet = {"GLOG_minloglevel": "3"}
    done = _command("train -solver nowhere", **quiet)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "caffe: nowhere: No such file or directory\n"
    done = _command("nonsense", **quiet)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


FOUR_GPUS = {"all": [0, 1, 2, 3]}


@pytest.fixture
def handed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What `caffe train` of a solver would train on, on a machine that says it has four GPUs.

    Only the handing over can be seen without GPUs; test_training.py runs processes.
    """
    from caffe.commands import cli
    from caffe.train import training

    started: list = []
    monkeypatch.setattr(
        cli, "_gpus", lambda text: FOUR_GPUS.get(text) or [int(n) for n in text.split(",")]
    )
    monkeypatch.setattr(training, "train", lambda *given: started.append(given))

    def hand_over(flags: str, more: str = ""):
        solver = tmp_path / "solver.prototxt"
        solver.write_text(f'base_lr: 0.25 lr_policy: "fixed" weights: "x" {more}')
        status = cli.main(["train", f"-solver={solver}", *flags.split()])
        return started.pop() if status == 0 else status

    return hand_over


def test_several_gpus_get_a_process_each(handed_over) -> None:
    run, gpus, asked, _ = handed_over("-gpu 1,3 -weights a.caffemodel")
    assert (run.solver.base_lr, list(run.solver.weights)) == (0.25, ["a.caffemodel"])
    assert (run.snapshot, run.sync_bn, gpus, asked) == (None, False, [1, 3], "-gpu 1,3")
    assert handed_over("-cpu 3 -sync_bn")[0].sync_bn


@pytest.mark.parametrize(
    ("flags", "solver", "processes", "devices"),
    [
        ("", "", None, [None]),
        ("-cpu 3", "", None, [None] * 3),
        ("-gpu all", "", None, [0, 1, 2, 3]),
        ("", "solver_mode: GPU device_id: 2", None, [2]),
        ("-cpu 1", "solver_mode: GPU device_id: 2", None, [None]),
        ("", "solver_mode: CPU", None, [None]),
        # as torchrun started them
        ("", "", 4, [None] * 4),
        ("", "solver_mode: GPU device_id: 2", 4, [0, 1, 2, 3]),
        ("", "solver_mode: GPU device_id: 2", 1, [2]),
        ("-gpu 1,3", "", 2, [1, 3]),
    ],
)
def test_what_to_train_on(
    handed_over, monkeypatch, flags: str, solver: str, processes: int | None, devices: list
) -> None:
    if processes:
        for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.setenv(name, "0")
        for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            monkeypatch.setenv(name, str(processes))
    assert handed_over(flags, solver)[1] == devices


def test_a_gpu_twice(handed_over, capsys) -> None:
    assert handed_over("-gpu 1,0,1") == 2
    assert "caffe: -gpu 1,0,1: GPU 1 is given twice" in capsys.readouterr().err


def test_the_compiler_of_pytorch_stays_on_disk(folder):
    """It takes a second and 90 MB, and is loaded by inferring shapes on meta tensors, by seeds."""
    arch = Architecture("sf5", 3, (32, 32), width_multiplier=1 / 16)
    rgbd = np.zeros((5, 32, 32), np.uint8)
    rgbd[4] = 1
    _records("rgbd", [(rgbd, 0)] * 4)
    Path("net.prototxt").write_text(str(train_net(arch, Training("rgbd", "rgbd", batch_size=2))))
    Path("deploy.prototxt").write_text(str(deploy_net(arch)))
    script = """
import sys, torch
loaded = {"sympy", "torch._dynamo", "torch._inductor"} - set(sys.modules)
import caffe
from caffe.commands.cli import main
assert main("train -solver solver.prototxt".split()) == 0
weights = "out_iter_4.caffemodel"
assert main(f"test -model net.prototxt -weights {weights} -iterations 1".split()) == 0
caffe.Net("deploy.prototxt", weights, caffe.TEST).forward()
print(sorted(loaded & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"
