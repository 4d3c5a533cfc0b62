"""A few kills of three jobs; `make kills` does many of more."""

import pytest
from kills.campaign import campaign


@pytest.mark.parametrize("job", ["training", "building", "to a folder"])
def test_nothing_is_lost(tmp_path, job):
    assert not campaign(tmp_path, kills=1, terms=1, seed=2, chosen=job)
