"""Runs ONNX files in the programs that they are for: onnxruntime, OpenCV, OpenVINO.

onnxruntime runs in this process. The others get one of their own (`child`), because OpenCV 5.0 ends
the process at some files.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from boundary.errors import one_line
from boundary.late import cv2
from boundary.reading import reading
from boundary.telemetry import load_onnxruntime, load_openvino
from caffe.errors import CaffeError
from caffe.formats.onnx import Target

Arrays = Mapping[str, np.ndarray]
MODULES = {"onnxruntime": "onnxruntime", "opencv": "cv2", "openvino": "openvino"}
PACKAGES = ("opencv-python-headless", "opencv-contrib-python-headless", "opencv-python")
START = "import sys; from caffe.export.programs import child; sys.exit(child(*sys.argv[1:]))"
MODEL, FEEDS, ANSWERS = "net.onnx", "feeds.npz", "answers.npz"


def is_installed(target: Target) -> bool:
    """Whether files for the target can be run here. TensorRT's cannot."""
    module = MODULES.get(target.name, "")
    if not module or sys.modules.get(module, module) is None:
        return False
    return importlib.util.find_spec(module) is not None


def title(target: Target) -> str:
    """The program's name and version: 'OpenCV 5.0.0'."""
    names = PACKAGES if target.name == "opencv" else (target.name,)
    for name in names:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return f"{target.title} {'.'.join(version.split('.')[:3])}"
    return target.title


def signature(model: bytes) -> tuple[list[str], list[str]]:
    """The names of a model's inputs and outputs."""
    import onnx

    with reading("the model", "an ONNX file", CaffeError):
        graph = onnx.load_from_string(model).graph
    return [item.name for item in graph.input], [item.name for item in graph.output]


def answers(
    target: Target, model: bytes, feeds: Arrays, outputs: Sequence[str]
) -> list[np.ndarray]:
    """The outputs (names of the graph's) that the target's program computes from `feeds`.

    feeds: values for the graph's inputs. Raises CaffeError if the program does not take
    the file, or ends at it.
    """
    try:
        if target.name == "onnxruntime":
            return _in_onnxruntime(model, feeds, outputs)
        return _in_a_process_of_its_own(target, model, feeds, outputs)
    except CaffeError:
        raise
    except Exception as error:  # their exceptions share no base class
        raise refusal(target, str(error)) from error


def refusal(target: Target, reason: str) -> CaffeError:
    return CaffeError(f"{title(target)} does not take the file: {one_line(reason, 240)}")


def _in_onnxruntime(model: bytes, feeds: Arrays, outputs: Sequence[str]) -> list[np.ndarray]:
    onnxruntime = load_onnxruntime()
    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(list(outputs), dict(feeds))


def _in_a_process_of_its_own(
    target: Target, model: bytes, feeds: Arrays, outputs: Sequence[str]
) -> list[np.ndarray]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / MODEL).write_bytes(model)
        # Arrays have numbers for names here, because names of blobs may hold any characters.
        numbered = {str(i): values for i, values in enumerate(feeds.values())}
        np.savez(folder / FEEDS, **numbered)
        words = [target.name, name, str(len(feeds)), *feeds, *outputs]
        done = subprocess.run(
            [sys.executable, "-c", START, *words],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(_paths())},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode < 0:
            raise refusal(target, f"it ends the process (signal {-done.returncode})")
        if done.returncode:
            raise refusal(target, _reason(done.stderr))
        with (
            reading(folder / ANSWERS, "the program's answers", CaffeError),
            np.load(folder / ANSWERS) as found,
        ):
            return [found[str(i)] for i in range(len(outputs))]


def _reason(said: str) -> str:
    """The exception that a child ended by, without the program's own log."""
    lines = said.strip().splitlines() or ["it says nothing"]
    start = max((i for i, line in enumerate(lines) if line.startswith("refused: ")), default=-1)
    return " ".join(lines[start:]).removeprefix("refused: ") if start >= 0 else lines[-1]


def _paths() -> list[str]:
    """Where the child finds this package, however this process came by it."""
    given = os.environ.get("PYTHONPATH", "")
    return [str(Path(__file__).parents[2]), *filter(None, [given])]


# -- in the child -----------------------------------------------------------------------------


def _in_opencv(model: str, feeds: Arrays, outputs: Sequence[str]) -> list[np.ndarray]:
    net = cv2.dnn.readNetFromONNX(model)
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    for name, values in feeds.items():
        net.setInput(values, name)
    return [np.asarray(values) for values in net.forward(list(outputs))]


def _in_openvino(model: str, feeds: Arrays, outputs: Sequence[str]) -> list[np.ndarray]:
    openvino = load_openvino()
    core = openvino.Core()
    core.set_property("CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    compiled = core.compile_model(core.read_model(model), "CPU")
    found = compiled(dict(feeds))
    return [found[name] for name in outputs]


CHILDREN: Mapping[str, Callable[[str, Arrays, Sequence[str]], list[np.ndarray]]] = {
    "opencv": _in_opencv,
    "openvino": _in_openvino,
}


def child(program: str, folder: str, count: str, *names: str) -> int:
    """The other process: reads model and feeds from the folder, and writes the answers there.

    names: of `count` inputs, and of the outputs.
    """
    place, inputs, outputs = Path(folder), names[: int(count)], names[int(count) :]
    with reading(place / FEEDS, "feeds", CaffeError), np.load(place / FEEDS) as found:
        feeds = {name: found[str(i)] for i, name in enumerate(inputs)}
    try:
        values = CHILDREN[program](os.fspath(place / MODEL), feeds, outputs)
    except Exception as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    np.savez(place / ANSWERS, **{str(i): array for i, array in enumerate(values)})
    return 0
