"""Engines by choice: OpenVINO or onnxruntime compute what a net in TEST phase would else have
PyTorch compute.

caffe.set_engine chooses. An engine gets the layers of whole passes of nets with `observed = False`
that have an ONNX form (regions.py), on the CPU, in float32. All other layers and passes stay with
the plan (caffe/plan), which takes over where an engine fails.
"""

from caffe.engines.setting import NAMES, engine, set_engine, using

__all__ = ["NAMES", "engine", "set_engine", "using"]
