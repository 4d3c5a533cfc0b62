"""FuseNet from Python: `from fusenet import Predictor` labels frames with a trained net."""

from __future__ import annotations

from caffe import __version__ as __version__
from eval_tools.predictor import Predictor as Predictor

__all__ = ["Predictor", "__version__"]
