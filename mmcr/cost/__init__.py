"""What networks cost: multiply-accumulates, parameters, time; and budgets of it."""

from mmcr.cost import latency as _latency  # noqa: F401, registers its kind of budget
