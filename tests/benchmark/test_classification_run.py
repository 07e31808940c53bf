"""A classification, and targets of atoms, from data to files, resumed, and beside checkpoints from before."""

import csv
import dataclasses
import json

import pytest
import torch

from torch_geometric_crystal.benchmark.checkpoint import export_model, load_model, read_checkpoint, save_checkpoint
from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.evaluation import evaluate
from torch_geometric_crystal.benchmark.prediction import predict
from torch_geometric_crystal.benchmark.recipe import Recipe
from torch_geometric_crystal.benchmark.run import build_run_model, train_and_evaluate
from torch_geometric_crystal.benchmark.sources import CrystalParts
from torch_geometric_crystal.data.elements import SYMBOLS

NAN = float("nan")
CLASSES = ("heavy", "light", "middle")
OPTIONS = {
    "crystalformer": {"channels": 8, "num_blocks": 1, "num_heads": 2, "num_basis": 4},
    "cgcnn": {"channels": 8, "num_layers": 1, "hidden_channels": 8},
    "alignn": {"channels": 8, "embedding_channels": 4, "num_alignn_layers": 1, "num_gcn_layers": 1},
}


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def class_parts(make_crystals):
    """Crystals whose class is that of their heaviest atom; every seventh one is unknown."""
    crystals = make_crystals(60)
    for index, crystal in enumerate(crystals):
        heaviest = int(crystal.z.max())
        number = 0 if heaviest > 14 else (1 if heaviest < 9 else 2)
        crystal.y = torch.tensor([[NAN if index % 7 == 3 else float(number)]])
    cut = {"train": crystals[:40], "val": crystals[40:50], "test": crystals[50:]}
    return CrystalParts(cut, ("weight",), ("",), CLASSES)


@pytest.fixture
def class_config(make_config):
    return dataclasses.replace(make_config(epochs=12, lr=0.05), task="classification")


def test_run_learns_the_classes_and_leaves_its_files(class_parts, class_config, tmp_path):
    result = train_and_evaluate(class_config, class_parts, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.yaml", "history.csv", "best.ckpt", "last.ckpt", "predictions.csv", "metrics.json",
        "learning_curve.png", "confusion.png", "roc.png",
    }  # fmt: skip
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    errors = metrics["test"][metrics["reported_weights"]]["targets"]["weight"]
    assert errors["accuracy"] > metrics["mean_predictor"]["weight"]["accuracy"]
    assert errors["cross_entropy"] < metrics["mean_predictor"]["weight"]["cross_entropy"]
    assert metrics["baseline"] == "class shares of training set"
    history = result.fit.progress.history
    losses = [row["val_cross_entropy_weight"] for row in history]
    assert result.fit.progress.best_epoch == 1 + losses.index(min(losses))
    rows = rows_of(tmp_path / "predictions.csv")
    assert list(rows[0]) == ["id", "target", "prediction", *(f"probability_{name}" for name in CLASSES)]
    assert {row["target"] for row in rows} <= {"", *CLASSES}
    assert [row["target"] for row in rows].count("") == sum(bool(c.y.isnan()) for c in class_parts.parts["test"])
    for row in rows:
        shares = {name: float(row[f"probability_{name}"]) for name in CLASSES}
        assert sum(shares.values()) == pytest.approx(1.0, abs=1e-6)
        assert row["prediction"] == max(shares, key=shares.get)


def test_checkpoint_carries_the_classes(class_parts, class_config, tmp_path):
    train_and_evaluate(class_config, class_parts, tmp_path)
    model = load_model(tmp_path)
    assert (model.card.task, model.card.classes) == ("classification", CLASSES)
    assert model.normalization.std.tolist() == [1.0, 1.0, 1.0]
    result = predict(model, class_parts.parts["test"], device="cpu")
    assert result.prediction.shape == (10, 3)
    assert result.target.shape == (10, 1)
    export_model(model, tmp_path / "m.safetensors")
    assert load_model(tmp_path / "m.safetensors").card == model.card


def test_crystals_without_classes_are_predicted(class_parts, class_config):
    model = build_run_model(class_config, ["weight"], [""], CLASSES)
    crystals = class_parts.parts["test"]
    for crystal in crystals:
        del crystal.y
    result = predict(model, crystals, device="cpu")
    assert result.target.shape == (10, 1)
    assert bool(result.target.isnan().all())


def test_interrupted_run_continues_to_the_same_bits(class_parts, class_config, tmp_path):
    train_and_evaluate(class_config, class_parts, tmp_path / "whole")
    recipe = dataclasses.replace(class_config.recipe, epochs=5)
    train_and_evaluate(dataclasses.replace(class_config, recipe=recipe), class_parts, tmp_path / "parts")
    train_and_evaluate(class_config, class_parts, tmp_path / "parts", resume=True)
    a, b = (read_checkpoint(tmp_path / name / "last.ckpt")["state_dict"] for name in ("whole", "parts"))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("level", ["crystal", "atom"])
@pytest.mark.parametrize("model", list(OPTIONS))
def test_each_model_learns_classes_of_crystals_and_of_atoms(make_crystals, tmp_path, model, level):
    config = RunConfig(
        model=model,
        model_options=OPTIONS[model],
        task="classification",
        level=level,
        device="cpu",
        recipe=Recipe(epochs=2, batch_size=6, averaging_epochs=0),
    )
    transform = build_run_model(config, ["heavy"], [""], ("no", "yes")).neighborhood()
    graphs = []
    for crystal in make_crystals(14):
        heavy = (crystal.z > 9).float()
        crystal.y = heavy.unsqueeze(1) if level == "atom" else heavy.mean().round().view(1, 1)
        graphs.append(transform(crystal))
    cut = {"train": graphs[:10], "val": graphs[10:12], "test": graphs[12:]}
    result = train_and_evaluate(config, CrystalParts(cut, ("heavy",), ("",), ("no", "yes")), tmp_path)
    losses = [row["train_loss"] for row in result.fit.progress.history]
    assert losses[-1] < losses[0]
    rows = rows_of(tmp_path / "predictions.csv")
    assert len(rows) == (sum(graph.num_nodes for graph in graphs[12:]) if level == "atom" else 2)


def test_targets_of_atoms_are_learned_with_gaps_and_written_by_atom(make_crystals, tmp_path):
    config = RunConfig(
        model="cgcnn",
        model_options=OPTIONS["cgcnn"],
        level="atom",
        device="cpu",
        recipe=Recipe(epochs=25, batch_size=6, averaging_epochs=0, lr=1e-2),
    )
    transform = build_run_model(config, ["charge"], ["e"]).neighborhood()
    graphs = [transform(crystal) for crystal in make_crystals(24)]
    for graph in graphs:
        graph.y = graph.z.float().unsqueeze(1).clone()
        graph.y[0] = NAN
    graphs = [graph for graph in graphs if graph.num_nodes > 1]
    cut = {"train": graphs[:12], "val": graphs[12:14], "test": graphs[14:]}
    result = train_and_evaluate(config, CrystalParts(cut, ("charge",), ("e",)), tmp_path)
    errors = result.metrics["test"]["best"]["targets"]["charge"]
    assert errors["mae"] < 0.5 * result.metrics["mean_predictor"]["charge"]["mae"]
    assert errors["count"] == sum(graph.num_nodes - 1 for graph in graphs[14:])
    rows = rows_of(tmp_path / "predictions.csv")
    first = graphs[14]
    assert [row["atom"] for row in rows[: first.num_nodes]] == [str(k) for k in range(first.num_nodes)]
    assert [row["element"] for row in rows[: first.num_nodes]] == [SYMBOLS[z - 1] for z in first.z.tolist()]
    assert [row["target"] == "" for row in rows[: first.num_nodes]] == [True] + [False] * (first.num_nodes - 1)
    assert evaluate(load_model(tmp_path), graphs[14:], device="cpu")[1].atoms[0].tolist() == first.z.tolist()


def test_checkpoint_from_before_there_were_tasks_is_a_regression(tiny, tmp_path):
    model = tiny()
    save_checkpoint(tmp_path / "old.ckpt", model.card, model.state_dict())
    content = torch.load(tmp_path / "old.ckpt", weights_only=True)
    for name in ("task", "level", "classes"):
        del content["card"][name]
    torch.save(content, tmp_path / "old.ckpt")
    card = load_model(tmp_path / "old.ckpt").card
    assert (card.task, card.level, card.classes) == ("regression", "crystal", ())
    assert card == model.card


def test_level_is_not_a_model_option(make_config):
    config = dataclasses.replace(make_config(), model_options={"level": "atom"})
    with pytest.raises(ValueError, match="level: expected the run's level, not one of model_options"):
        build_run_model(config, ["a"], [""])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "ranking"}, "task: expected one of 'regression', 'classification'"),
        ({"level": "bond"}, "level: expected one of 'crystal', 'atom'"),
        ({"level": "atom", "cuda_graphs": True}, "cuda_graphs: expected false for targets of each atom"),
        ({"freeze": "blocks.*"}, "freeze: expected a list of texts"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**settings)
    with pytest.raises(ValueError, match="configuration: expected one of"):
        RunConfig.from_dict({"tasks": "regression"})


def test_settings_survive_the_file(tmp_path):
    from torch_geometric_crystal.benchmark.config import read_config, write_config

    config = RunConfig(task="classification", level="atom", init_from="a.ckpt", freeze=("x.*",), devices=2)
    write_config(config, tmp_path / "c.yaml")
    assert RunConfig.from_dict(read_config(tmp_path / "c.yaml")) == config
