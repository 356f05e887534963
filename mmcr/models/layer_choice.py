"""One place of a supernet where one of several layers runs."""

from mmengine.model import BaseModule, ModuleDict
from torch import Tensor, nn


class LayerChoice(BaseModule):
    """Runs the active one of its options; the others take no part.

    Parameters of an inactive option are not in the autograd graph, so they get
    no gradient, no momentum and no weight decay.

    Args:
        choice: Name of the choice of the search space that decides here.
            Several places may share one choice (a conv and its norm).
        options: The layer that runs for each value of the choice.
    """

    def __init__(self, choice: str, options: dict[int, nn.Module]) -> None:
        super().__init__()
        self.choice = choice
        self.options = ModuleDict({str(v): layer for v, layer in options.items()})
        self.active = next(iter(options))

    @property
    def active_option(self) -> nn.Module:
        """The layer that the next forward runs."""
        return self.options[str(self.active)]

    def forward(self, x: Tensor) -> Tensor:
        return self.active_option(x)

    def extra_repr(self) -> str:
        return f'choice={self.choice!r}, active={self.active}'
