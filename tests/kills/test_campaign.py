"""A few kills of each job; `make kills` does many."""

import pytest
from kills.campaign import campaign, jobs


@pytest.mark.parametrize("job", [job.name for job in jobs() if job.name != "training by two"])
def test_nothing_is_lost(tmp_path, job):
    assert not campaign(tmp_path, kills=1, terms=1, seed=2, chosen=job)
