import os

import pytest

from boundary.names import LONGEST, component, original

NAMES = ["", "a", "00000012_b", "..", ".", ".hidden", "/etc/passwd", "../../x", "a/b", "a_b",
         "a%2Fb", "%", "%%", "50%", "50%25", "a\\b", "a\nb", "a\0b", "Tür", "\udcfcx", "\udcff",
         "~", "a b", "-x", "\u202e", "\x7f", "%2F", "\u2028"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_component_is_one_and_stays_in_its_folder(tmp_path, name):
    found = component(name)
    assert found not in ("", ".", "..")
    assert not set(found) & set("/\\\0\n")
    found.encode()
    (tmp_path / found).touch()
    assert os.listdir(tmp_path) == [found]
    assert original(found) == name


def test_different_names_have_different_components():
    assert len({component(name) for name in NAMES}) == len(NAMES)


def test_plain_names_stay():
    for name in ("00000012_kitchen 3", "Tür.png", "50 %", "a-b_c.d"):
        assert component(name) == name


def test_bytes_are_names_too():
    assert component(b"a/\xfc") == "a%2F%FC"


def test_long_names_stay_different():
    one, other = component("/" * 3000 + "a"), component("/" * 3000 + "b")
    assert one != other
    assert max(len(one.encode()), len(other.encode())) <= LONGEST
    assert component("ü" * 500).encode()
