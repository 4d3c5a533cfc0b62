"""Run by a patched Caffe's own Python and pycaffe: what the tests want to know of it.

pycaffe_driver.py case FILE.npz OUT.npz     replay a recorded layer case
pycaffe_driver.py labels SOLVER N           the labels of the solver's next N batches, a line each
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


if __name__ == "__main__":
    command, first, second = sys.argv[1:]
    # Pairs of C++ and Python streams come out in order.
    sys.stdout = os.fdopen(sys.stdout.fileno(), "w", buffering=1)
    if command == "case":
        replay(first, second)
    else:
        labels(first, int(second))
