"""Training runs of several real processes: they follow one process, and go on after any death."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import caffe
from caffe.commands import cli
from caffe.formats import files
from caffe.formats.db import create
from caffe.proto import caffe_pb2 as pb
from caffe.train import training

GOLDEN = Path(__file__).parents[2] / "golden" / "train"
LIMIT = 600  # seconds that anything may take on a machine that is busy with other things

# Random in every way: order, mirrors, dropout. Seven records: epochs end within a batch.
NET = """name: "restless"
layer {{ name: "data" type: "Data" top: "x" top: "label" transform_param {{ mirror: true }}
  data_param {{ source: "lmdb" backend: LMDB batch_size: 2 shuffle: true }} }}
layer {{ name: "conv" type: "Convolution" bottom: "x" top: "conv"
  convolution_param {{ num_output: 4 kernel_size: 3 weight_filler {{ type: "msra" }} }} }}
layer {{ name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }}
layer {{ name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param {{ bias_term: true }} }}
layer {{ name: "relu" type: "ReLU" bottom: "conv" top: "conv" }}
layer {{ name: "drop" type: "Dropout" bottom: "conv" top: "conv" }}
layer {{ name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}
{more}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
"""
SOLVER = """net: "net.prototxt" base_lr: 0.01 momentum: 0.9 lr_policy: "fixed" random_seed: 1
snapshot: {snapshot} snapshot_prefix: "{prefix}" max_iter: {iterations} display: 1
test_iter: 1 test_interval: 7
"""
PYTHON_LAYER = (
    'layer { name: "python" type: "Python" bottom: "label" top: "python"'
    ' python_param { module: "layer_of_a_test" layer: "Layer" } }'
)
ENDLESS = 100_000_000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a net and an LMDB of seven records, to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GLOG_minloglevel", raising=False)
    _data_and_net()
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where an unbroken run of two processes and 30 iterations left its snapshots."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("OMP_NUM_THREADS", "1")
        _data_and_net()
        _finish(_train("-solver", _solver("run", 30, 10), "-cpu", "2"))
    return folder


def _data_and_net() -> None:
    rng = np.random.default_rng(0)
    with create("lmdb") as put:
        for i in range(7):
            datum = pb.Datum(channels=2, height=5, width=5, label=i % 3)
            datum.data = rng.integers(0, 9, 50, np.uint8).tobytes()
            put(b"%04d" % i, datum.SerializeToString())
    _net()


def _net(more: str = "") -> None:
    Path("net.prototxt").write_text(NET.format(more=more))


def _solver(prefix: str, iterations: int, snapshot: int = 0) -> str:
    path = f"{prefix}.prototxt"
    text = SOLVER.format(prefix=prefix, iterations=iterations, snapshot=snapshot)
    Path(path).write_text(text)
    return path


def _train(*flags: str, launcher: tuple[str, ...] = (), log: str = "log") -> subprocess.Popen:
    with open(log, "w") as stderr:
        command = [sys.executable, *launcher, "-m", "caffe", "train", *flags]
        return subprocess.Popen(command, stderr=stderr, start_new_session=True)


def _train_from_here(capfd: pytest.CaptureFixture, *flags: str) -> tuple[int, str]:
    """The same command run by this process, which saves its start: status and stderr."""
    capfd.readouterr()
    status = cli.main(["train", *flags])
    return status, capfd.readouterr().err


def _finish(process: subprocess.Popen, log: str = "log") -> str:
    try:
        process.wait(LIMIT)
    finally:
        _end(process)
    text = Path(log).read_text()
    assert process.returncode == 0, text[-2000:]
    return text


def _end(process: subprocess.Popen) -> None:
    """Leave nothing of a command behind, should the test have failed."""
    with suppress(ProcessLookupError):  # what is left of its group, if anything
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _until(what: Callable[[], object], process: subprocess.Popen | None = None) -> None:
    deadline = time.monotonic() + LIMIT
    while not what():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, Path("log").read_text()[-2000:]
        time.sleep(0.05)


def _children(process: subprocess.Popen, by: bytes = b"spawn_main") -> list[int]:
    """The processes of the ranks, the first one first."""
    tasks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    commands = {int(task): Path(f"/proc/{task}/cmdline").read_bytes() for task in tasks}
    return sorted(pid for pid, command in commands.items() if by in command)


def _gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"  # ended; whoever took it over has yet to look


def _as_in(whole: Path, iteration: int) -> bool:
    """Whether a run's weights are the unbroken one's, to the last bit."""
    name = f"run_iter_{iteration}.caffemodel"
    return Path(name).read_bytes() == (whole / name).read_bytes()


# -- the numbers ----------------------------------------------------------------------------------


def test_two_processes_follow_one_with_twice_the_batch(folder: Path) -> None:
    """A small SF net on -sync_bn, 20 iterations, to 1e-4: weights and gathered statistics.

    Of two fusions and two poolings: deeper ones of this size do not follow even themselves when
    their weights change in the last digit.
    """
    shutil.copytree(GOLDEN, "golden")
    net = Path("golden/train.prototxt").read_text().replace('"lmdb"', '"golden/lmdb"')
    net = net.replace("normalization: VALID", "normalization: FULL")  # ranks' means are the mean
    for name, batch in (("one", 4), ("two", 2)):
        Path(f"{name}_net.prototxt").write_text(
            net.replace("batch_size: 2", f"batch_size: {batch}")
        )
        Path(f"{name}.prototxt").write_text(
            f'net: "{name}_net.prototxt" base_lr: 0.01 momentum: 0.9 lr_policy: "fixed" '
            f'max_iter: 20 snapshot: 10 snapshot_prefix: "{name}" weight_decay: 0.0005 display: 10 '
            'weights: "golden/init.caffemodel"'
        )
    log = _finish(_train("-solver", "two.prototxt", "-cpu", "2", "-sync_bn"))
    solver = caffe.get_solver("one.prototxt")
    solver.net.observed = False
    first = solver.net.params["score"][0].data.copy()
    solver.solve()
    for iteration in (10, 20):
        alone, both = (
            dict(files.read_weights(f"{name}_iter_{iteration}.caffemodel").items())
            for name in ("one", "two")
        )
        assert alone.keys() == both.keys()
        for name, blobs in alone.items():
            for mine, theirs in zip(blobs, both[name], strict=True):
                # A bias before a BatchNorm has no gradient: rounding is all it holds.
                bound = 1e-4 * np.abs(mine).max() + 1e-6
                assert np.abs(mine - theirs).max() <= bound, (iteration, name)
    assert np.abs(alone["score"][0] - first).max() > 1e-2  # and they learned something
    for line, times in {
        "Starting Optimization": 1,
        "Solving ": 1,
        "Iteration 10 (": 1,
        "Snapshotting to": 2,
        "solver.cpp:332] Optimization Done.": 1,
        "caffe.cpp:250] Optimization Done.": 1,
    }.items():  # the first rank's, and nobody else's
        assert log.count(line) == times, line


RECORDER = """
import caffe
class Layer(caffe.Layer):
    def setup(self, bottom, top): pass
    def reshape(self, bottom, top): top[0].reshape(1)
    def forward(self, bottom, top):
        with open(f"seen_by_{caffe.solver_rank()}", "a") as file:
            print(*(int(v) for v in bottom[0].data), file=file)
    def backward(self, top, propagate_down, bottom): pass
"""


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.usefixtures("fresh")
def test_every_record_once_an_epoch(folder: Path, monkeypatch, capfd, count: int) -> None:
    """A Python layer writes down what each of the processes reads."""
    with create("numbered") as put:
        for i in range(7):
            datum = pb.Datum(channels=2, height=5, width=5, data=bytes(50), label=i)
            put(b"%04d" % i, datum.SerializeToString())
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    Path("layer_of_a_test.py").write_text(RECORDER)
    text = NET.format(more=PYTHON_LAYER).replace('"lmdb"', '"numbered"')
    text = text.replace("num_output: 3", "num_output: 7")
    Path("net.prototxt").write_text(text)
    iterations = 7  # of 2 * count records: 2 * count epochs of 7
    solver = _solver("seen", iterations)
    Path(solver).write_text(
        Path(solver).read_text().split("test_iter")[0].replace("display: 1", "")
    )
    status, log = _train_from_here(capfd, "-solver", solver, "-cpu", str(count))
    assert status == 0, log[-2000:]
    seen = [np.loadtxt(f"seen_by_{rank}", dtype=int)[:iterations].ravel() for rank in range(count)]
    assert all(len(own) == 2 * iterations for own in seen)
    # They take turns: the k-th records of all ranks are the next `count` of the common order.
    epochs = np.stack(seen, axis=1).reshape(-1, 7)
    assert len(epochs) == 2 * count
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1  # in a new order each


def test_machines_that_see_different_snapshots() -> None:
    training._check_start([7, 7, 7], "run_iter_7.solverstate")
    with pytest.raises(caffe.CaffeError) as caught:
        training._check_start([7, 7, 0], None)
    assert str(caught.value) == (
        "rank 2 would go on from iteration 0, rank 0 from 7: all machines need the same snapshot"
    )


# -- deaths -----------------------------------------------------------------------------------


def test_after_any_death_a_run_ends_as_if_unbroken(folder: Path, whole: Path) -> None:
    """SIGKILL to one rank, then to all processes: to the last bit the same in the end."""
    endless = _solver("run", ENDLESS, 10)
    process = _train("-solver", endless, "-cpu", "2")
    _until(Path("run_iter_10.solverstate").exists, process)
    victim = _children(process)[1]
    os.kill(victim, signal.SIGKILL)
    try:
        process.wait(LIMIT)
    finally:
        _end(process)
    assert process.returncode == 1
    last = Path("log").read_text().splitlines()[-1]
    cause = rf"caffe: rank . \(process {victim}\) was killed by SIGKILL, perhaps for want of memory"
    assert re.fullmatch(cause, last), last
    assert _as_in(whole, 10)

    _forget_from(20)
    process = _train("-solver", endless, "-cpu", "2", "-snapshot", "run_iter_10.solverstate")
    _until(Path("run_iter_20.solverstate").exists, process)
    ranks = _children(process)
    process.kill()  # the others end by themselves: none is left behind
    process.wait()
    for rank in ranks:
        _until(lambda rank=rank: _gone(rank))
    assert len(ranks) == 2
    assert _as_in(whole, 20)

    _forget_from(30)
    resumed = _solver("run", 30, 10)
    _finish(_train("-solver", resumed, "-cpu", "2", "-snapshot", "run_iter_20.solverstate"))
    assert _as_in(whole, 30)


def _forget_from(iteration: int) -> None:
    """Remove snapshots of this iteration and later ones: a run may have gone on until it died."""
    for path in Path().glob("run_iter_*"):
        if int(re.findall(r"\d+", path.name)[0]) >= iteration:
            path.unlink()


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_processes_goes_on(folder, whole, capfd, count: int) -> None:
    """It continues at the record where the two stopped; rank 0 says that draws will differ."""
    solver, state = _solver("run", 33), str(whole / "run_iter_30.solverstate")
    flags = ("-solver", solver, "-cpu", str(count), "-snapshot", state)
    status, log = _train_from_here(capfd, *flags)
    assert status == 0, log[-2000:]
    assert "Iteration 30 (" in log
    assert f"random states of 2 process(es), this run has {count}: the data goes on" in log
    assert Path("run_iter_33.caffemodel").exists()


FAILING = """
import caffe
class Layer(caffe.Layer):
    def setup(self, bottom, top): self.passes = 0
    def reshape(self, bottom, top): top[0].reshape(1)
    def forward(self, bottom, top):
        self.passes += 1
        if self.passes == 4 and caffe.solver_rank() == 1:
            raise OSError("the disk is gone")
    def backward(self, top, propagate_down, bottom): pass
"""


@pytest.mark.usefixtures("fresh")
def test_an_error_on_one_rank_is_the_cause_that_is_given(folder, monkeypatch, capfd) -> None:
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    Path("layer_of_a_test.py").write_text(FAILING)
    _net(PYTHON_LAYER)
    status, log = _train_from_here(capfd, "-solver", _solver("run", ENDLESS), "-cpu", "2")
    assert status == 1
    lines = log.splitlines()
    assert re.match(r"caffe: rank 1 \(process \d+\) ended with exit status 1: ", lines[-1])
    assert "the disk is gone" in lines[-1]
    assert not any("Traceback" in line for line in lines)


@pytest.mark.usefixtures("fresh")
def test_bad_input_is_one_line(folder: Path, monkeypatch, capfd) -> None:
    monkeypatch.setattr("caffe.process.log._sink.min_level", 3)  # the processes take it over
    Path("net.prototxt").write_text(NET.format(more="").replace('"lmdb"', '"nowhere"'))
    status, log = _train_from_here(capfd, "-solver", _solver("run", 3), "-cpu", "2")
    (line,) = log.splitlines()
    assert status == 1
    assert re.fullmatch(
        r"caffe: rank [01] \(process \d+\) ended with exit status 1: layer 'data' \(Data\): "
        "nowhere: No such file or directory",
        line,
    )


# -- signals ----------------------------------------------------------------------------------


def test_signals_stop_and_save_as_in_a_single_run(folder: Path) -> None:
    """SIGHUP saves, an interrupt from a terminal, which all processes get, stops after saving."""
    process = _train("-solver", _solver("run", ENDLESS), "-cpu", "2")
    try:
        _until(lambda: "Iteration 2 " in Path("log").read_text(), process)
        process.send_signal(signal.SIGHUP)
        _until(lambda: list(Path().glob("run_iter_*.solverstate")), process)
        os.killpg(process.pid, signal.SIGINT)
    finally:
        log = _finish(process)
    assert len(list(Path().glob("run_iter_*.solverstate"))) == 2
    assert [line.split("] ")[1] for line in log.splitlines() if "] " in line][-2:] == [
        "Optimization stopped early.",
        "Optimization Done.",
    ]


def _terminated(process: subprocess.Popen, after: Callable[[], object], all_: bool = False) -> str:
    """The log of a command that gets SIGTERM; all_: so do its processes, as from a scheduler."""
    try:
        _until(after, process)
        os.killpg(process.pid, signal.SIGTERM) if all_ else process.terminate()
        process.wait(LIMIT)
        _until(lambda: all(_gone(pid) for pid in _group(process.pid)))  # none is left behind
    finally:
        _end(process)
    assert process.returncode == 128 + signal.SIGTERM
    return Path("log").read_text()


def _logged(text: str) -> Callable[[], bool]:
    return lambda: text in Path("log").read_text()


def test_sigterm_saves_and_ends_all(folder: Path, monkeypatch) -> None:
    """A scheduler's stop of all processes; the same command goes on, bit for bit."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    _solver("run", ENDLESS)
    flags = ("-solver", "run.prototxt", "-cpu", "2", "-snapshot", "latest")
    process = _train(*flags)
    log = _terminated(process, _logged("Iteration 2 "), all_=True)
    assert log.count("Snapshotting solver state") == 1
    assert "Traceback" not in log
    (state,) = Path().glob("*.solverstate")
    last = int(state.stem.rpartition("_")[2]) + 1
    _solver("run", last, 1)
    _finish(_train(*flags))
    unbroken = _solver("unbroken", last)
    _finish(_train("-solver", unbroken, "-cpu", "2"))
    names = (f"{prefix}_iter_{last}.caffemodel" for prefix in ("run", "unbroken"))
    assert len({Path(name).read_bytes() for name in names}) == 1


def _group(leader: int) -> list[int]:
    """The processes of a group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[2]) == leader:
                found.append(int(stat.parent.name))
    return found


def test_sigterm_during_a_test(folder: Path) -> None:
    path = Path(_solver("run", ENDLESS))
    endless = f"test_initialization: false test_iter: {ENDLESS}"
    path.write_text(path.read_text().replace("test_iter: 1", endless))
    log = _terminated(_train("-solver", str(path)), _logged("Iteration 7, Testing net"))
    assert "Test interrupted." in log
    assert [p.name for p in Path().glob("*.solverstate")] == ["run_iter_7.solverstate"]


def test_sigterm_before_training_begins(folder: Path) -> None:
    """There is nothing to save, and nothing is left behind."""
    (folder / "slow.py").write_text(
        "import caffe, time\n"
        "class Slow(caffe.Layer):\n"
        "    def setup(self, bottom, top): time.sleep(5)\n"
        "    def reshape(self, bottom, top): top[0].reshape(1)\n"
    )
    code = 'python_param { module: "slow" layer: "Slow" }'
    slow = f'layer {{ name: "slow" type: "Python" top: "s" {code} }}'
    net = folder / "net.prototxt"
    net.write_text(net.read_text() + slow)
    before = {p.name for p in folder.iterdir()}
    solver = _solver("run", ENDLESS)
    log = _terminated(_train("-solver", solver), _logged("Creating Layer slow"))
    assert "Iteration" not in log
    assert log.endswith("SIGTERM before training began: nothing to save\n")
    assert {p.name for p in folder.iterdir()} - before <= {"log", solver, "__pycache__"}


def test_sigterm_can_do_something_else(folder: Path) -> None:
    solver = _solver("run", ENDLESS)
    process = _train("-solver", solver, "-sigterm_effect", "snapshot", "-sigint_effect", "end")
    try:
        _until(_logged("Iteration 2 "), process)
        process.terminate()
        _until(lambda: list(Path().glob("run_iter_*.solverstate")), process)
        process.send_signal(signal.SIGINT)
        process.wait(LIMIT)
    finally:
        _end(process)
    assert process.returncode == 128 + signal.SIGINT
    assert len(list(Path().glob("run_iter_*.solverstate"))) == 2


# -- a log that nobody takes ----------------------------------------------------------------------


@pytest.mark.parametrize(("flag", "word"), [("-nobrief", b"Iteration 2 "), ("-brief", b"test at")])
def test_training_goes_on_when_its_terminal_is_gone(folder: Path, flag: str, word: bytes) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "caffe", "train", flag, "-solver", _solver("run", 40, 20)]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    seen = b""
    while word not in seen:
        seen += os.read(ours, 4096)
    os.close(ours)
    assert process.wait(LIMIT) == 0
    assert Path("run_iter_40.solverstate").exists()


def test_training_without_stderr(folder: Path) -> None:
    line = f"{sys.executable} -m caffe train -solver {_solver('run', 3)} -cpu 2 2>/dev/full"
    assert subprocess.run(["bash", "-c", line]).returncode == 0
    assert Path("run_iter_3.solverstate").exists()


# -- torchrun ---------------------------------------------------------------------------------


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def _two_machines(*flags: str) -> list[str]:
    """A torchrun each, with one process; their logs."""
    meet = ("--master_addr=127.0.0.1", f"--master_port={_free_port()}")
    nodes = []
    for rank in range(2):
        where = ("--nnodes=2", f"--node_rank={rank}", "--nproc_per_node=1")
        launcher = ("-m", "torch.distributed.run", *where, *meet)
        nodes.append(_train(*flags, launcher=launcher, log=f"node{rank}"))
    try:
        return [_finish(node, f"node{rank}") for rank, node in enumerate(nodes)]
    finally:
        for node in nodes:
            _end(node)


def test_torchrun_on_two_machines(folder: Path, whole: Path, monkeypatch) -> None:
    """They meet by its variables, start no processes, and train as two on one machine do."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    first, second = _two_machines("-solver", _solver("run", 10), "-cpu", "1")
    assert "Iteration 5 (" in first
    assert "Iteration" not in second  # only rank 0 talks
    assert _as_in(whole, 10)


def test_nothing_outlives_torchrun(folder: Path, monkeypatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    process = _train("-solver", _solver("run", ENDLESS), launcher=launcher)
    try:
        _until(lambda: "Iteration 2 " in Path("log").read_text(), process)
        ranks = _children(process, b"caffe")
        process.kill()
        process.wait()
        assert len(ranks) == 2
        for rank in ranks:
            _until(lambda rank=rank: _gone(rank))
    finally:
        _end(process)


def test_torchrun_goes_on_by_itself_after_deaths(folder: Path, whole: Path, monkeypatch) -> None:
    """One rank is killed in training, another while it starts; bit for bit the same in the end."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = ("--standalone", "--nproc_per_node=2", "--max-restarts=3")
    launcher = ("-m", "torch.distributed.run", *options)
    endless = _solver("run", ENDLESS, 10)
    process = _train("-solver", endless, "-snapshot", "latest", launcher=launcher)
    try:
        _until(Path("run_iter_10.solverstate").exists, process)
        _solver("run", 30, 10)  # what the next attempts read
        first = _children(process, b"caffe")
        os.kill(first[1], signal.SIGKILL)
        _until(lambda: len(set(_children(process, b"caffe")) - set(first)) == 2, process)
        os.kill(_children(process, b"caffe")[0], signal.SIGKILL)
    finally:
        log = _finish(process)
    assert log.count("Starting Optimization") == 2
    assert _as_in(whole, 10)
    if "Resuming from run_iter_10.solverstate" in log:  # it may have come further before
        assert _as_in(whole, 20)
        assert _as_in(whole, 30)


@pytest.mark.usefixtures("fresh")
def test_a_single_process_of_torchrun_is_alone(folder: Path, monkeypatch, capfd) -> None:
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MASTER_ADDR", "nowhere")  # nobody asks there
    status, log = _train_from_here(capfd, "-solver", _solver("run", 2))
    assert (status, log.count("caffe.cpp:250] Optimization Done.")) == (0, 1)
    status, log = _train_from_here(capfd, "-solver", _solver("run", 2), "-cpu", "2")
    assert status == 1
    assert log.splitlines()[-1] == (
        "caffe: -cpu 2 asks for 2 process(es) on this machine, the launcher started 1: "
        "torchrun --nproc_per_node 2 starts as many"
    )
