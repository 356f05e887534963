"""Some of the campaign's bad inputs, each of another kind of mistake."""

import os

import pytest

from campaign.bad_inputs import Campaign, sample


@pytest.fixture(scope='module')
def campaign(tmp_path_factory):
    before = os.getcwd()
    yield Campaign(tmp_path_factory.mktemp('campaign').resolve())
    os.chdir(before)


@pytest.mark.parametrize('case', sample(), ids=lambda case: case.name)
def test_a_bad_input_is_one_message_and_changes_nothing(campaign, case):
    assert campaign.run(case).faults == ()
