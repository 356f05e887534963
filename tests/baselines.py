"""Small baselines, and their weights as others publish them."""

import torch
from mmdet.registry import MODELS
from nets import build, images, in_mode, randomised
from torch import nn

R18 = dict(type='mmdet.ResNet', depth=18, base_channels=8)
R50 = dict(type='mmdet.ResNet', depth=50, base_channels=8)
X50 = dict(type='mmdet.ResNeXt', depth=50, base_channels=8, groups=2, base_width=4)
MOBILE = dict(type='mmdet.MobileNetV2', widen_factor=0.25)


def source(cfg):
    """A trained baseline, as good as any."""
    return in_mode(build(cfg), False)


def reallocated(cfg, **more):
    """The CR backbone for a baseline; its norms are not neutral before."""
    name = cfg['type'].rpartition('.')[2].removesuffix('Transformer')
    cfg = dict(cfg, type=f'mmcr.CR{name}', **more)
    return in_mode(randomised(MODELS.build(cfg), seed=1), False)


def outputs(net):
    return net(images(count=1))


def mmpretrain_checkpoint(state):
    """What mmpretrain saves of an image classifier."""
    state = {f'backbone.{name}': weight for name, weight in state.items()}
    return dict(
        meta=dict(epoch=100),
        state_dict={**state, 'head.fc.weight': torch.zeros(2, 2)},
        optimizer=dict(param_groups=[]),
    )


def save_classifier(folder, cfg):
    """A file as mmpretrain writes it, of a baseline; returns its path."""
    path = folder / 'classifier.pth'
    torch.save(mmpretrain_checkpoint(source(cfg).state_dict()), path)
    return str(path)


class TorchvisionMobileNetV2(nn.Module):
    """torchvision's module tree, without its package."""

    def __init__(self):
        super().__init__()

        def conv(inside, outside, kernel=1, stride=1, groups=1):
            return nn.Sequential(
                nn.Conv2d(
                    inside, outside, kernel, stride, kernel // 2, 1, groups, bias=False
                ),
                nn.BatchNorm2d(outside),
                nn.ReLU6(),
            )

        layers, width = [conv(3, 32, 3, 2)], 32
        for expand, channels, blocks, stride in (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ):
            for i in range(blocks):
                hidden, step = width * expand, stride if i == 0 else 1
                block = nn.Module()
                block.conv = nn.Sequential(
                    *[conv(width, hidden)] * (expand != 1),
                    conv(hidden, hidden, 3, step, hidden),
                    nn.Conv2d(hidden, channels, 1, bias=False),
                    nn.BatchNorm2d(channels),
                )
                block.residual = i > 0
                layers.append(block)
                width = channels
        self.features = nn.Sequential(*layers, conv(width, 1280))
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(1280, 2))

    def forward(self, x):
        for layer in self.features:
            if isinstance(layer, nn.Sequential):
                x = layer(x)
            else:
                x = layer.conv(x) + x if layer.residual else layer.conv(x)
        return (x,)
