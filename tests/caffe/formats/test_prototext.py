"""prototext: errors with their place, and C++ protobuf's way of printing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caffe.errors import CaffeError
from caffe.formats.prototext import parse, text
from caffe.proto import caffe_pb2 as pb

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            'layer {\n  name: "conv"\n  bottm: "x"\n}',
            'n:3:3: LayerParameter has no field "bottm" (did you mean "bottom"?)',
        ),
        (
            "layer { pooling_param { pool: MXA } }",
            'n:1:31: PoolMethod has no value "MXA" (did you mean "MAX"?)',
        ),
        ("layer { phase: FOO }", 'n:1:16: Phase has no value "FOO"; expected TRAIN, TEST'),
        (
            "layers { type: CONV }",
            'n:1:16: LayerType has no value "CONV" (did you mean "CONVOLUTION"?)',
        ),
        ("layer {", 'n:1:7: Expected "}".'),
        ("layer { name: 3 }", "n:1:15: Expected string but found: '3'"),
        ("layer { clip_param { min: 0 } }", "n: required field layer[0].clip_param.max is not set"),
        ("\0\1\2", "n: binary data; expected a NetParameter as text"),
    ],
)
def test_error_is_one_line_with_its_place(source: str, expected: str) -> None:
    with pytest.raises(CaffeError) as error:
        parse(source.encode(), pb.NetParameter, "n")
    assert str(error.value) == expected


def test_setting_a_field_twice_is_an_error() -> None:
    with pytest.raises(CaffeError, match=r'^n:3:7: .*multiple "name"'):
        parse(b'layer {\nname: "a"\nname: "b"\n}', pb.NetParameter, "n")


def test_comments_may_be_in_any_encoding() -> None:
    net = parse(b'# caf\xe9\nname: "x"  # \xff\xfe', pb.NetParameter, "n")
    assert net.name == "x"


def test_byte_order_mark_is_skipped() -> None:
    assert parse(b'\xef\xbb\xbfname: "x"', pb.NetParameter, "n").name == "x"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.00390625, "0.00390625"),  # 1/256: six digits are exact
        (0.01, "0.01"),
        (1e-5, "1e-05"),
        (1e6, "1e+06"),
        (100000, "100000"),
        (16777216, "16777216"),  # 2^24: six digits are not, nine are
        (1 / 3, "0.333333343"),
        (float("inf"), "inf"),
        (-float("inf"), "-inf"),
        (float("nan"), "nan"),
        (3.4028234663852886e38, "3.40282347e+38"),  # FLT_MAX: six digits would overflow
        (-0.0, "-0"),
    ],
)
def test_floats_are_printed_as_cpp_prints_them(value: float, expected: str) -> None:
    assert text(pb.SolverParameter(base_lr=value)) == f"base_lr: {expected}\n"


def test_doubles_have_fifteen_or_seventeen_digits() -> None:
    blob = pb.BlobProto(double_data=[0.1, 1 / 3])
    assert text(blob) == "double_data: 0.1\ndouble_data: 0.33333333333333331\n"


def test_strings_are_escaped_and_print_parse_is_the_identity() -> None:
    name = "a\"b'c\\d\n\té\x01"
    net = pb.NetParameter(name=name)
    assert text(net) == 'name: "a\\"b\\\'c\\\\d\\n\\t\\303\\251\\001"\n'
    assert parse(text(net).encode(), pb.NetParameter, "n").name == name


def test_random_floats_survive_printing() -> None:
    values = np.random.default_rng(0).integers(0, 2**31, 2000, np.uint32).view(np.float32)
    blob = pb.BlobProto(data=values[np.isfinite(values)])
    again = parse(text(blob).encode(), pb.BlobProto, "n")
    assert list(again.data) == list(blob.data)


def test_solver_prints_as_the_reference_logged_it() -> None:
    """The reference printed its solver right after reading it, in the same order and form."""
    lines = (GOLDEN / "interop" / "reference_train.log").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.endswith("from parameters: ")) + 1
    end = next(i for i in range(start, len(lines)) if lines[i][:2] == "I2")
    logged = "\n".join(lines[start:end]) + "\n"
    path = GOLDEN / "interop" / "solver.prototxt"
    solver = parse(path.read_bytes(), pb.SolverParameter, "solver")
    # What `caffe train` sets before it prints.
    solver.train_state.level = 0
    solver.train_state.stage.append("")
    assert text(solver) == logged


@pytest.mark.parametrize("escape", [r"\0", r"\000", r"\x00"])
def test_null_characters_are_refused(escape: str) -> None:
    source = f'layer {{ name: "d" data_param {{ source: "a{escape}b" }} }}'
    message = r"^n: layer.data_param.source holds a null character"
    with pytest.raises(CaffeError, match=message):
        parse(source.encode(), pb.NetParameter, "n")


def test_a_backslash_is_no_null_character() -> None:
    net = parse(rb'name: "a\\0" layer { name: "\n" }', pb.NetParameter, "n")
    assert net.name == r"a\0"
