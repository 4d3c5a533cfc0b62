"""Nets for other programs: PyTorch modules, state dicts, ONNX."""
