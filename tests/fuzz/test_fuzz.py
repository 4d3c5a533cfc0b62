"""No input breaks a reader: a fixed share of what `make fuzz` goes on with for longer."""

from __future__ import annotations

import pytest

from fuzz import campaign, families

SEED = 20261129
INPUTS = 800  # well under a minute on two cores
# Their inputs are hostile in what they hold.
WITHOUT_SOUND = {"known", "known_nets", "state_dict_content", "pickle_content"}


@pytest.fixture(scope="module")
def known() -> dict[str, families.Family]:
    return families.load(campaign.MODULES)


def test_sound_files_reach_the_readers(known) -> None:
    names = [name for name in known if name not in WITHOUT_SOUND]
    tasks = [{"family": name, "seed": 0, "indices": list(range(8)), "idle": True} for name in names]
    found = campaign.run(tasks, 2)
    assert [name for name in names if not found.counts[name]["fine"]] == []


def test_no_input_breaks_a_reader(known) -> None:
    found = campaign.run(campaign.fixed(list(known), INPUTS, SEED), 2)
    assert found.inputs >= INPUTS
    assert not found.failures, "\n" + found.table(SEED)
