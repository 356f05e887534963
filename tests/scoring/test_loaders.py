import pytest
from mmengine.config import ConfigDict
from tiny import loader_cfg

from mmcr.errors import UserError
from mmcr.scoring import loaders
from mmcr.scoring.loaders import build_loader, calibration_cfg

pytestmark = pytest.mark.usefixtures('quiet_mmdet')


def as_rank(monkeypatch, rank, world_size):
    monkeypatch.setattr(loaders, 'get_dist_info', lambda: (rank, world_size))


def image_ids(loader):
    return [[sample.img_id for sample in data['data_samples']] for data in loader]


@pytest.mark.parametrize('world_size', (1, 2, 3))
def test_ranks_share_whole_batches(monkeypatch, shapes, world_size):
    whole = image_ids(build_loader(loader_cfg(shapes, 'archval'), 'archval'))
    assert [len(ids) for ids in whole] == [2, 2, 2, 1]
    assert sorted(sum(whole, [])) == [1, 2, 3, 4, 5, 6, 7] != sum(whole, [])
    shared = {}
    for rank in range(world_size):
        as_rank(monkeypatch, rank, world_size)
        loader = build_loader(loader_cfg(shapes, 'archval'), 'archval')
        assert loader.sampler.num_batches == 4
        own = image_ids(loader)
        assert len(loader) == len(own) == len(loader.sampler.batches)
        shared.update(zip(loader.sampler.batches, own))
    assert [shared[j] for j in range(4)] == whole


def test_a_seeded_draw_of_images(shapes):
    def drawn(number, seed):
        loader = build_loader(loader_cfg(shapes, 'archtrain'), 'x', number, seed)
        return list(loader.sampler)

    draws = [drawn(4, seed) for seed in (0, 0, 1, 2)]
    assert draws[0] == draws[1] and len(set(draws[0])) == len(draws[0]) == 4
    assert set(draws[0]) != set(draws[2]) or set(draws[0]) != set(draws[3])
    assert drawn(None, 0) == drawn(99, 0) != drawn(None, 1)
    assert sorted(drawn(None, 0)) == [0, 1, 2, 3, 4, 5]
    assert drawn(4, 0) == drawn(None, 0)[:4]


def test_batches_hold_images_of_one_orientation():
    class Photos:
        def get_data_info(self, index):
            return dict(width=(60, 80)[index % 3 == 0], height=70)

        def __len__(self):
            return 20

    order = loaders._by_orientation(Photos(), list(range(20)), 4)
    assert sorted(order) == list(range(20))
    kinds = [{i % 3 == 0 for i in order[start : start + 4]} for start in (0, 4, 8, 12)]
    assert all(len(kind) == 1 for kind in kinds)
    assert kinds[0] != kinds[1]  # the order of their last images is kept

    class Unknown(Photos):
        def get_data_info(self, index):
            return {}

    assert loaders._by_orientation(Unknown(), [2, 0, 1], 2) == [2, 0, 1]


def test_a_training_loaders_habits_are_dropped(shapes):
    cfg = ConfigDict(loader_cfg(shapes, 'archval'))
    cfg.update(
        drop_last=True,
        batch_sampler=dict(type='AspectRatioBatchSampler'),
        sampler=dict(type='DefaultSampler', shuffle=True),
    )
    before = cfg.copy()
    plain = image_ids(build_loader(loader_cfg(shapes, 'archval'), 'x'))
    assert image_ids(build_loader(cfg, 'x')) == plain and len(plain) == 4
    assert cfg == before


def test_fewer_batches_than_processes_are_refused(monkeypatch, shapes):
    as_rank(monkeypatch, 0, 5)
    with pytest.raises(UserError, match=r'archval.*7 images.*2 make 4 for 5 processes'):
        build_loader(loader_cfg(shapes, 'archval'), 'archval')
    with pytest.raises(UserError, match='the calibration set.*0 images'):
        build_loader(loader_cfg(shapes, 'archval'), 'the calibration set', 0)


def test_only_some_batches_for_a_while(monkeypatch, shapes):
    whole = build_loader(loader_cfg(shapes, 'archval'), 'archval')
    batches = image_ids(whole)
    with whole.sampler.only([1, 3]):
        assert image_ids(whole) == [batches[1], batches[3]]
        assert len(whole) == 2
    assert image_ids(whole) == batches
    as_rank(monkeypatch, 1, 2)
    half = build_loader(loader_cfg(shapes, 'archval'), 'archval')
    with half.sampler.only([0, 2, 3]):
        assert image_ids(half) == [batches[3]]


def test_calibration_reads_the_training_set_like_archval(shapes):
    train, archval = loader_cfg(shapes, 'archtrain', 4), loader_cfg(shapes, 'archval')
    train['dataset']['pipeline'] = [dict(type='LoadImageFromFile')]
    train['dataset']['filter_cfg'] = dict(min_size=32)
    loader = build_loader(calibration_cfg(train, archval), 'x')
    assert sorted(sum(image_ids(loader), [])) == [1, 2, 3, 4, 5, 6]
    assert train['dataset']['pipeline'] == [dict(type='LoadImageFromFile')]


@pytest.mark.parametrize(
    'train', [None, {}, dict(dataset=dict(type='RepeatDataset', times=2, dataset={}))]
)
def test_calibration_needs_a_plain_training_set(shapes, train):
    with pytest.raises(UserError, match='training images.*calibration_dataloader'):
        calibration_cfg(train, loader_cfg(shapes, 'archval'))
