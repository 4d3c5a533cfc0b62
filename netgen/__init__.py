"""Generates FuseNet's networks, their baselines and solvers as Caffe prototxt.

`python -m netgen --help` lists the commands; in Python, `deploy_net` and `train_net` give the
NetParameter of an Architecture. Only `summary` and `draw` load the engine, and torch with it.
"""

import boundary.interrupts  # when `python -m` starts a command of this package
import boundary.packages  # noqa: F401  # before the first import of caffe
from netgen.datasets import DATASETS, Dataset
from netgen.fusenet import NETS, Architecture, Training, deploy_net, train_net

__all__ = [
    "DATASETS",
    "NETS",
    "Architecture",
    "Dataset",
    "Training",
    "deploy_net",
    "train_net",
]
