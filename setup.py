"""Generates caffe/proto/caffe_pb2.py from caffe.proto before Python files are collected."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithProto(build_py):
    """build_py that runs protoc (from the build requirement grpcio-tools) first."""

    def run(self) -> None:
        from grpc_tools import protoc

        # Compile from the root, because the descriptor contains the file's path from there.
        if protoc.main(["protoc", f"-I{ROOT}", f"--python_out={ROOT}", "caffe/proto/caffe.proto"]):
            raise SystemExit("setup.py: protoc could not compile caffe/proto/caffe.proto")
        super().run()


setup(cmdclass={"build_py": BuildWithProto})
