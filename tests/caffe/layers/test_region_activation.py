"""Region by hand."""

import math

import torch
from cases import Case, make_layer


def test_values_of_a_place_stand_one_behind_another_and_scores_are_activated():
    layer = make_layer(
        "Region",
        Case(
            "region_param { classes: 2 boxes_of_each_grid: 1 softmax: true }",
            [(1, 7, 1, 2)],
        ),
    )
    # At column 0 the channels hold 0 to 6, at column 1 zeros.
    x = torch.zeros(1, 7, 1, 2)
    x[0, :, 0, 0] = torch.arange(7)
    y = layer.forward([x], []).flatten().tolist()
    share = 1 / (1 + math.e)
    expected = [0, 1, 2, 3, 1 / (1 + math.exp(-4)), share, 1 - share]
    torch.testing.assert_close(torch.tensor(y[:7]), torch.tensor(expected))
    assert y[7:] == [0, 0, 0, 0, 0.5, 0.5, 0.5]
