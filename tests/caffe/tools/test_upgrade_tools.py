"""upgrade_net_proto_text, upgrade_net_proto_binary, upgrade_solver_proto_text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from caffe.proto import caffe_pb2 as pb
from caffe.tools import (
    upgrade_net_proto_binary,
    upgrade_net_proto_text,
    upgrade_solver_proto_text,
)

GOLDEN = Path(__file__).parents[2] / "golden"
INTEROP = GOLDEN / "interop"


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_text_equals_the_references(tmp_path: Path, version: str) -> None:
    source, out = INTEROP / f"{version}.prototxt", tmp_path / "out"
    command = [sys.executable, "-m", "caffe.tools.upgrade_net_proto_text", str(source), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert out.read_bytes() == (INTEROP / f"{version}.upgraded.prototxt").read_bytes()
    last = done.stderr.splitlines()[-1].partition("] ")[2]
    assert last == f"Wrote upgraded NetParameter text proto to {out}"


def test_output_may_be_a_pipe() -> None:
    source = INTEROP / "v1.prototxt"
    command = [sys.executable, "-m", "caffe.tools.upgrade_net_proto_text"]
    done = subprocess.run([*command, str(source), "/dev/stdout"], capture_output=True, check=True)
    assert done.stdout == (INTEROP / "v1.upgraded.prototxt").read_bytes()


def test_net_of_today_is_copied_with_a_word(tmp_path: Path, capfd) -> None:
    source = INTEROP / "v1.upgraded.prototxt"
    assert upgrade_net_proto_text.main([str(source), str(tmp_path / "o")]) == 0
    assert (tmp_path / "o").read_bytes() == source.read_bytes()
    assert f"File already in latest proto format: {source}" in capfd.readouterr().err


def test_what_cannot_be_kept_gives_status_1_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "n").write_text('layers { layer { name: "r" type: "relu" pad: 2 } }')
    assert upgrade_net_proto_text.main([str(tmp_path / "n"), str(tmp_path / "o")]) == 1
    assert 'type: "ReLU"' in (tmp_path / "o").read_text()


def test_binary_keeps_the_numbers(tmp_path: Path) -> None:
    old = pb.NetParameter(name="n", input=["data"])
    layer = old.layers.add(name="fc", type=pb.V1LayerParameter.INNER_PRODUCT, blobs_lr=[1, 2])
    layer.blobs.add(num=1, channels=1, height=2, width=1, data=[1, 2], diff=[3, 4])
    layer.blobs.add(double_data=[5], shape=pb.BlobShape(dim=[1]))
    (tmp_path / "old").write_bytes(old.SerializeToString())
    paths = [str(tmp_path / "old"), str(tmp_path / "new")]
    assert upgrade_net_proto_binary.main(paths) == 0
    expected = pb.NetParameter(name="n")
    today = expected.layer.add(name="fc", type="InnerProduct", blobs=layer.blobs)
    today.param.add(lr_mult=1)
    today.param.add(lr_mult=2)
    assert (tmp_path / "new").read_bytes() == expected.SerializeToString()


def test_binary_of_a_net_of_today_keeps_its_bytes(tmp_path: Path) -> None:
    source = tmp_path / "m"
    source.write_bytes(
        pb.NetParameter(name="n", layer=[pb.LayerParameter(name="a")]).SerializeToString()
    )
    assert upgrade_net_proto_binary.main([str(source), str(tmp_path / "o")]) == 0
    assert (tmp_path / "o").read_bytes() == source.read_bytes()


def test_solver(tmp_path: Path) -> None:
    (tmp_path / "s").write_text('net: "n" solver_type: RMSPROP base_lr: 0.001')
    assert upgrade_solver_proto_text.main([str(tmp_path / "s"), str(tmp_path / "o")]) == 0
    # In the order of the fields' numbers: base_lr 5, net 24, type 40.
    assert (tmp_path / "o").read_text() == 'base_lr: 0.001\nnet: "n"\ntype: "RMSProp"\n'


def test_bad_input_and_usage(tmp_path: Path, capfd) -> None:
    (tmp_path / "n").write_text("layer {\n  nam: 3\n}")
    arguments = [str(tmp_path / "n"), str(tmp_path / "o")]
    assert upgrade_net_proto_text.main(arguments) == 1
    assert capfd.readouterr().err == (
        f'upgrade_net_proto_text: {tmp_path}/n:2:3: LayerParameter has no field "nam" '
        '(did you mean "name"?)\n'
    )
    assert upgrade_net_proto_binary.main(arguments) == 1
    assert "not a binary NetParameter" in capfd.readouterr().err
    assert upgrade_solver_proto_text.main([str(tmp_path / "none"), arguments[1]]) == 1
    assert not (tmp_path / "o").exists()
    assert upgrade_net_proto_text.main(arguments[:1]) == 2
    assert "expected FILE_IN and FILE_OUT, got 1 arguments" in capfd.readouterr().err
