"""The states that atoms start from, with and without the elements' properties."""

import pytest
import torch

from torch_geometric_crystal.nn import Crystalformer
from torch_geometric_crystal.nn.atom_embedding import AtomEmbedding
from torch_geometric_crystal.nn.models.element_features import element_features

Z = torch.tensor([1, 8, 26, 98])


def test_without_features_it_is_a_table():
    embedding = AtomEmbedding(98, 16)
    assert torch.equal(embedding(Z - 1), embedding.weight[Z - 1])
    assert list(embedding.state_dict()) == ["weight"]


def test_features_of_the_element_add_to_its_own_vector():
    embedding = AtomEmbedding(98, 16, element_features=True)
    added = torch.from_numpy(element_features())[Z - 1].float() @ embedding.features.weight.T
    torch.testing.assert_close(embedding(Z - 1), embedding.weight[Z - 1] + added)
    assert sorted(embedding.state_dict()) == ["features.weight", "weight"]


def test_both_parts_are_drawn_with_the_same_spread():
    embedding = AtomEmbedding(98, 512, element_features=True)
    embedding.draw(0.05)
    every = torch.arange(98)
    own = embedding.weight.std().item()
    assert own == pytest.approx(0.05, rel=0.05)
    assert (embedding(every) - embedding.weight).std().item() == pytest.approx(own, rel=0.1)


def test_like_elements_start_more_alike_with_features():
    plain, with_features = AtomEmbedding(98, 512), AtomEmbedding(98, 512, element_features=True)
    for embedding in (plain, with_features):
        embedding.draw(1.0)

    def likeness(embedding, first, second):
        return torch.cosine_similarity(*embedding(torch.tensor([first, second]) - 1).unsqueeze(1)).item()

    assert likeness(with_features, 57, 58) > 0.3 > abs(likeness(plain, 57, 58))  # La and Ce
    assert likeness(with_features, 57, 58) > likeness(with_features, 57, 9) + 0.1  # La and F


def test_the_model_takes_it_from_its_settings():
    plain, model = (Crystalformer(channels=16, num_blocks=1, element_features=given) for given in (False, True))
    added = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in plain.parameters())
    assert added == 92 * 16
    assert Crystalformer(**model.config()).embedding.features is not None


def test_the_gradient_of_a_common_element_does_not_lose_digits():
    number = 200_000
    embedding = AtomEmbedding(98, 4)
    index = torch.full((number,), 7)
    embedding(index).backward(torch.full((number, 4), 0.1))
    # One float32 added after the other is off by more than 1e-3 here.
    torch.testing.assert_close(embedding.weight.grad[7], torch.full((4,), 0.1 * number), rtol=2e-7, atol=0.0)
    assert embedding.weight.grad[torch.arange(98) != 7].eq(0).all()


def test_derivatives_of_any_order_are_those_of_the_table():
    embedding = AtomEmbedding(98, 3).double()
    index = torch.tensor([[4, 4], [0, 7]])
    assert embedding(index).shape == (2, 2, 3)

    def function(weight):
        return torch.func.functional_call(embedding, {"weight": weight}, index).pow(3)

    weight = torch.randn(98, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, weight, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, weight, fast_mode=True)
