"""Operations choose the precision of their own products: autocast stays outside of them."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def without_autocast(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let a function of tensors run with autocast switched off on the device of its first tensor."""

    @functools.wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        device = next(argument.device.type for argument in args if isinstance(argument, Tensor))
        with torch.autocast(device, enabled=False):
            return function(*args, **kwargs)

    return run
