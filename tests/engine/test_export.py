"""What a search leaves for its user: read as it was written, or not at all."""

import json

import pytest

from mmcr.engine.export import read_arch, set_aside, write_best, write_front
from mmcr.errors import UserError
from mmcr.search import Complete, Proposal, Trial
from mmcr.space import Arch, resnet_stage_space

ARCH = Arch(dict(stage1=3, stage2=4, stage3=6, stage4=3))
CFG = dict(type='mmcr.CRResNet', depth=50, stage_blocks=tuple(ARCH.values()))


@pytest.fixture
def best(tmp_path):
    write_best(tmp_path, Trial(Proposal(Complete(ARCH)), 1 / 3, {'AP': 1 / 3}), CFG)
    return tmp_path / 'best_arch.json'


def test_a_flipped_bit_changes_no_architecture(best):
    whole = best.read_bytes()
    assert read_arch(best) == ARCH
    noticed = 0
    for i in range(0, 8 * len(whole), 3):
        flipped = bytearray(whole)
        flipped[i // 8] ^= 1 << i % 8
        best.write_bytes(flipped)
        try:
            assert read_arch(best) == ARCH  # as where white space is another
        except UserError:
            noticed += 1
    assert noticed > 2 * len(whole)


def test_files_of_earlier_versions_and_of_an_architecture_alone(best):
    record = json.loads(best.read_text())
    del record['crc32']
    for content in (record, ARCH.to_json()):
        best.write_text(json.dumps(content))
        assert read_arch(best) == ARCH
    best.write_text('[' * 100_000)
    with pytest.raises(UserError, match='must be a best_arch.json'):
        read_arch(best)


def test_what_is_set_aside_replaces_nothing(best):
    for number in (1, 2):
        set_aside(best.parent)
        assert {path.suffix for path in best.parent.iterdir()} == {
            f'.old{n}' for n in range(1, number + 1)
        }
        best.write_text(f'{number}')


def test_a_shorter_front_leaves_none_of_a_longer_one(tmp_path):
    for i in range(3):
        (tmp_path / f'front/{i}').mkdir(parents=True)
    space = resnet_stage_space()
    write_front(tmp_path, [Trial(Proposal(Complete(ARCH)), 0.5)], space)
    left = {path.name for path in (tmp_path / 'front').iterdir()}
    assert left == {'0', '1.old1', '2.old1'}
