import enum
import functools
import importlib.util
import linecache
import sys

import numpy as np
import pytest
import torch
from torch_geometric.transforms import BaseTransform, Compose, RadiusGraph

from torch_geometric_crystal.datasets.fingerprint import FingerprintError, describe, hash_file, hash_text


class Silent(BaseTransform):
    """A transform whose repr tells nothing of its settings, as PyG's default."""

    def __init__(self, value):
        self.value = value

    def forward(self, data):
        return data


class Slotted:
    __slots__ = ("value",)


class Color(enum.Enum):
    RED = 1
    BLUE = 2


def scaled(data, factor=1.0):
    return data * factor


def scaler(factor):
    return lambda data: data * factor


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Silent(1), Silent(2)),
        (Silent(1), Silent(1.0)),
        (Silent(None), Silent("None")),
        (Silent((1, 2)), Silent([1, 2])),
        (Silent({"a": 1}), Silent({"a": 2})),
        (Silent({1, 2}), Silent({1, 3})),
        (Silent(Color.RED), Silent(Color.BLUE)),
        (Silent(torch.tensor([1.0])), Silent(torch.tensor([2.0]))),
        (Silent(np.array([1.0])), Silent(np.array([1.0], dtype=np.float32))),
        (Silent(torch.float32), Silent(torch.float64)),
        (Silent(Silent(1)), Silent(Silent(2))),
        (Silent(int), Silent(float)),
        (Compose([Silent(1)]), Compose([Silent(1), Silent(1)])),
        (RadiusGraph(1.0), RadiusGraph(2.0)),
        (scaler(1), scaler(2)),
        (functools.partial(scaled, factor=1.0), functools.partial(scaled, factor=2.0)),
        (scaled, scaler(1)),
        (Silent(1).forward, Silent(2).forward),
        (torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)),
        (None, Silent(None)),
    ],
)
def test_things_that_may_act_differently_are_described_differently(one, other):
    assert describe(one) != describe(other)


@pytest.mark.parametrize(
    "make",
    [lambda: Silent({"b": {3, 1}, "a": [torch.ones(2)]}), lambda: scaler(2), lambda: Silent(scaled)],
)
def test_equal_things_are_described_equally(make):
    assert describe(make()) == describe(make())


def test_an_edited_class_is_described_differently(tmp_path, monkeypatch):
    descriptions = []
    for body in ("return data", "return None"):
        path = tmp_path / "edited_module.py"
        path.write_text(f"class Edited:\n    def __call__(self, data):\n        {body} # {len(body)}\n")
        spec = importlib.util.spec_from_file_location("edited_module", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "edited_module", module)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        spec.loader.exec_module(module)
        linecache.clearcache()
        descriptions.append(describe(module.Edited()))
    assert descriptions[0] != descriptions[1]


def test_state_that_cannot_be_seen_is_refused():
    with pytest.raises(FingerprintError, match="Slotted keeps its state"):
        describe(Silent(Slotted()))


def test_a_thing_that_refers_to_itself_is_refused():
    thing = Silent(None)
    thing.value = [thing]
    with pytest.raises(FingerprintError, match="refers to itself"):
        describe(thing)


def test_an_array_of_objects_is_refused():
    with pytest.raises(FingerprintError, match="array of Python objects"):
        describe(np.array([object()]))


def test_hash_of_texts_depends_on_where_one_ends():
    assert hash_text("ab", "c") != hash_text("a", "bc")


def test_hash_of_a_file_is_its_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert hash_file(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
