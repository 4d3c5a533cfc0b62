"""Which pictures belong together, against lists made by hand."""

import random

import pytest

from data_tools.cli import DataError
from data_tools.recordings.association import (
    MILLISECOND,
    SECOND,
    Picture,
    by_key,
    by_time,
    key_of,
    last_time_of,
    nearest,
    parse_gap,
    time_of,
)


def ms(*times):
    return [round(time * MILLISECOND) for time in times]


CASES = {
    "each with its nearest": (ms(0, 33, 67), ms(4, 30, 70), 20, [(0, 0), (1, 1), (2, 2)]),
    "one depth near two colours": (ms(0, 10), ms(7), 20, [(1, 0)]),
    "the closest pair comes first, the rest takes what is left": (
        ms(0, 10),
        ms(8, 25),
        20,
        [(1, 0)],  # 10-8 first; 0 has only 8, which is taken, and 25 is too far
    ),
    "what is left finds another": (ms(0, 10), ms(8, 15), 20, [(0, 1), (1, 0)]),
    "a tie goes to the earlier colour": (ms(0, 20), ms(10), 20, [(0, 0)]),
    "a tie goes to the earlier depth": (ms(10), ms(0, 20), 20, [(0, 0)]),
    "the limit itself is too far": (ms(0), ms(20), 20, []),
    "just below the limit": (ms(0), ms(19.999), 20, [(0, 0)]),
    "0 asks for equal times": (ms(0, 5), ms(5, 6), 0, [(1, 0)]),
    "a gap in depth": (ms(0, 33, 67, 100), ms(1, 99), 20, [(0, 0), (3, 1)]),
    "times out of order": (ms(67, 0), ms(70, 2), 20, [(1, 1), (0, 0)]),
    "nothing": ([], ms(1), 20, []),
}


@pytest.mark.parametrize("case", CASES)
def test_nearest_in_time(case):
    color, depth, gap, expected = CASES[case]
    assert nearest(color, depth, gap * MILLISECOND) == expected


def test_like_tums_program_on_random_times():
    """TUM's rule written out: all pairs below the limit, sorted by difference, taken greedily."""
    draw = random.Random(3)
    for turn in range(300):
        gap = draw.choice((20, 1000))
        color, depth = (draw.sample(range(400), draw.randint(1, 25)) for _ in range(2))
        pairs = sorted((abs(a - b), a, b) for a in color for b in depth if abs(a - b) < gap)
        left, right, matches = set(color), set(depth), []
        for _, a, b in pairs:
            if a in left and b in right:
                left.remove(a)
                right.remove(b)
                matches.append((a, b))
        found = [(color[i], depth[j]) for i, j in nearest(color, depth, gap)]
        assert found == sorted(matches), turn


def test_any_gap_takes_little_memory():
    """All pairs of these would be four hundred million."""
    color = [i * 33 * MILLISECOND for i in range(20_000)]
    depth = [time + 5 * MILLISECOND for time in color]
    assert nearest(color, depth, 10**6 * SECOND) == [(i, i) for i in range(20_000)]


def test_unmatched_pictures_are_named_and_gaps_told():
    def side(part, *times):
        return [Picture(f"{part}{t}", f"{part}/{t}.png", str(t), t * MILLISECOND) for t in times]

    found = by_time(side("rgb", 0, 33, 67), side("depth", 5, 60, 200), 20 * MILLISECOND)
    assert [(pair.color, pair.depth, pair.gap) for pair in found.pairs] == [
        ("rgb0", "depth5", 5 * MILLISECOND),
        ("rgb67", "depth60", -7 * MILLISECOND),
    ]
    assert found.lonely == {"color": ["rgb/33.png"], "depth": ["depth/200.png"]}
    assert found.describe() == {
        "rule": "nearest in time, within 20 ms",
        "color": 3,
        "depth": 3,
        "pairs": 2,
        "unmatched": {"color": 1, "depth": 1},
        "gap_ms": {"median": 6.0, "max": 7.0},
    }


def test_equal_numbers_belong_together():
    def side(*stems):
        return [Picture(stem, stem, stem, None, key_of(stem)) for stem in stems]

    found = by_key(side("color_10", "color_2", "color_3"), side("2", "0010"), "numbers")
    assert [(pair.color, pair.depth) for pair in found.pairs] == [
        ("color_2", "2"),
        ("color_10", "0010"),
    ]
    assert found.lonely == {"color": ["color_3"], "depth": []}
    with pytest.raises(DataError, match="a1 and b01 are the same frame by their names"):
        by_key(side("a1", "b01"), side("1"), "numbers")


@pytest.mark.parametrize(
    ("stem", "time"),
    [
        ("1305031102.175304", 1305031102175304000),
        ("0.033", 33 * MILLISECOND),
        ("1305031102", 1305031102 * SECOND),
        ("1305031102175", 1305031102175 * MILLISECOND),
        ("1305031102175304", 1305031102175304000),
        ("1305031102175304123", 1305031102175304123),
        ("1305031102175.304", 1305031102175304000),
        ("0000012-000000400428", 400428000),
        ("000012", None),
        ("0000000012", None),  # a number, as KITTI has it
        ("frame-000012", None),
        ("1.2.3", None),
        ("\u0661.\u0662", None),
    ],
)
def test_times_in_names(stem, time):
    assert time_of(stem) == time


@pytest.mark.parametrize(
    ("stem", "time"),
    [
        ("rgb_1305031102.175304", 1305031102175304000),
        ("40753679_6791.123", 6791123 * MILLISECOND),
        ("Depth_1305031102175", 1305031102175 * MILLISECOND),
        ("depth_640x400_7_1305031102175ms", 1305031102175 * MILLISECOND),
        ("IMG_20110510_123822_175", 1305031102175 * MILLISECOND),
        ("2011-05-10T12-38-22.175304", 1305031102175304000),
        ("IMG_20111310_123822_175", None),  # there is no 13th month
        ("frame_000012", None),
        ("v1.2.3", None),
        ("12", None),
    ],
)
def test_times_at_the_end_of_names(stem, time):
    assert last_time_of(stem) == time


def test_gaps_as_users_write_them():
    assert parse_gap("20ms") == 20 * MILLISECOND
    assert parse_gap("0.5s") == SECOND // 2
    for wrong in ("20", "ms", "-1ms", "1e3ms", "nan", "20 ms"):
        with pytest.raises(ValueError, match="not a time"):
            parse_gap(wrong)
