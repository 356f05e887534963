from collections import Counter

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.patches import FancyBboxPatch

from mmcr.errors import UserError
from mmcr.models import CRMobileNetV2
from mmcr.report.sketch import (
    COLOURS,
    KINDS,
    OTHER_COLOUR,
    STEM,
    Network,
    architecture_figure,
    draw_architectures,
)
from mmcr.space import DETNAS_PUBLISHED, PUBLISHED

CAPTION = '192.10 G MACs  ·  58.06 M params  ·  38.30 AP'


def trio(key):
    published = PUBLISHED[key]
    return [
        Network(f'{key} baseline', published.baseline, caption=CAPTION),
        Network(f'{key} stage CR', published.stage_cr, (1, 1, 1, 1)),
        Network(f'{key} full CR', published.stage_cr, published.dilations),
    ]


def drawn(figure):
    """The blocks from left to right, the legend's left out."""
    patches = [p for p in figure.axes[0].patches if isinstance(p, FancyBboxPatch)]
    return sorted((p for p in patches if p.get_height() > 0.2), key=lambda p: p.get_x())


@pytest.mark.parametrize('suffix, magic', [('.png', b'\x89PNG'), ('.svg', b'<?xml')])
def test_the_suffix_chooses_the_format(tmp_path, suffix, magic):
    path = tmp_path / f'picture{suffix}'
    draw_architectures(trio('r50'), path)
    assert path.read_bytes().startswith(magic)


def test_every_block_in_the_colour_of_its_dilation():
    published = PUBLISHED['r50']
    stem, *blocks = drawn(architecture_figure(trio('r50')[2:]))
    assert to_hex(stem.get_facecolor()) == STEM
    rates = [rate for stage in published.dilations for rate in stage]
    assert [to_hex(b.get_facecolor()) for b in blocks] == [COLOURS[r] for r in rates]
    heights = Counter(round(b.get_height(), 6) for b in blocks)
    tallest_first = [heights[height] for height in sorted(heights, reverse=True)]
    assert tallest_first == list(published.stage_cr)
    assert len({round(block.get_width(), 6) for block in blocks}) == 1


def test_one_rate_for_a_stage_and_rates_beyond_the_papers():
    *_, last = drawn(architecture_figure([Network('net', (1, 2), (1, 4))]))
    assert to_hex(last.get_facecolor()) == OTHER_COLOUR
    assert Network('net', (1, 2), (1, 4)).blocks == [[1], [4, 4]]


def test_strides_of_mobilenet_v2_are_its_own():
    net = CRMobileNetV2()
    strides = [net.stage_strides[f'stage{i}'] for i in range(1, 6)]
    figure = architecture_figure([Network('net', net.stage_blocks, strides=strides)])
    texts = [t.get_text() for t in figure.axes[0].texts if 'stride' in t.get_text()]
    assert texts == [f'stride {stride}' for stride in (4, 8, 16, 16, 32)]
    heights = [round(b.get_height(), 6) for b in drawn(figure)[1:]]
    assert len(set(heights)) == 4 and heights == sorted(heights, reverse=True)
    untold = architecture_figure([Network('net', net.stage_blocks)])
    assert not any('stride' in text.get_text() for text in untold.axes[0].texts)


def test_kinds_of_blocks():
    kinds = ((2, 1), (0, 3))
    net = Network('net', (2, 2), kinds, legend=KINDS)
    figure = architecture_figure([net])
    _, *blocks = drawn(figure)
    assert [to_hex(b.get_facecolor()) for b in blocks] == [
        KINDS.colours[kind] for stage in kinds for kind in stage
    ]
    assert len(set(KINDS.colours.values())) == 4
    texts = Counter(text.get_text() for text in figure.axes[0].texts)
    assert net.text == '75 3X' and KINDS.title in texts
    # once in a block and once in the legend
    assert {texts[label] for label in '357X'} == {2}
    with pytest.raises(UserError, match='kinds must give a value for each'):
        Network('net', (2, 2), ((2, 1), (0,)), legend=KINDS)


def published_of_detnas():
    return [
        Network(key, [len(stage) for stage in net.blocks], net.blocks, CAPTION, KINDS)
        for key, net in DETNAS_PUBLISHED.items()
    ]


@pytest.mark.parametrize(
    'networks',
    [
        pytest.param(trio('r18'), id='r18'),
        pytest.param(trio('r50'), id='r50'),
        pytest.param(trio('r101'), id='r101'),
        pytest.param(published_of_detnas(), id='detnas'),
        pytest.param([Network('net', (1,) * 4, ((3,),) * 4, legend=KINDS)], id='small'),
        pytest.param([Network('net', (1,) * 4, (1, 4, 5, 6))], id='further'),
    ],
)
def test_texts_lie_inside_and_apart(networks):
    figure = architecture_figure(networks)
    FigureCanvasAgg(figure).draw()
    # digits stand on blocks of their own width
    boxes = [
        (text.get_text(), text.get_window_extent())
        for text in figure.axes[0].texts
        if len(text.get_text()) > 1
    ]
    for i, (text, box) in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, text
        for other, its_box in boxes[:i]:
            assert not box.overlaps(its_box), (text, other)
    texts = Counter(text for text, _ in boxes)
    assert texts['height: resolution of the stage'] == 1
    assert texts['stride 32'] == texts['stem'] == len(networks)
    for net in networks:
        assert texts[net.name] == 1 and (texts[net.caption] or not net.caption)
        assert texts[f'τ = {list(net.stage_blocks)}']


@pytest.mark.parametrize('values', [((1,), (1,)), (1,)])
def test_values_that_do_not_fit(values):
    with pytest.raises(UserError, match='dilations must give a value for each'):
        Network('net', (1, 2), values)
