"""What scores depend on is told apart wherever it is written in a config."""

import pytest

from mmcr.files import file_digest
from mmcr.scoring.fingerprint import data_digest, metrics_digest


def plain(ann_file, **more):
    return dict(type='CocoDataset', ann_file=str(ann_file), **more)


def repeated(ann_file):
    return dict(type='RepeatDataset', times=2, dataset=plain(ann_file))


def joined(ann_file):
    other = plain('elsewhere.json')
    return dict(type='ConcatDataset', datasets=[other, plain(ann_file)])


@pytest.mark.parametrize('dataset', [plain, repeated, joined])
def test_an_annotation_file_counts_by_what_is_in_it(tmp_path, dataset):
    for name, text in (('a.json', 'one'), ('b.json', 'one'), ('c.json', 'two')):
        (tmp_path / name).write_text(text)
    a, b, c = (
        data_digest(dict(dataset=dataset(tmp_path / f'{name}.json'), batch_size=2))
        for name in 'abc'
    )
    assert a == b != c


def test_the_place_of_the_data_does_not_count(tmp_path):
    digests = set()
    for name in ('here', 'there'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'a.json').write_text('one')
        dataset = plain('a.json', data_root=str(tmp_path / name))
        digests.add(data_digest(dict(dataset=dataset)))
    assert len(digests) == 1


def test_the_place_of_remote_data_counts():
    digests = {
        data_digest(dict(dataset=plain('a.json', data_root=f's3://data/{name}/')))
        for name in ('v1', 'v1', 'v2')
    }
    assert len(digests) == 2


def test_metrics(tmp_path):
    (tmp_path / 'a.json').write_text('one')
    (tmp_path / 'b.json').write_text('two')

    def of(name='a.json', **more):
        return metrics_digest(dict(type='M', ann_file=str(tmp_path / name), **more))

    assert of() == of(backend='pycocotools')
    assert len({of(), of('b.json'), of(metric='segm')}) == 3


def test_a_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        'mmcr.scoring.fingerprint.file_digest',
        lambda path: read.append(path) or file_digest(path),
    )
    path = tmp_path / 'a.json'
    path.write_text('one')
    dataset = dict(dataset=joined(path))
    first = data_digest(dataset)
    assert data_digest(dataset) == first and len(read) == 1
    path.write_text('another')
    assert data_digest(dataset) != first and len(read) == 2
