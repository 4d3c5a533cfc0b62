"""ONNX files that take a camera's whole frame and label it."""
