"""What budgets bound is what the built backbones cost."""

import random
import re

import pytest
import torch
from mmdet.registry import MODELS
from nets import SUPERNETS, WIDER, counted, in_mode, some_archs
from torch import nn

from mmcr.cost.budget import CostBudget, budget_name, budget_space
from mmcr.cost.units import (
    CostUnit,
    count,
    macs_of,
    run_on_meta,
    tabulate,
    units_of_choices,
)
from mmcr.errors import UserError
from mmcr.registry import BUDGETS
from mmcr.space import Budget, BudgetError, stage_arch, stage_blocks_of
from mmcr.space.table import CostTable

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

STAGE = {name: cfg for name, cfg in SUPERNETS.items() if name.endswith('stage')}
OPERATION = {name: cfg for name, cfg in SUPERNETS.items() if 'operation' in name}
SHAPE = (66, 40)  # even, as CSPDarknet wants it
SWIN_T = dict(embed_dims=96, num_heads=(3, 6, 12, 24), window_size=7, mlp_ratio=4)
MORE = dict.fromkeys(SUPERNETS, {}) | {  # that cost: stem, downsampling, plugins
    'stem': dict(deep_stem=True, avg_down=True),
    'caffe': dict(style='caffe', stem_channels=12),
    'cspnext-operation': dict(with_cp=True),
    'plugins': dict(
        plugins=[
            dict(
                cfg=dict(type='ContextBlock', ratio=0.25),
                stages=(False, True, False, True),
                position='after_conv3',
            )
        ]
    ),
}


def supernet(name='r50-stage', **more):
    return MODELS.build(dict(SUPERNETS.get(name, SUPERNETS['r50-stage']), **more))


def wider(net):
    """Arguments of a found network that is built wider than the supernet."""
    return WIDER[f'mmcr.{type(net).__name__}']


def built(net, final, arch):
    return MODELS.build({**net.arch_cfg(arch), **final})


def parameters(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize('name, more', MORE.items())
def test_counts_are_those_of_the_built_backbone(name, more):
    net = supernet(name, **more)
    final = wider(net)
    macs = count(net, final, 'macs', SHAPE)
    params = count(net, final, 'params')
    for arch in some_archs(net.space, 3):
        fixed = built(net, final, arch)
        total, convs = macs.total(arch), counted(fixed, SHAPE)
        # a context block has a matrix product beside its convs
        assert total > convs if name == 'plugins' else total == convs
        assert params.total(arch) == parameters(fixed)
    # the supernet's own width is another network
    assert macs.total(arch) > count(net, {}, 'macs', SHAPE).total(arch)


@pytest.mark.parametrize(
    'name, final, blocks, gmacs',
    [
        # as the networks' own papers and model zoos give them at 224x224, without
        # the classifier
        ('r18-stage', dict(base_channels=64), (2, 2, 2, 2), 1.81),
        ('r50-stage', dict(base_channels=64), (3, 4, 6, 3), 4.09),
        ('x50-stage', dict(base_channels=64, groups=32), (3, 4, 6, 3), 4.23),
        ('mobilenetv2-stage', dict(widen_factor=1.0), (2, 3, 4, 3, 3), 0.300),
        ('swin-stage', SWIN_T, (2, 2, 6, 2), 4.5),
        *[('convnext-stage', dict(arch='tiny'), (3, 3, 9, 3), 4.46)]
        * ('convnext-stage' in SUPERNETS),
    ],
)
def test_published_counts(name, final, blocks, gmacs):
    choices = {f'stage{i}': (n, 1) for i, n in enumerate(blocks, start=1)}
    table = count(supernet(name, stage_choices=choices), final, 'macs', (224, 224))
    assert table.total(stage_arch(blocks)) / 1e9 == pytest.approx(gmacs, rel=0.01)


@pytest.mark.parametrize('kind', ['macs', 'params'])
@pytest.mark.parametrize('name', [*STAGE, 'detnas-block'])
def test_the_members_are_those_within_the_budget(name, kind):
    net = supernet(name)
    options = dict(type=kind, **(dict(shape=SHAPE) if kind == 'macs' else {}))
    cost = count(net, wider(net), kind, SHAPE).total
    rng = random.Random(0)
    archs = [net.space.sample(rng) for _ in range(60)]
    middle = sorted(map(cost, archs))[20]

    space = budget_space(net, wider(net), dict(options, limit=middle))
    assert [arch in space for arch in archs] == [cost(a) <= middle for a in archs]
    assert space.budget == Budget(0, middle)
    with pytest.raises(BudgetError, match='nearest reachable costs are'):
        budget_space(net, wider(net), dict(options, limit=1))

    space = budget_space(net, wider(net), dict(options, value=middle, tolerance=8))
    expected = [a for a in archs if abs(cost(a) - middle) <= 0.08 * middle]
    assert [arch for arch in archs if arch in space] == expected
    assert 1 <= len(expected) < len(archs)
    assert all(space.cost_of(arch) == cost(arch) for arch in expected)


def test_without_tolerance_a_cost_is_met_exactly():
    net = supernet()
    arch = some_archs(net.space, 1)[0]
    value = count(net, {}, 'params').total(arch)
    exactly = dict(type='params', value=value, tolerance=0)
    assert arch in budget_space(net, {}, exactly)
    with pytest.raises(BudgetError, match=f'nearest .*{value}'):
        budget_space(net, {}, dict(exactly, value=value + 1))
    space = budget_space(net, {}, 6)  # of blocks
    assert list(space) == list(net.space.under(Budget.exactly(6)))
    at_most = budget_space(net, {}, dict(type='blocks', limit=6))
    assert at_most.budget == Budget(0, 6) and at_most.size > space.size
    assert budget_space(supernet('mobilenetv2-stage'), {}, 7.25).budget.low == 7.25


@pytest.mark.parametrize('name', OPERATION)
def test_dilations_change_no_cost_but_time(name):
    net = supernet(name)
    for kind in ('macs', 'params'):
        with pytest.raises(BudgetError, match=f'{kind} .*dilations.* leave budget out'):
            budget_space(net, {}, dict(type=kind, value=1e6))
    with pytest.raises(BudgetError, match='blocks .4. .* leave budget out'):
        budget_space(net, {}, 4)


def latency_file(path, net, final, **more):
    """As if a stage took 2 ms for its first block and 1.5 for each of the others."""
    macs = count(net, final, 'macs', SHAPE)
    rows = {name: {v: 0.5 + 1.5 * v for v in row} for name, row in macs.costs.items()}
    about = dict(macs=macs.to_json())
    table = CostTable('latency', 'ms', rows, 3.25, SHAPE, about)
    CostTable.from_json(dict(table.to_json(), **more)).write(path)
    return str(path)


@pytest.mark.parametrize(
    'name', ['r50-stage', 'r18-operation', 'mobilenetv2-operation']
)
def test_latency(tmp_path, name):
    net = supernet(name)
    path = latency_file(tmp_path / 'latency.json', net, wider(net))

    def latency(arch):
        return 3.25 + sum(0.5 + 1.5 * value for value in arch.values())

    value = latency(some_archs(net.space, 1)[0])
    budget = dict(type='latency', value=value, tolerance=10, table=path)
    space = budget_space(net, wider(net), budget)
    expected = [a for a in net.space if abs(latency(a) - value) <= 0.1 * value]
    assert list(space) == expected
    assert all(space.cost_of(arch) == latency(arch) for arch in expected)


def test_a_latency_table_of_a_larger_space_serves(tmp_path):
    path = latency_file(tmp_path / 'latency.json', supernet(), {})
    choices = dict(stage1=(1,), stage2=(2,), stage3=(1, 2), stage4=(1,))
    few = supernet(stage_choices=choices)
    space = budget_space(few, {}, dict(type='latency', value=12.75, table=path))
    assert [stage_blocks_of(arch) for arch in space] == [(1, 2, 1, 1)]


@pytest.mark.parametrize(
    'more, message',
    [
        (dict(kind='macs'), "kind latency, in ms.*kind 'macs'"),
        (dict(unit='s'), "in ms.*unit 's'"),
        (dict(shape=None), 'shape of the image.* None'),
        (dict(about={}), 'about.macs'),
        (dict(costs={'stage1': {'1': 1.0}}), 'table must hold the choices'),
        (dict(about=dict(macs=3)), 'cost table is .* but got 3'),
    ],
)
def test_latency_tables_that_serve_for_nothing(tmp_path, more, message):
    net = supernet()
    path = latency_file(tmp_path / 'latency.json', net, {}, **more)
    with pytest.raises(UserError, match=message):
        budget_space(net, {}, dict(type='latency', value=12, table=path))


def test_a_latency_table_of_another_backbone(tmp_path):
    path = latency_file(tmp_path / 'latency.json', supernet('r50-stage'), {})
    for net, final in (
        (supernet('r18-stage'), {}),
        (supernet('r50-stage'), dict(base_channels=16)),
    ):
        with pytest.raises(UserError, match='measured on another.*Measure again'):
            budget_space(net, final, dict(type='latency', value=12, table=path))
    with pytest.raises(UserError, match='can be read.*nowhere.json'):
        budget_space(net, {}, dict(type='latency', value=1, table='nowhere.json'))


@pytest.mark.parametrize(
    'budget, message',
    [
        (True, 'budget must be a finite number, but got True'),
        ('16', "finite number, but got '16'"),
        (dict(value=3), 'one of blocks, macs, params, latency, but got None'),
        (dict(type='flops', value=3), "but got 'flops'"),
        (dict(type=['macs'], value=3), r"but got \['macs'\]"),
        (dict(type='macs'), 'takes limit, of, shape, .* needs value or limit'),
        (dict(type='macs', tolerance=1), 'needs value or limit'),
        (dict(type='latency', limit=4), 'needs table, value or limit'),
        (dict(type='params', value=3, of='detector'), 'takes limit, tolerance, value'),
        (dict(type='macs', limit=4, value=4), 'no value or tolerance.* but got'),
        (dict(type='params', limit=4, tolerance=1), 'no value or tolerance.* but got'),
        (dict(type='macs', value=0), 'value of a budget must be above 0, but got 0'),
        (dict(type='macs', limit=-1), 'limit of a budget must be above 0, but got -1'),
        (dict(type='macs', value='4e9'), "value must be a .* '4e9'"),
        (dict(type='macs', limit=None), 'limit must be a finite number, but got None'),
        (dict(type='macs', value=4, tolerance=-1), 'from 0 to 100 percent.* -1'),
        (dict(type='macs', value=4, tolerance=None), 'tolerance must .* None'),
        (dict(type='macs', value=4, shape=800), 'height and a width .* 800'),
        (dict(type='macs', limit=4, of='neck'), "backbone or the detector.* of='neck'"),
        (dict(type='latency', value=4, table=3), 'name a file, but got 3'),
    ],
)
def test_bad_budgets(budget, message):
    net = supernet()
    with pytest.raises(UserError, match=message):
        budget_space(net, {}, budget)
    with pytest.raises(UserError, match=message):
        budget_name(budget)


@pytest.mark.parametrize(
    'budget, name',
    [
        (None, 'all'),
        (13.75, '13.75'),
        (dict(type='blocks', value=16), '16'),
        (dict(type='blocks', limit=16), 'blocks_max16'),
        (dict(type='macs', value=4.1e9, shape=[800, 1333], tolerance=1), 'macs_4.1e9'),
        (dict(type='macs', value=4100000000, shape=(64, 32)), 'macs_4.1e9_64x32'),
        (dict(type='macs', value=87416857600), 'macs_8.74168576e10'),
        (dict(type='macs', value=99999.5), 'macs_99999.5'),
        (dict(type='macs', value=2e11, of='detector'), 'macs_2e11_detector'),
        (dict(type='macs', limit=4.1e9, of='backbone'), 'macs_max4.1e9'),
        (dict(type='params', value=23500000, tolerance=0.5), 'params_2.35e7_tol0.5'),
        (dict(type='latency', value=12.5, table='a/latency.json'), 'latency_12.5'),
        (
            dict(type='latency', limit=40, table='rtx 3090.json'),
            'latency_max40_rtx-3090',
        ),
    ],
)
def test_names(budget, name):
    assert budget_name(budget) == name
    assert re.fullmatch(r'[\w.-]+', name)


def test_counting_leaves_no_trace():
    net = supernet()
    arch, state = net.arch, torch.get_rng_state()
    count(net, wider(net), 'macs', SHAPE)
    assert net.arch == arch
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.device.type == 'cpu' for p in net.parameters())


def test_a_layer_that_cannot_run_without_data():
    def run(x):
        return x if x.sum() > 0 else -x

    with pytest.raises(UserError, match='device meta, but a layer'):
        macs_of(CostUnit(run, (nn.ReLU(),), None, (1, 3, 4, 4)))


class ActivationsBudget(CostBudget):
    """Elements that convolutions give out: a kind that somebody adds."""

    kind = 'activations'

    def __init__(self, shape, **bounds):
        super().__init__(**bounds)
        self.shape = tuple(shape)

    def marks(self):
        return ['{}x{}'.format(*self.shape)]

    def table(self, backbone, final_backbone, detector=None):
        units = units_of_choices(backbone, final_backbone, self.shape)
        return CostTable('activations', 'elements', *tabulate(units, self._elements))

    def _elements(self, unit):
        return conv_elements(lambda: run_on_meta(unit))


def conv_elements(run):
    elements = []

    def add(module, _, output):
        if isinstance(module, nn.Conv2d):
            elements.append(output.numel())

    hook = nn.modules.module.register_module_forward_hook(add)
    run()
    hook.remove()
    return sum(elements)


def test_a_new_kind_is_one_registration(monkeypatch):
    monkeypatch.setattr(BUDGETS, '_module_dict', dict(BUDGETS.module_dict))
    BUDGETS.register_module(name='activations', module=ActivationsBudget)
    net = supernet()

    def cost(arch):
        fixed = in_mode(built(net, wider(net), arch), False)
        return conv_elements(lambda: fixed(torch.zeros(1, 3, *SHAPE)))

    archs = some_archs(net.space, 3)
    value = cost(archs[0])
    budget = dict(type='activations', value=value, tolerance=2, shape=SHAPE)
    space = budget_space(net, wider(net), budget)
    for arch in archs:
        assert (arch in space) == (0.98 * value <= cost(arch) <= 1.02 * value)
    assert space.cost_of(archs[0]) == value
    assert budget_name(budget) == 'activations_1.1376e5_66x40_tol2'
    with pytest.raises(UserError, match='limit, shape, tolerance, value and needs sh'):
        budget_space(net, {}, dict(type='activations', value=3))
