"""The parts of the overlay that need no Caffe: the C++ build and its GoogleTest tests, by ctest.

They need cmake, a C++ compiler and GoogleTest (Debian: cmake, g++, libgtest-dev).
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


def run(*command, **options):
    """A command's output; the test fails with it if the command does."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """A build folder with everything compiled."""
    if not shutil.which("cmake"):
        pytest.skip("cmake is not installed")
    if not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("no C++ compiler is installed")
    folder = tmp_path_factory.mktemp("cpp")
    options = []
    if NVCC:
        # One architecture here, the oldest; a build by hand takes all that nvcc lists.
        listed = run(NVCC, "--list-gpu-arch").split()
        oldest = min(int(re.sub(r"\D", "", arch)) for arch in listed)
        options = [f"-DCMAKE_CUDA_ARCHITECTURES={oldest}"]
    configured = subprocess.run(
        ["cmake", "-S", ROOT, "-B", folder, *options], capture_output=True, text=True, check=False
    )
    if "could not find gtest" in configured.stderr.lower():
        pytest.skip("GoogleTest is not installed (Debian: libgtest-dev)")
    assert configured.returncode == 0, configured.stdout + configured.stderr
    run("cmake", "--build", folder)
    return folder


def test_ctest(build):
    out = run("ctest", "--test-dir", build, "--output-on-failure")
    assert "100% tests passed" in out
    for suite in ("EpochPermutationTest", "LabelWeightsTest", "UnpoolTest"):
        assert suite in out


@pytest.mark.skipif(not NVCC, reason="nvcc is not installed")
def test_cuda_kernels_compile(build):
    assert (build / "test_kernels").is_file()
