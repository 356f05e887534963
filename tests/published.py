"""Figures of other authors that several tests look up."""

from mmcr.space import SearchSpace, detnas_size, detnas_space
from mmcr.space.table import CostTable

BLOCK_MACS = {  # the authors' own table, kinds 0 to 3
    'stage1.0': (13_396_992, 15_805_440, 19_418_112, 13_146_112),
    'stage1.1': (7_325_696, 8_931_328, 11_339_776, 12_343_296),
    'stage2.0': (26_304_768, 28_111_104, 30_820_608, 20_296_192),
    'stage2.1': (10_599_680, 11_603_200, 13_108_480, 16_746_240),
    'stage3.0': (30_670_080, 31_673_600, 33_178_880, 21_199_360),
    'stage3.1': (10_317_440, 10_819_200, 11_571_840, 15_899_520),
    'stage4.0': (30_387_840, 30_889_600, 31_642_240, 20_634_880),
    'stage4.1': (10_176_320, 10_427_200, 10_803_520, 15_476_160),
}
STEM_MACS = 3 * 16 * 3**2 * 112**2


def detnas_300m() -> SearchSpace:
    """DetNAS's 300M space, which costs what that table says."""
    choices = detnas_space(detnas_size('300M')).choices
    rows = {}
    for choice in choices:
        stage, block = choice.name.split('.')
        # all blocks of a stage but the first are alike
        macs = BLOCK_MACS[f'{stage}.{min(int(block), 1)}']
        rows[choice.name] = dict(enumerate(macs))
    table = CostTable('macs', 'multiply-accumulates', rows, STEM_MACS, (224, 224))
    return SearchSpace(choices, table)
