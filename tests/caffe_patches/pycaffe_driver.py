"""Run by a patched Caffe's own Python and pycaffe: what the tests want to know of it.

pycaffe_driver.py case FILE.npz OUT.npz     replay a recorded layer case
pycaffe_driver.py labels SOLVER N           the labels of the solver's next N batches, a line each
pycaffe_driver.py follow SOLVER N           a step from each of the snapshots run_iter_0 .. N - 1
"""

import os
import sys
import tempfile

import numpy as np

import caffe


def replay(case, out):
    """Runs the case's net on its inputs and tops' diffs; saves its outputs and input gradients."""
    recorded = np.load(case)
    with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as prototxt:
        prototxt.write(str(recorded["prototxt"]))
        prototxt.flush()
        net = caffe.Net(prototxt.name, getattr(caffe, str(recorded["phase"])))
    for key in recorded.files:
        if key.startswith("in/"):
            net.blobs[key[3:]].data[...] = recorded[key]
    net.forward()
    found = {}
    for key in recorded.files:
        if key.startswith("out/"):
            found[key] = net.blobs[key[4:]].data.copy()
        if key.startswith("dtop/"):
            net.blobs[key[5:]].diff[...] = recorded[key]
    net.backward()
    for key in recorded.files:
        if key.startswith("din/"):
            found[key] = net.blobs[key[4:]].diff.copy()
    np.savez(out, **found)


def labels(solver, count):
    """Prints what the blob `label` holds after each of the steps."""
    solver = caffe.SGDSolver(solver)
    for _ in range(count):
        solver.step(1)
        print(*solver.net.blobs["label"].data.astype(int).ravel())


def parameters(net):
    """All that is learned, in one vector: BatchNorm's sums, much larger, would drown the rest."""
    learned = [net.params[name] for name in net.params if "_bn" not in name]
    return np.concatenate([blob.data.ravel() for blobs in learned for blob in blobs])


def follow(solver_file, count):
    """Steps once from each snapshot run_iter_<k>; prints k, the loss there and the relative
    distance of the step from the one that the run took."""
    solver = caffe.SGDSolver(solver_file)
    for k in range(count):
        solver.restore(f"run_iter_{k}.solverstate")
        before = parameters(solver.net)
        solver.step(1)
        loss = float(solver.net.blobs["loss"].data)
        after = parameters(solver.net)
        solver.net.copy_from(f"run_iter_{k + 1}.caffemodel")
        taken = parameters(solver.net) - before
        off = np.linalg.norm(after - before - taken) / np.linalg.norm(taken)
        print(f"step {k} loss {loss:.9g} off {off:.3g}")


if __name__ == "__main__":
    command, first, second = sys.argv[1:]
    # Pairs of C++ and Python streams come out in order.
    sys.stdout = os.fdopen(sys.stdout.fileno(), "w", buffering=1)
    if command == "case":
        replay(first, second)
    elif command == "labels":
        labels(first, int(second))
    else:
        follow(first, int(second))
