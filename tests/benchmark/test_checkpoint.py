import errno
import inspect
import json
import os
import pickle
import zipfile

import pytest
import torch

from torch_geometric_crystal.benchmark.checkpoint import (
    CheckpointError,
    ModelCard,
    build_model,
    export_model,
    load_model,
    read_checkpoint,
    save_checkpoint,
)
from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.run import build_run_model
from torch_geometric_crystal.nn.models import CGCNN, Crystalformer


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def saved(tiny, tmp_path):
    model = tiny(num_targets=2)
    model.normalization.fit(torch.tensor([[1.0, 2.0], [3.0, 7.0]]))
    path = tmp_path / "model.ckpt"
    save_checkpoint(path, model.card, model.state_dict())
    return path, model


def same_weights(first, second):
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_loaded_model_has_the_weights_and_the_card(saved):
    path, model = saved
    loaded = load_model(path)
    assert same_weights(loaded, model)
    assert loaded.card == model.card
    assert loaded.normalization.mean.tolist() == [2.0, 4.5]
    assert not loaded.training


@pytest.mark.parametrize(
    ("name", "options"),
    [("crystalformer", {"channels": 16, "num_blocks": 1, "num_heads": 2, "num_basis": 8}), ("cgcnn", {"channels": 8})],
)
def test_published_models_survive_the_round_trip(name, options, tmp_path):
    model = build_model(name, options)
    card = ModelCard(
        model=name, model_options=model.config(), graph=repr(model.neighborhood()), target_names=("a",), units=("eV",)
    )
    save_checkpoint(tmp_path / "m.ckpt", card, model.state_dict())
    loaded = load_model(tmp_path / "m.ckpt")
    assert type(loaded) is {"crystalformer": Crystalformer, "cgcnn": CGCNN}[name]
    assert same_weights(loaded, model)


def test_averaged_weights_are_preferred(saved, tiny):
    path, model = saved
    average = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    save_checkpoint(path, model.card, model.state_dict(), average)
    assert load_model(path).out.weight.eq(1).all()
    assert load_model(path, "averaged").out.weight.eq(1).all()
    assert same_weights(load_model(path, "last"), model)


def test_asking_for_an_average_that_is_not_there_is_refused(saved):
    with pytest.raises(CheckpointError, match=r"has no averaged weights\. Ask for"):
        load_model(saved[0], "averaged")


def test_folder_stands_for_its_last_checkpoint(saved):
    path, model = saved
    path.rename(path.with_name("last.ckpt"))
    assert same_weights(load_model(path.parent), model)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_checkpoint_is_named_with_the_remedy(saved, share):
    path, _ = saved
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"model.ckpt': .*(damaged|nothing in it was executed)") as caught:
        load_model(path)
    assert caught.value.path == str(path)
    assert caught.value.remedy


@pytest.mark.parametrize("place", ["whole", "card", "training", "state_dict"])
def test_pickle_payload_is_refused_and_not_executed(saved, tmp_path, place):
    path, _ = saved
    payload = Payload(tmp_path / "executed")
    content = torch.load(path, weights_only=True)
    torch.save(payload if place == "whole" else content | {place: {"x": payload}}, path)
    with pytest.raises(CheckpointError, match="nothing in it was executed"):
        load_model(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_bare_pickle_is_refused_and_not_executed(tmp_path, protocol):
    path = tmp_path / "model.ckpt"
    path.write_bytes(pickle.dumps(Payload(tmp_path / "executed"), protocol))
    with pytest.raises(CheckpointError, match=r"model.ckpt"):
        load_model(path)
    assert not (tmp_path / "executed").exists()


def test_payload_smuggled_into_the_archive_is_not_executed(saved, tmp_path):
    path, _ = saved
    evil = tmp_path / "evil.ckpt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(evil, "w") as target:
        for name in source.namelist():
            content = (
                pickle.dumps(Payload(tmp_path / "executed"), 2) if name.endswith("data.pkl") else source.read(name)
            )
            target.writestr(name, content)
    with pytest.raises(CheckpointError, match="nothing in it was executed"):
        load_model(evil)
    assert not (tmp_path / "executed").exists()


def test_the_payload_would_run_if_it_were_unpickled(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "another"}, "not a checkpoint of torch_geometric_crystal"),
        ({"format_version": 99}, "format version 99"),
        ({"card": {"model": "tiny"}}, "incomplete"),
        ({"card": None}, "incomplete"),
        ({"state_dict": {}}, "does not fit its model 'tiny'"),
        ({"state_dict": 3}, "incomplete"),
    ],
)
def test_unsuitable_content_is_named(saved, change, message):
    path, _ = saved
    torch.save(torch.load(path, weights_only=True) | change, path)
    with pytest.raises(CheckpointError, match=message):
        load_model(path)


def test_card_that_is_not_this_models_is_refused(saved):
    path, _ = saved
    content = torch.load(path, weights_only=True)
    for change, message in (
        ({"model": "bigger"}, "does not fit its model 'bigger'"),
        ({"model_options": {"layers": 3}}, "does not fit its model 'tiny'"),
        ({"graph": "PeriodicRadiusGraph(cutoff=9.0)"}, "was trained with PeriodicRadiusGraph"),
    ):
        torch.save(content | {"card": content["card"] | change}, path)
        with pytest.raises(CheckpointError, match=message):
            load_model(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nothing.ckpt': no such file"):
        load_model(tmp_path / "nothing.ckpt")


def test_full_disk_leaves_the_old_checkpoint_whole(saved, monkeypatch):
    path, model = saved
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, model.card, model.state_dict())
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_exported_model_predicts_the_same(saved, make_crystals, tmp_path):
    from torch_geometric_crystal.benchmark.prediction import predict

    _, model = saved
    export_model(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.card == model.card
    crystals = make_crystals(4)
    assert torch.equal(predict(loaded, crystals).prediction, predict(model, crystals).prediction)


def test_exported_settings_are_readable_json(saved, tmp_path):
    export_model(saved[1], tmp_path / "model.safetensors")
    card = json.loads((tmp_path / "model.json").read_text())
    assert (card["model"], card["target_names"]) == ("tiny", ["target0", "target1"])


@pytest.mark.parametrize("damage", ["weights", "json", "no json"])
def test_damaged_export_is_named(saved, tmp_path, damage):
    path = tmp_path / "model.safetensors"
    export_model(saved[1], path)
    if damage == "weights":
        path.write_bytes(path.read_bytes()[:50])
    elif damage == "json":
        path.with_suffix(".json").write_text("{")
    else:
        path.with_suffix(".json").unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_model(path)


def test_an_export_has_one_set_of_weights(saved, tmp_path):
    export_model(saved[1], tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="has one set of weights"):
        load_model(tmp_path / "model.safetensors", "last")


def test_export_needs_the_suffix(saved, tmp_path):
    with pytest.raises(ValueError, match=r"path: expected a name that ends in .safetensors"):
        export_model(saved[1], tmp_path / "model.bin")


def test_unknown_model_and_options_are_named():
    with pytest.raises(ValueError, match="model: expected one of"):
        build_model("nothing", {})
    with pytest.raises(ValueError, match=r"model_options of tiny: .*layers"):
        build_model("tiny", {"layers": 3})


def test_float64_weights_stay_float64(saved):
    path, model = saved
    save_checkpoint(path, model.card, model.double().state_dict())
    assert load_model(path).out.weight.dtype == torch.float64


def test_checkpoint_content(saved):
    content = read_checkpoint(saved[0])
    assert isinstance(content["card"], ModelCard)
    assert content["training"] is content["averaged_state_dict"] is None


def test_card_needs_a_unit_per_target():
    with pytest.raises(ValueError, match="units: expected 1"):
        ModelCard(model="tiny", model_options={}, target_names=("a",), units=())


def test_error_survives_pickling():
    error = pickle.loads(pickle.dumps(CheckpointError("a.ckpt", "is bad", "Mend it.")))
    assert str(error) == "checkpoint 'a.ckpt': is bad. Mend it."


@pytest.mark.parametrize("name", ["crystalformer", "cgcnn"])
def test_graph_of_a_checkpoint_outlives_a_change_of_defaults(name, monkeypatch, tmp_path):
    config = RunConfig(data="flla_2015", targets=("y",), model=name, neighborhood={"cutoff": 5.0})
    model = build_run_model(config, ["y"], [""])
    transform = type(model.neighborhood())
    save_checkpoint(tmp_path / "model.ckpt", model.card, model.state_dict())
    expected = repr(model.neighborhood(**model.card.neighborhood))
    changed = {"spread": 7.0} if name == "crystalformer" else {"tie_tolerance": 0.5}
    names = list(inspect.signature(transform.__init__).parameters)[1:]
    old = dict(zip(names, transform.__init__.__defaults__, strict=True))
    monkeypatch.setattr(transform.__init__, "__defaults__", tuple((old | changed).values()))
    assert repr(model.neighborhood(cutoff=5.0)) != expected
    loaded = load_model(tmp_path / "model.ckpt")
    assert repr(loaded.neighborhood(**loaded.card.neighborhood)) == expected


def test_merging_of_a_checkpoint_is_kept_with_the_arguments_of_its_graph(tmp_path):
    sizes = {"channels": 8, "embedding_channels": 4, "num_alignn_layers": 1, "num_gcn_layers": 1}
    graph = {"merge_tolerance": 1e-3, "cutoff": 5.0}
    config = RunConfig(data="flla_2015", targets=("y",), model="alignn", model_options=sizes, neighborhood=graph)
    model = build_run_model(config, ["y"], [""])
    save_checkpoint(tmp_path / "model.ckpt", model.card, model.state_dict())
    loaded = load_model(tmp_path / "model.ckpt")
    assert loaded.card.neighborhood.items() >= (graph | {"ties": "shell", "mutual": True}).items()
    assert repr(loaded.neighborhood(**loaded.card.neighborhood)) == repr(model.neighborhood(**graph))
