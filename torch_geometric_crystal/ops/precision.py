"""Which parts of a computation stay in float32 where the others are in half precision."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The dtype itself, or float32 for one of half precision."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def without_autocast(device: torch.device) -> AbstractContextManager:
    """A region in which operations keep the precision of their inputs."""
    enabled = torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if enabled else nullcontext()


def outside_autocast(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let a function run :func:`without_autocast` on the device of its first tensor."""

    @functools.wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with without_autocast(next(argument.device for argument in args if isinstance(argument, Tensor))):
            return function(*args, **kwargs)

    return run
