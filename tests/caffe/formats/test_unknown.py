"""What a text or a net asks for and is not known, told in one message."""

from __future__ import annotations

import pytest

import caffe
from caffe.errors import CaffeError
from caffe.formats import unknown
from caffe.formats.forks import FORK_TYPES
from caffe.formats.prototext import parse
from caffe.formats.unknown import Unknown
from caffe.layers.base import REGISTRY
from caffe.proto import caffe_pb2 as pb

TEXT = """name: "n"  # a comment with { and "quotes
layer {
  name: "a" type: "Polynomial" bottom: 'x' top: "y"
  polynomial_param { degree: 3 coefficients: [1, -2.5, 3e-4] inner < deep: "}" ; deeper {} > }
  pooling_param { pool: MEDIAN kernel_size: 3 }
}
layer { name: "b" type: "Polynomial" polynomial_param: { degree: 2 } strange: - 1 }
layer { name: "c" type: "ReLU" relu_param { negative_slope: 0.1 } }
"""


def message(text: str, kind: type = pb.NetParameter) -> str:
    with pytest.raises(Unknown) as error:
        parse(text.encode(), kind, "n.prototxt")
    return str(error.value)


def test_every_field_value_and_type_is_named_with_its_places() -> None:
    said = message(TEXT)
    assert said.startswith(
        'n.prototxt:4:3: LayerParameter has no field "polynomial_param"; also at 7:38; '
    )
    assert "PoolMethod has no value 'MEDIAN': 5:25" in said
    assert "LayerParameter has no field 'strange': 7:70" in said
    assert "unknown layer type 'Polynomial' (layers 'a', 'b')" in said
    assert "degree" not in said  # inside what is unknown nothing is
    assert "\n" not in said


def test_no_far_fetched_name_is_offered() -> None:
    assert "did you mean" not in message("layer { permutation_param { order: 1 } }")
    assert 'did you mean "pooling_param"' in message("layer { poling_param { pad: 1 } }")


def test_many_places_are_counted() -> None:
    said = message("layer { odd: 1 }\n" * 30)
    assert said == (
        'n.prototxt:1:9: LayerParameter has no field "odd"; also at 2:9, 3:9, 4:9, 5:9, 6:9, 7:9 '
        "and 23 more places"
    )


def test_a_fault_of_the_text_is_still_that() -> None:
    with pytest.raises(CaffeError, match=r"^n:1:15: String missing ending quote") as error:
        parse(b'layer { name: "x }\nlayer { odd: 1 }', pb.NetParameter, "n")
    assert not isinstance(error.value, Unknown)


@pytest.mark.parametrize("end", ["", "{", "{ a", "{ a:", "{ a: [", "{ a: [1,", '{ a: "x" "y'])
def test_texts_that_end_early(end: str) -> None:
    assert unknown.Reading(f"odd: 1 layer {end}", pb.NetParameter.DESCRIPTOR).names


def test_all_unknown_types_of_a_net_are_named_with_their_layers() -> None:
    net = parse(
        b"""name: "n" layer { name: "x" type: "Input" top: "x" }
        layer { name: "p" type: "Foo" } layer { name: "q" type: "Bar" }
        layer { name: "r" type: "Foo" } layer { name: "s" type: "Own" python_param { module: "m" } }
        """,
        pb.NetParameter,
        "n",
    )
    with pytest.raises(Unknown) as error:
        caffe.Net(net, phase=caffe.TEST)
    assert str(error.value) == (
        "net 'n': unknown layer types 'Foo' (layers 'p', 'r'), 'Bar' (layer 'q')"
    )


def test_the_fork_is_guessed_from_what_only_it_has() -> None:
    said = message("layer { forward_type: FLOAT16 odd: 1 } layer { backward_type: FLOAT16 }")
    assert said.endswith("; it looks like a net of NVCaffe")
    said = message('larc: true odd: 1 larc_policy: "clip"', pb.SolverParameter)
    assert said.endswith("; it looks like a solver of NVCaffe")


def test_a_type_of_a_fork_is_called_that() -> None:
    assert not set(FORK_TYPES) & set(REGISTRY), "a type that is here now is none of these"
    net = parse(
        b'layer { name: "x" type: "Input" top: "x" } layer { name: "t" type: "OctreeConv" }',
        pb.NetParameter,
        "n",
    )
    with pytest.raises(CaffeError) as error:
        caffe.Net(net, phase=caffe.TEST)
    said = "layer 't': unknown layer type 'OctreeConv', which is of microsoft/O-CNN"
    assert str(error.value) == said
    net.layer.add(name="u", type="OctreePooling")
    with pytest.raises(Unknown, match=r"it looks like a net of microsoft/O-CNN$"):
        caffe.Net(net, phase=caffe.TEST)


def test_a_long_list_is_not_shortened(capsys) -> None:
    from boundary.running import status

    text = "".join(f"layer {{ odd_{i}: 1 }}\n" for i in range(60))

    def main() -> None:
        parse(text.encode(), pb.NetParameter, "n.prototxt")

    assert status("caffe", main) == 1
    said = capsys.readouterr().err
    assert "'odd_59': 60:9" in said
    assert " ... " not in said
