"""Generates caffe/proto/*_pb2.py from the .proto files before Python files are collected."""

from importlib.resources import files
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithProto(build_py):
    """build_py that runs protoc (from the build requirement grpcio-tools) first."""

    def run(self) -> None:
        from grpc_tools import protoc

        # Compile from the root, because a descriptor contains its file's path from there.
        schemas = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("caffe/proto/*.proto"))
        google = files("grpc_tools") / "_proto"  # google/protobuf/descriptor.proto
        if protoc.main(["protoc", f"-I{ROOT}", f"-I{google}", f"--python_out={ROOT}", *schemas]):
            raise SystemExit(f"setup.py: protoc could not compile {', '.join(schemas)}")
        super().run()


setup(cmdclass={"build_py": BuildWithProto})
