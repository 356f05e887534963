"""Latency tables: what is timed, in which order, and how the sums are judged."""

import json
import time
from statistics import median

import pytest
import torch
from config_files import CONFIGS, read
from mmdet.registry import MODELS
from mmengine.config import Config
from nets import SUPERNETS
from tiny import STAGE, detector_cfg

from mmcr.cost import latency, timing
from mmcr.cost.beside import with_neck_and_heads
from mmcr.cost.budget import budget_space
from mmcr.cost.complexity import measure
from mmcr.cost.latency import latency_table, summary
from mmcr.cost.timing import conditions, rounds_of, spread_of, warnings_of
from mmcr.cost.units import count, units_of_choices
from mmcr.errors import UserError
from mmcr.models.detector import refitted, supernet_of
from mmcr.space import Arch
from mmcr.space.table import CostTable

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

SHAPE = (66, 40)
SECONDS_PER_MAC = 1e-6
STAGE_NET = dict(SUPERNETS['r18-stage'], **STAGE)
NAMES = ['r18-stage', 'r50-operation', 'x50-stage', 'mobilenetv2-stage']
NAMES += ['mobilenetv2-operation', 'cspnext-stage', 'cspdarknet-operation']


@pytest.fixture
def conv_clock(monkeypatch):
    """Time that only convolutions take: a constant for each multiply-accumulate."""
    now = 0.0

    def spend(seconds):
        nonlocal now
        now += seconds

    def work(module, _, output):
        if isinstance(module, torch.nn.Conv2d) and output.device.type == 'cpu':
            spend(output.numel() * module.weight[0].numel() * SECONDS_PER_MAC)

    hook = torch.nn.modules.module.register_module_forward_hook(work)
    monkeypatch.setattr(timing.time, 'perf_counter', lambda: now)
    yield spend
    hook.remove()


@pytest.mark.parametrize('name', NAMES)
def test_every_value_gets_the_time_of_its_blocks(conv_clock, name):
    net = MODELS.build(SUPERNETS[name])
    table = latency_table(net, {}, SHAPE, repeats=1, check=3)
    macs = count(net, {}, 'macs', SHAPE)
    slowest = macs.total(Arch({n: max(row) for n, row in macs.costs.items()}))
    unit = 1e3 * SECONDS_PER_MAC * slowest / 5000  # at most, in ms
    assert table.kind == 'latency' and table.unit == 'ms' and table.shape == SHAPE
    assert list(table.costs) == list(macs.costs)
    for choice, row in macs.costs.items():
        for value, cost in row.items():
            # every block of a stage is rounded by itself
            assert table.costs[choice][value] == pytest.approx(
                1e3 * SECONDS_PER_MAC * cost, abs=value * unit
            )
    assert len(table.about['check']['networks']) == min(3, net.space.size)
    assert table.about['check']['largest_error_percent'] < 0.5
    assert CostTable.from_json(table.about['macs']) == macs


def test_neck_and_heads_are_added_once(conv_clock):
    """Those of the found network, which is wider than the supernet."""
    net, final = MODELS.build(STAGE_NET), dict(base_channels=16)
    table = latency_table(net, final, (64, 64), repeats=1, check=0)
    of_detector = with_neck_and_heads(table, detector_cfg(STAGE_NET), net, final)
    assert of_detector.costs == table.costs
    assert of_detector.about['detector'] == detector_cfg(STAGE_NET)['type']
    wide = refitted(detector_cfg(STAGE_NET), [8, 16, 32, 64], [16, 32, 64, 128])
    found = dict(wide, backbone={**net.arch_cfg(net.arch), **final})
    parts = measure(Config(dict(model=found)), of_detector.shape).parts
    macs = sum(parts[part].macs for part in ('neck', 'rpn_head'))
    ms = of_detector.fixed - table.fixed
    # the RPN's ReLU and upsampling are in the count, linear layers have no time here
    assert ms == pytest.approx(1e3 * SECONDS_PER_MAC * macs, rel=0.01)
    assert f'neck and heads {ms:.3f}' in summary(of_detector)
    broken = dict(detector_cfg(STAGE_NET), neck=dict(type='FPN'))
    with pytest.raises(UserError, match='prediction of the FasterRCNN: .*FPN'):
        with_neck_and_heads(table, broken, net, {})


def test_the_sum_is_compared_with_whole_networks():
    net = MODELS.build(SUPERNETS['r18-stage'])
    state = torch.get_rng_state()
    table = latency_table(net, dict(base_channels=16), SHAPE, repeats=3, check=4)
    assert torch.equal(torch.get_rng_state(), state)
    networks = table.about['check']['networks']
    assert len({json.dumps(network['arch']) for network in networks}) == 4
    for network in networks:
        assert network['sum'] == table.total(Arch(network['arch']))
        assert network['measured'] > 0
        assert network['error_percent'] == pytest.approx(
            100 * (network['sum'] / network['measured'] - 1), abs=0.2
        )
    errors = [abs(network['error_percent']) for network in networks]
    assert table.about['check']['median_error_percent'] == median(errors)
    assert table.about['check']['largest_error_percent'] == max(errors)
    text = summary(table)
    assert f'largest {max(errors):.2f}%' in text and '66 x 40' in text


def test_the_table_serves_as_a_budget(tmp_path):
    net = MODELS.build(SUPERNETS['r18-operation'])
    table = latency_table(net, {}, SHAPE, repeats=1, check=0)
    assert table.about['check'] == dict(
        median_error_percent=None,
        largest_error_percent=None,
        rank_correlation=None,
        rank_correlation_of_rounds=None,
        networks=[],
    )
    path = tmp_path / 'latency.json'
    table.write(path)
    arch = next(iter(net.space))
    budget = dict(type='latency', value=table.total(arch), table=path)
    space = budget_space(net, {}, budget)
    assert arch in space and space.cost_of(arch) == table.total(arch)
    assert 'Error' not in summary(table)


def test_all_take_turns():
    order = []
    runs = [lambda i=i: order.append(i) for i in range(3)]
    rounds = rounds_of(runs, 'cpu', 4)
    assert [len(each) for each in rounds] == [3] * 4
    assert order == [0, 0, 0, 1, 1, 1, 2, 2, 2] + [0, 1, 2] * 4


def test_layouts_at_both_ends_are_counted_once(conv_clock, monkeypatch):
    """As in runtimes, which reorder what goes in and what comes out."""

    def session_of(net, _, runtime):
        assert runtime == 'onnxruntime'

        def run(image):
            output = net(image)
            last = output if torch.is_tensor(output) else output[-1]
            conv_clock(30 * SECONDS_PER_MAC * (image.numel() + last.numel()))

        return run

    monkeypatch.setattr(latency, 'session_of', session_of)
    monkeypatch.setattr(latency, 'check_runtime', lambda name: None)
    monkeypatch.setattr(timing, 'runtime_versions', lambda name: {name: '1'})
    net = MODELS.build(SUPERNETS['r18-stage'])
    table = latency_table(net, {}, SHAPE, repeats=1, check=3, runtime='onnxruntime')
    assert table.about['runtime'] == 'onnxruntime'
    assert table.about['versions']['onnxruntime'] == '1'
    assert table.about['check']['largest_error_percent'] < 0.5
    assert table.about['check']['rank_correlation'] == 1
    assert table.about['check']['rank_correlation_of_rounds'] is None  # of one round
    assert 'by onnxruntime on' in summary(table)


def test_how_well_whole_networks_rank_alike(monkeypatch):
    """Of five rounds, those between disturb the first network."""
    net = MODELS.build(SUPERNETS['r18-stage'])

    def rounds_of(runs, *_):
        wholes = [[1.0, 2.0, 3.0], [9.0, 2.0, 3.0]]
        units = [1.0] * (len(runs) - 3)
        return [[*units, *wholes[i % 2]] for i in range(5)]

    monkeypatch.setattr(latency, 'rounds_of', rounds_of)
    table = latency_table(net, {}, SHAPE, repeats=5, check=3)
    assert table.about['check']['rank_correlation_of_rounds'] == -0.5
    assert 'in odd rounds with even ones -0.5.' in summary(table)


@pytest.mark.slow
@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
def test_runtimes_are_timed(runtime, tmp_path):
    for package in ('onnxscript', runtime):
        pytest.importorskip(package)
    net = MODELS.build(SUPERNETS['r18-stage'])
    table = latency_table(net, {}, SHAPE, repeats=2, check=1, runtime=runtime)
    assert {'onnx', runtime} <= set(table.about['versions'])
    assert all(ms > 0 for row in table.costs.values() for ms in row.values())
    table.write(tmp_path / 'latency.json')
    arch = next(iter(net.space))
    limits = dict(limit=table.total(arch), table=tmp_path / 'latency.json')
    assert arch in budget_space(net, {}, dict(type='latency', **limits))


def test_conditions_that_spoil_a_table():
    quiet = dict(load=0.5, threads=1, cores=2, clock='wall', spread_percent=3.0)
    assert warnings_of(quiet, 'cpu') == []
    (busy,) = warnings_of(dict(quiet, load=1.5), 'cpu')
    assert 'a load of 1.5' in busy
    assert warnings_of(dict(quiet, load=1.5), 'cuda') == []
    assert warnings_of(dict(quiet, load=1.5, clock='processor'), 'cpu') == []
    (moving,) = warnings_of(dict(quiet, spread_percent=12.0), 'cuda')
    assert '12.0%' in moving
    assert spread_of([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2 / 3)
    assert spread_of([1.0]) == 0


def test_the_processors_time_is_without_that_of_others(monkeypatch):
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 1)
    assert conditions('cpu', 1, clock='processor')['clock'] == 'processor'

    def waits():
        time.sleep(0.05)

    ((wall,),) = rounds_of([waits], 'cpu', 1)
    ((own,),) = rounds_of([waits], 'cpu', 1, 'processor')
    assert own < 0.04 < wall
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 2)
    with pytest.raises(UserError, match='by one thread alone .* with 2 threads'):
        conditions('cpu', 1, clock='processor')


@pytest.mark.parametrize(
    'whole, step',
    [(3.0, 1), (9.9, 1), (10.1, 2), (61.0, 12), (10001.0, 2000)],
)
def test_costs_are_multiples_of_one_step(whole, step):
    net = MODELS.build(SUPERNETS['r18-operation'])
    units = units_of_choices(net, {}, SHAPE)
    kinds = {unit.kind for unit in units}
    blocks = sum(each.arch is units[0].arch for each in units)
    rounded = latency._rounded(units, dict.fromkeys(kinds, whole / blocks))
    assert set(rounded.values()) == {round(1e3 * whole / blocks / step) * step}


@pytest.mark.parametrize(
    'more, message',
    [
        (dict(repeats=0), 'repeats must be .* at least 1, but got 0'),
        (dict(check=-1), 'check must be .* at least 0, but got -1'),
        (dict(shape=(0, 8)), r'height and a width .* \(0, 8\)'),
        (dict(device='tpu'), "device must be .*but got 'tpu'"),
        (dict(device='meta'), "device must be .*but got 'meta'"),
        (dict(runtime='tensorrt'), "torch, onnxruntime, openvino, .*'tensorrt'"),
    ],
)
def test_bad_arguments(more, message):
    net = MODELS.build(SUPERNETS['r18-stage'])
    with pytest.raises(UserError, match=message):
        latency_table(**{**dict(backbone=net, final_backbone={}, shape=SHAPE), **more})


@pytest.mark.skipif(torch.cuda.is_available(), reason='for machines without one')
def test_no_gpu():
    net = MODELS.build(SUPERNETS['r18-stage'])
    with pytest.raises(UserError, match='cuda:1, but torch finds no CUDA'):
        latency_table(net, {}, SHAPE, 'cuda:1')


def test_the_found_network_is_the_configs():
    cfg = read('crnas/op_search_r50.py')
    net, final = supernet_of(cfg)
    assert final == cfg.test_cfg.final_backbone and len(net.space.choices) == 16
    assert all(parameter.is_meta for parameter in net.parameters())


@pytest.mark.parametrize(
    'name, message',
    [
        ('faster_rcnn/faster-rcnn_cr-r18_fpn_1x_coco.py', 'supernet.* fixed CRResNet'),
        ('_base_/schedules/schedule_1x.py', 'model.backbone'),
    ],
)
def test_configs_without_a_supernet(name, message):
    with pytest.raises(UserError, match=message):
        supernet_of(read(name))


def test_the_tool(tmp_path, run_tool, capsys):
    out = tmp_path / 'mine.json'
    config = CONFIGS / 'crnas/stage_search_r18.py'
    narrow = ('stage_choices.' + choice for choice in ('stage3=[2]', 'stage4=[2]'))
    options = [f'model.backbone.{choice}' for choice in narrow]
    arguments = '--shape 32 --device cpu --repeats 1 --check 2 --cfg-options'.split()
    printed = run_tool('latency_table.py', config, '--out', out, *arguments, *options)
    table = CostTable.read(out)
    assert table.shape == (32, 32)
    assert set(table.costs['stage3']) == {2}
    assert set(table.about) >= {'device', 'threads', 'versions', 'date', 'rounds'}
    assert set(table.about) >= {'runtime', 'load', 'warm_up', 'spread_percent'}
    assert 'Error of the sum over 2 whole backbones' in printed and str(out) in printed
    with pytest.raises(SystemExit) as stopped:
        run_tool('latency_table.py', tmp_path / 'none.py')
    assert stopped.value.code == 1
    assert capsys.readouterr().err.startswith('error: The config must be a file')
