"""Checkpoints in the authors' format, from files too, and what is refused."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from torch_geometric_crystal.nn import Crystalformer

FIXTURE = Path(__file__).parents[2] / "fixtures" / "parity" / "multihead_beta.npz"


@pytest.fixture
def official():
    arrays = np.load(FIXTURE)
    weights = {key[2:]: torch.from_numpy(arrays[key]) for key in arrays if key.startswith("w/")}
    return weights, json.loads(str(arrays["config"]))


def test_state_dict_loads_from_a_file_from_lightning_and_under_a_prefix(tmp_path, official):
    weights, config = official
    expected = Crystalformer.from_official_state_dict(weights, config).state_dict()
    torch.save(weights, tmp_path / "plain.pt")
    prefixed = {f"model.{key}": value for key, value in weights.items()}
    torch.save({"state_dict": prefixed, "epoch": 3}, tmp_path / "lightning.ckpt")
    for name in ("plain.pt", "lightning.ckpt"):
        model = Crystalformer.from_official_state_dict(tmp_path / name, config)
        assert not model.training
        assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


def test_settings_are_translated(official):
    weights, config = official
    model = Crystalformer.from_official_state_dict(weights, config | {"value_pe_dist_max": 12.0, "reci_clamp": 1e-5})
    assert model.config()["basis_range"] == 12.0
    assert model.config()["reciprocal_floor"] == 1e-5
    assert model.config()["domain"] == ["multihead", "multihead"]
    without_list = {key: value for key, value in config.items() if key != "layer_domain"}
    assert Crystalformer.from_official_state_dict(weights, without_list).config()["domain"] == ["multihead"] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value_pe_width_scale": 2.0}, "value_pe_width_scale"),
        ({"embedding_dim": [64, 64]}, "embedding_dim"),
        ({"layer_domain": ["real", "fourier"]}, r"layer_domain'\]: expected names among .*received \['fourier'\]"),
        ({"layer_domain": ["real"]}, "layer_domain"),
    ],
)
def test_settings_that_are_not_supported_are_refused(official, change, message):
    weights, config = official
    with pytest.raises(ValueError, match=message):
        Crystalformer.from_official_state_dict(weights, config | change)


def test_missing_and_superfluous_weights_are_named(official):
    weights, config = official
    with pytest.raises(ValueError, match=r"superfluous"):
        Crystalformer.from_official_state_dict(weights | {"superfluous": torch.zeros(1)}, config)
    lacking = {key: value for key, value in weights.items() if key != "mlp.0.bias"}
    with pytest.raises(ValueError, match=r"state_dict: expected the key 'mlp.0.bias'"):
        Crystalformer.from_official_state_dict(lacking, config)
    with pytest.raises(ValueError, match=r"input_embeddings.weight"):
        Crystalformer.from_official_state_dict({}, config)


class _Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickle_payload_is_refused_and_not_executed(tmp_path, official):
    sentinel = tmp_path / "executed"
    torch.save({"state_dict": _Payload(sentinel)}, tmp_path / "evil.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(_Payload(sentinel)))
    for name in ("evil.pt", "raw.pt"):
        with pytest.raises(ValueError, match=r"never executed"):
            Crystalformer.from_official_state_dict(tmp_path / name, official[1])
    assert not sentinel.exists()


def test_truncated_file_is_refused(tmp_path, official):
    weights, config = official
    torch.save(weights, tmp_path / "whole.pt")
    (tmp_path / "half.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"half.pt.*damaged"):
        Crystalformer.from_official_state_dict(tmp_path / "half.pt", config)
    with pytest.raises(FileNotFoundError):
        Crystalformer.from_official_state_dict(tmp_path / "absent.pt", config)
