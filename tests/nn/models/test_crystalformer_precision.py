"""What half precision and tf32 cost: errors of the whole model, and which parts stay in float32."""

from contextlib import nullcontext

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.data import Batch

from torch_geometric_crystal.ops import use_backend

FIXTURES = ("real_beta", "real_simple", "multihead_beta")


class RoundedProducts(TorchFunctionMode):
    """Rounds what goes into every linear layer to tf32's 10 bits of mantissa, as a GPU's tensor cores do."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.nn.functional.linear:
            args = (to_tf32(args[0]), to_tf32(args[1]), *args[2:])
        return function(*args, **(kwargs or {}))


def to_tf32(x):
    """To the nearest number with 10 bits of mantissa; the gradient is that of the identity."""
    bits = x.detach().contiguous().view(torch.int32)
    rounded = ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)
    return x + (rounded - x).detach()


def case(fixture_model, real_crystals, name):
    model = fixture_model(name)
    transform = model.neighborhood(tol=1e-3)
    crystals = real_crystals(8, most_atoms=12)
    batch = Batch.from_data_list([transform(data) for data in crystals])
    return model, batch.apply(lambda value: value.float() if value.is_floating_point() else value)


def outputs_and_gradients(model, batch, context=None):
    with context or nullcontext():
        out = model(batch)
    return out.detach(), torch.autograd.grad(out.sum(), list(model.parameters()))


def errors(model, batch, context):
    """Largest error of an output over the spread of the outputs, and of all gradients over their norm."""
    with use_backend("blocked"):
        exact, exact_gradients = outputs_and_gradients(model, batch)
        out, gradients = outputs_and_gradients(model, batch, context)
    assert out.dtype == torch.float32
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
    flat, exact_flat = (torch.cat([part.flatten() for part in parts]) for parts in (gradients, exact_gradients))
    return ((out - exact).abs().max() / exact.std()).item(), ((flat - exact_flat).norm() / exact_flat.norm()).item()


@pytest.mark.parametrize("name", FIXTURES)
def test_bfloat16_autocast_costs_what_the_manual_says(fixture_model, real_crystals, name):
    model, batch = case(fixture_model, real_crystals, name)
    out, gradient = errors(model, batch, torch.autocast("cpu", dtype=torch.bfloat16))
    assert 1e-4 < out < 1e-2
    assert 1e-4 < gradient < 5e-3


@pytest.mark.parametrize("name", FIXTURES)
def test_tf32_products_cost_what_the_manual_says(fixture_model, real_crystals, name):
    model, batch = case(fixture_model, real_crystals, name)
    out, gradient = errors(model, batch, RoundedProducts())
    assert 1e-5 < out < 2.5e-3
    assert 1e-5 < gradient < 3e-3


class Dtypes(TorchDispatchMode):
    """Dtypes of the tensors that every operation takes, by its name."""

    def __init__(self):
        super().__init__()
        self.taken = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        tensors = [value for value in args if isinstance(value, torch.Tensor) and value.is_floating_point()]
        self.taken.setdefault(function.name().split("::")[1], []).append([tensor.dtype for tensor in tensors])
        return function(*args, **(kwargs or {}))


def test_autocast_reaches_the_layers_products_alone(fixture_model, real_crystals):
    model, batch = case(fixture_model, real_crystals, "multihead_beta")
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), Dtypes() as seen:
        model(batch)
    half, full = torch.bfloat16, torch.float32
    products = seen.taken["addmm"]
    assert len(products) == 4 * len(model.blocks) + 2
    assert all(set(dtypes) == {half} for dtypes in products[:-2])
    assert all(set(dtypes) == {full} for dtypes in products[-2:])  # the head's
    for name in ("infinite_attention", "reciprocal_attention"):
        assert len(seen.taken[name]) == len(model.blocks)
        assert all(set(dtypes) == {full} for dtypes in seen.taken[name])
    assert all(half not in dtypes for name in ("elu", "exp", "log", "addcmul") for dtypes in seen.taken.get(name, []))


def test_forces_are_in_float32_under_autocast(fixture_model, real_crystals):
    model, batch = case(fixture_model, real_crystals, "multihead_beta")
    batch.pos.requires_grad_()
    results = []
    for context in (nullcontext(), torch.autocast("cpu", dtype=torch.bfloat16)):
        with context:
            out = model(batch)
        results.append(torch.autograd.grad(out.sum(), batch.pos)[0])
    exact, rounded = results
    assert rounded.dtype == torch.float32
    assert 1e-4 < ((rounded - exact).norm() / exact.norm()).item() < 5e-2


def test_model_of_half_precision_weights_runs(fixture_model, real_crystals):
    model, batch = case(fixture_model, real_crystals, "multihead_beta")
    exact = model(batch).detach()
    out = model.bfloat16()(batch)
    assert out.dtype == torch.bfloat16
    assert ((out - exact).abs().max() / exact.std()).item() < 0.2
