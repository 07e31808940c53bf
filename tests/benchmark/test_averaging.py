import torch

from torch_geometric_crystal.benchmark.averaging import WeightAverage


def states(number):
    generator = torch.Generator().manual_seed(0)
    return [{"w": torch.randn(5, generator=generator), "n": torch.tensor(k)} for k in range(number)]


def test_average_is_the_plain_mean():
    average = WeightAverage()
    for state in states(7):
        average.update(state)
    expected = torch.stack([state["w"].double() for state in states(7)]).mean(0)
    result = average.averaged(states(1)[0])
    assert result["w"].dtype == torch.float32
    assert torch.equal(result["w"], expected.float())
    assert average.count == 7


def test_integers_are_those_of_the_last_update():
    average = WeightAverage()
    for state in states(3):
        average.update(state)
    assert average.averaged(states(1)[0])["n"] == 2


def test_weights_that_change_later_do_not_change_the_average():
    average = WeightAverage()
    state = states(1)[0]
    expected = state["w"].clone()
    average.update(state)
    state["w"].zero_()
    assert torch.equal(average.averaged(state)["w"], expected)


def test_state_continues_to_the_same_bits():
    whole, first, second = WeightAverage(), WeightAverage(), WeightAverage()
    for state in states(6):
        whole.update(state)
    for state in states(6)[:3]:
        first.update(state)
    second.load_state_dict(first.state_dict())
    for state in states(6)[3:]:
        second.update(state)
    assert torch.equal(whole.averaged(states(1)[0])["w"], second.averaged(states(1)[0])["w"])


def test_reset_forgets():
    average = WeightAverage()
    average.update(states(1)[0])
    average.reset()
    average.update(states(2)[1])
    assert torch.equal(average.averaged(states(1)[0])["w"], states(2)[1]["w"])
