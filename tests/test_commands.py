"""What all commands have in common: streams that are closed or full cause no traceback."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("caffe", "netgen", "data_tools", "eval_tools", "caffe_patches")


def _modules() -> list[str]:
    """Everything that `python -m` runs."""
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "overlay" not in path.parts and '__name__ == "__main__"' in path.read_text():
                parts = path.relative_to(ROOT).with_suffix("").parts
                found.append(".".join(parts).removesuffix(".__main__"))
    return found


MODULES = _modules()


def _start(module: str, line: str, folder: Path) -> subprocess.Popen:
    script = f'exec "$0" -m {module} {line}'
    return subprocess.Popen(
        ["bash", "-c", script, sys.executable],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )


def _end(process: subprocess.Popen) -> tuple[int, str]:
    out, said = process.communicate()
    assert out == ""
    return process.returncode, said


def test_the_installed_commands_are_among_them() -> None:
    """They start in one module, which knows the others by name."""
    project = (ROOT / "pyproject.toml").read_text()
    scripts = re.search(r"\[project.scripts\]\n(.*?)\n\n", project, re.DOTALL)
    starts = (ROOT / "caffe" / "__main__.py").read_text()
    for line in scripts[1].splitlines():
        name, function = re.fullmatch(r'(\w+) = "caffe\.__main__:(\w+)"', line).groups()
        module = re.search(rf'^{function} = _command\("([\w.]+)"\)', starts, re.MULTILINE)[1]
        assert name == function
        assert module in MODULES or module == "caffe.commands.cli"  # as `python -m caffe`


@pytest.mark.parametrize("module", MODULES)
def test_streams_that_are_no_use(module: str, tmp_path: Path) -> None:
    """If output is lost, the status tells and one line says why; bad usage stays bad usage."""
    full = _start(module, "--help >/dev/full", tmp_path)
    closed = _start(module, "--no-such-option <&- >&- 2>&-", tmp_path)
    status, said = _end(full)
    assert status == 1
    assert said.count("\n") == 1
    assert said.endswith(": the output on stdout is lost: No space left on device\n")
    assert _end(closed) == (2, "")


def test_the_work_is_done_all_the_same(tmp_path: Path) -> None:
    """Files are written, whatever becomes of what is printed about them."""
    lost = "the output on stdout is lost: it is closed\n"
    status, said = _end(_start("data_tools.synth", "--count 2 --size 32x24 lm >&-", tmp_path))
    assert (status, said) == (1, f"python -m data_tools.synth: {lost}")
    assert (tmp_path / "lm" / "data.mdb").exists()
    status, said = _end(_start("data_tools.inspect", "lm --html x.html >&-", tmp_path))
    assert (status, said) == (1, f"python -m data_tools.inspect: {lost}")
    assert (tmp_path / "x.html").exists()
    status, said = _end(_start("netgen", "papers folder 2>&-", tmp_path))
    assert (status, said) == (0, "")
    assert list((tmp_path / "folder").rglob("*.prototxt"))


PLACE = "import boundary; print(boundary.__path__[0])"
START = {"cwd": None, "capture_output": True, "text": True, "env": {"PATH": "/usr/bin:/bin"}}


def test_a_folder_named_caffe_hides_nothing(tmp_path: Path) -> None:
    """One without an __init__.py, such as a clone of BVLC's; the commands are those installed."""
    options = {**START, "cwd": tmp_path}
    place = subprocess.run([sys.executable, "-c", PLACE], **options).stdout.strip()
    if not place or Path(place).parent.resolve() != ROOT.resolve():
        pytest.skip("this folder is not the one that is installed")
    for package in PACKAGES:
        (tmp_path / package).mkdir()
    for module in ("netgen", "caffe.convert", "data_tools.folder", "eval_tools.predict"):
        done = subprocess.run([sys.executable, "-m", module, "--help"], **options)
        text = "is the install older than pyproject.toml? pip install -e ."
        assert done.returncode == 0, f"{done.stderr[-300:]}; {text}"


def test_another_package_named_caffe_is_named(tmp_path: Path) -> None:
    (tmp_path / "caffe").mkdir()
    (tmp_path / "caffe" / "__init__.py").touch()
    status, said = _end(_start("netgen", "sf1", tmp_path))
    assert status == 1
    assert said == (
        f"netgen: error: {tmp_path}/caffe hides the package caffe of {ROOT}: start from another "
        "folder\n"
    )
