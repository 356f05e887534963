"""mmdet's own configs, made as small as tests want them."""

import copy
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import BaseMetric, Evaluator
from nets import fixed_of
from tiny import CLASSES, loader_cfg, metric_cfg

from mmcr.cost.macs import shapes_only
from mmcr.data.sets import pipelines
from mmcr.models.backbones.stochastic_depth import NumbersOnCPU
from mmcr.models.detector import refitted
from mmcr.models.norms import learns_statistics
from mmcr.scoring import CandidateEvaluator
from mmcr.scoring.loaders import annotations_first, build_loader

SIZE = 128
STAGE_CHOICES = dict(stage1=(1, 2), stage2=(1, 2), stage3=(1, 2), stage4=(1, 2))
#: With two networks of ResNet-18's cost.
RUN_CHOICES = dict(stage1=(1, 2), stage2=(2, 3), stage3=(2,), stage4=(2,))
#: What a test needs less of than a detector, by key, wherever it stands in the model.
LESS = dict(
    num_queries=20,
    num_proposals=20,
    num_layers=2,
    stacked_convs=1,
    num_points=64,
    nms_pre=40,
    max_per_img=20,
    num_dn_queries=4,
    num=16,
    max_num=20,
)
#: Of a ResNet, what another kind of backbone does not take.
START = ('init_cfg', 'frozen_stages', 'norm_eval', 'pretrained')


def mmdets(name: str) -> Config:
    path, _ = Config._get_cfg_path(f'mmdet::{name}.py', '')
    return Config.fromfile(path)


def theirs(cfg: Config) -> tuple[list[int], list[int]]:
    """Channels and strides of what mmdet's own backbone gives out."""
    with NumbersOnCPU(), torch.device('meta'):
        net = MODELS.build(own_backbone(cfg))
        with shapes_only(net):
            outs = net(torch.zeros(1, 3, 256, 256))
    return [out.shape[1] for out in outs], [256 // out.shape[-1] for out in outs]


def own_backbone(cfg: Config) -> dict:
    return {k: v for k, v in cfg.model.backbone.items() if k not in START[:1]}


def kind_of(cfg: Config) -> str:
    return str(cfg.model.backbone.type).rpartition('.')[2]


def is_csp(cfg: Config) -> bool:
    return kind_of(cfg).startswith('CSP')


def stays(cfg: Config) -> bool:
    """Whether the host's own kind of backbone is searched."""
    return is_csp(cfg) or kind_of(cfg) in ('ResNet', 'ResNeXt', 'ConvNeXt')


def searchable(cfg: Config, **more) -> dict:
    """The host's backbone as one of ours, or a ResNet with its strides.

    All of the host's own settings stay but how it starts.
    """
    if stays(cfg):
        own = {k: v for k, v in cfg.model.backbone.items() if k not in START}
        own['type'] = f'mmcr.CR{kind_of(cfg)}'
    else:
        own = dict(type='mmcr.CRResNet', depth=50)
        strides = theirs(cfg)[1]
        own['out_indices'] = tuple(s.bit_length() - 3 for s in strides)
    return {**own, **more}


def small(value: object, classes: int = len(CLASSES)) -> object:
    """A model's config with less of everything, and the classes of the tests."""
    if isinstance(value, list | tuple):
        return type(value)(small(each, classes) for each in value)
    if not isinstance(value, dict):
        return value
    found = {key: small(entry, classes) for key, entry in value.items()}
    for key, most in LESS.items():
        if key == 'num_layers' and 'layer_cfg' not in found:
            continue  # of another kind than a transformer's
        if isinstance(found.get(key), int):
            found[key] = min(found[key], most)
    for key in ('num_classes', 'num_things_classes'):
        if key in found:
            found[key] = classes
    if 'num_stuff_classes' in found:
        found['num_stuff_classes'] = 0
    if 'instance_on' in found:
        found.update(instance_on=True, panoptic_on=False)
    for key in ('score_thr', 'filter_thr'):
        if found.get(key):
            found[key] = 0.0
    if str(found.get('type')).endswith('SyncBN'):  # which needs a GPU
        found['type'] = 'BN'
    weights = found.get('class_weight')
    if isinstance(weights, list | tuple):
        found['class_weight'] = [1.0] * classes + [weights[-1]]
    return found


def shrunk(cfg: Config, plain: bool = False) -> ConfigDict:
    """The detector with a narrow stage supernet, of little depth and few queries.

    `plain`: with a narrow fixed backbone.
    """
    own, model = searchable(cfg), small(copy.deepcopy(cfg.model.to_dict()))
    deep = 'dcn' in own or 'plugins' in own or 'ResNeXt' in own['type']
    if is_csp(cfg):  # mmdet's start would let features fade to the size of rounding
        own.update(widen_factor=0.125, init_cfg=None)
        model['neck']['init_cfg'] = None
    elif 'arch' in own:  # ConvNeXt
        own['arch'] = dict(depths=(2, 2, 2, 2), channels=(8, 16, 32, 64))
    else:
        own.update(depth=50 if deep else 18, base_channels=8, norm_eval=False)
    if not plain:
        own.update(supernet='stage', stage_choices=STAGE_CHOICES)
    if 'num_groups' in own.get('norm_cfg', {}):
        own['norm_cfg'] = dict(own['norm_cfg'], num_groups=4)
    model['data_preprocessor']['batch_augments'] = None  # to sizes of real images
    narrow = MODELS.build(small(own))
    model['backbone'] = small(own)
    return ConfigDict(refitted(model, theirs(cfg)[0], narrow.out_channels))


def loaders(cfg: Config, root: Path) -> dict[str, dict]:
    """Of the two splits, with what the host reads of annotations."""
    found = {split: loader_cfg(root, split) for split in ('archtrain', 'archval')}
    reads = [
        step
        for step in pipelines(cfg.train_dataloader.dataset)
        if step.type in ('LoadAnnotations', 'LoadPanopticAnnotations')
    ]
    more = [  # of CenterNet, whose heads want to know the border
        step
        for step in pipelines(cfg.val_dataloader.dataset)
        if str(step.get('type')).endswith('CenterCropPad')
    ]
    for loader in found.values():
        steps = {step['type']: step for step in loader['dataset']['pipeline']}
        own = dict(reads[0], type='LoadAnnotations', with_seg=False)
        steps['LoadAnnotations'].update(own)
        steps['Resize']['scale'] = (SIZE, SIZE)
        if more:
            loader['dataset']['pipeline'][2:2] = more
            steps['LoadImageFromFile']['to_float32'] = True
            steps['PackDetInputs']['meta_keys'] += ('border',)
    # or boxes and masks would be those of the image before it is resized
    return dict(found, archtrain=annotations_first(found['archtrain']))


def host_cfg(name: str, root: Path, work_dir: Path) -> Config:
    """Trains the shrunk supernet of a host for two iterations."""
    host = mmdets(name)
    model, of = shrunk(host), loaders(host, root)
    return Config(
        dict(
            default_scope='mmdet',
            experiment_name=f'{Path(name).name}-{work_dir.name}',
            log_level='ERROR',
            work_dir=str(work_dir),
            model=model,
            randomness=dict(seed=0),
            train_dataloader=of['archtrain'],
            val_dataloader=of['archval'],
            val_cfg=dict(type='ValLoop'),
            val_evaluator=metric_cfg(root),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=2, val_interval=9),
            optim_wrapper=dict(
                optimizer=dict(type='SGD', lr=1e-4), clip_grad=dict(max_norm=1.0)
            ),
            custom_hooks=[dict(type='mmcr.ArchSamplingHook', seed=7)],
            default_hooks=dict(checkpoint=None, logger=None),
        ),
        format_python_code=False,
    )


def run_cfg(name: str, root: Path) -> Config:
    """The shrunk host as its user has it, with settings of a short reallocation."""
    cfg = mmdets(name)
    of = loaders(cfg, root)
    cfg.model = shrunk(cfg, plain=True)
    cfg.train_dataloader = of['archtrain']
    cfg.val_dataloader = cfg.test_dataloader = of['archval']
    cfg.val_evaluator = cfg.test_evaluator = metric_cfg(
        root, 'CocoMetric', iou_thrs=None
    )
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
    cfg.val_cfg, cfg.test_cfg = dict(type='ValLoop'), dict(type='TestLoop')
    cfg.param_scheduler = None
    cfg.optim_wrapper.update(type='OptimWrapper')  # half precision needs a GPU
    cfg.optim_wrapper.pop('loss_scale', None)
    backbone = dict(stage_choices=RUN_CHOICES)
    if 'ResNet' in cfg.model.backbone.type:  # paths that differ before any training
        backbone['zero_init_residual'] = False
    scoring = dict(calibration_images=2, num_minibatches=1)
    cfg.reallocation = dict(
        budget='blocks',
        archval=2,
        trainings=2,
        candidates=1,
        dilations=False,
        width=1.0,
        backbone=backbone,
        supernet=dict(val_cfg=scoring),
        search=scoring,
    )
    return cfg


class Answers(BaseMetric):
    """Means over all detections, which move with anything that a detector computes."""

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            found = sample['pred_instances']
            self.results.append([found['scores'].double(), found['bboxes'].double()])

    def compute_metrics(self, results):
        scores, boxes = (torch.cat(column) for column in zip(*results))
        return dict(score=scores.mean().item(), place=boxes.mean().item() / SIZE)


def candidates_of(cfg: Config, model, root: Path, **options) -> CandidateEvaluator:
    """Scores the supernet of a config's detector."""
    archval = build_loader(cfg.val_dataloader, 'archval')
    calibration = build_loader(cfg.train_dataloader, 'calibration')
    metrics = evaluator(root, archval)
    return CandidateEvaluator(model, metrics, archval, calibration, **options)


def evaluator(root: Path, archval) -> Evaluator:
    found = Evaluator([metric_cfg(root), Answers(prefix='answers')])
    found.dataset_meta = archval.dataset.metainfo
    return found


def plain_loop(
    cfg: Config, candidates: CandidateEvaluator, arch, root: Path
) -> dict[str, float]:
    """The metrics of one path's own detector: weights inherited, norms from scratch."""
    backbone = candidates.backbone.arch_cfg(arch)
    model = MODELS.build(copy.deepcopy(ConfigDict(cfg.model, backbone=backbone)))
    model.backbone = fixed_of(candidates.backbone, arch)
    state = candidates.model.state_dict()
    beside = {k: v for k, v in state.items() if not k.startswith('backbone.')}
    assert not model.load_state_dict(beside, strict=False).unexpected_keys
    model.train()
    learning = [module for module in model.modules() if learns_statistics(module)]
    sums, count = [0.0] * len(learning), 0
    for index, data in enumerate(candidates.calibration):
        data = model.data_preprocessor(data, training=True)
        for norm in learning:  # a head that sees several levels averages these
            norm.reset_running_stats()
            norm.momentum = None
        torch.manual_seed(index)
        with torch.no_grad():
            model(**data, mode='loss')
        for i, norm in enumerate(learning):
            seen = torch.stack([norm.running_mean, norm.running_var]).double()
            sums[i] = sums[i] + seen * len(data['inputs'])
        count += len(data['inputs'])
    for norm, total in zip(learning, sums):
        mean, var = (total / count).float()
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)
    model.eval()
    metrics = evaluator(root, candidates.archval)
    for data in candidates.archval:
        with torch.no_grad():
            metrics.process(model.test_step(data), data)
    return metrics.evaluate(len(candidates.archval.dataset))
