"""Which parts of a model stay in float32 where the others are in half precision."""

from contextlib import AbstractContextManager, nullcontext

import torch


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The dtype itself, or float32 for one of half precision."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def without_autocast(device: torch.device) -> AbstractContextManager:
    """A region in which operations keep the precision of their inputs."""
    enabled = torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if enabled else nullcontext()
