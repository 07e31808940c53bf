import math

import pytest
import torch

from torch_geometric_crystal.benchmark.prediction import make_graphs, pick_device, predict, predict_files
from torch_geometric_crystal.data import make_crystal, to_structure


@pytest.fixture
def cif_folder(make_crystals, tmp_path):
    """Two crystals as CIF files around a file that is none."""
    folder = tmp_path / "cifs"
    folder.mkdir()
    crystals = make_crystals(2)
    for name, crystal in zip(("a", "c"), crystals, strict=True):
        to_structure(crystal).to(filename=str(folder / f"{name}.cif"))
    (folder / "b.cif").write_text("this is not a CIF file")
    return folder, crystals


def test_predictions_do_not_depend_on_the_batches(tiny, make_crystals):
    model, crystals = tiny(), make_crystals(13)
    expected = predict(model, crystals, batch_size=100).prediction
    for size, by in ((1, "crystals"), (5, "crystals"), (6, "atoms"), (50, "edges")):
        torch.testing.assert_close(predict(model, crystals, size, by).prediction, expected)


def test_ids_stay_in_order_with_their_values(tiny, make_crystals):
    model, crystals = tiny(), make_crystals(7)
    result = predict(model, crystals, 3)
    assert result.ids == [f"crystal-{k}" for k in range(7)]
    torch.testing.assert_close(result.prediction[4:5], predict(model, crystals[4:5]).prediction)
    assert torch.equal(result.target, torch.cat([c.y for c in crystals]))


def test_crystals_without_targets_or_names_are_predicted(tiny, make_crystals):
    crystals = make_crystals(2)
    for crystal in crystals:
        del crystal.y, crystal.structure_id
    result = predict(tiny(), crystals)
    assert result.ids == ["0", "1"]
    assert bool(result.target.isnan().all())


def test_truncation_bound_is_reported_where_there_is_one(tiny, make_crystals, monkeypatch):
    model = tiny()
    assert predict(model, make_crystals(2)).truncation_bound.tolist() == pytest.approx([4e-6, 4e-6])
    monkeypatch.delattr(type(model), "truncation_report")
    assert bool(predict(model, make_crystals(2)).truncation_bound.isnan().all())


def test_embedding_is_returned_when_asked(tiny, make_crystals):
    assert predict(tiny(channels=6), make_crystals(3), embedding=True).embedding.shape == (3, 6)
    assert predict(tiny(), make_crystals(3)).embedding is None


def test_float64_models_take_float32_crystals(tiny, make_crystals):
    model = tiny()
    single = predict(model, make_crystals(3)).prediction
    double = predict(model.double(), make_crystals(3)).prediction
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single)


def test_progress_is_told(tiny, make_crystals):
    seen = []
    predict(tiny(), make_crystals(5), 2, on_batch=seen.append)
    assert sum(seen) == 5


def test_no_crystals_are_refused(tiny):
    with pytest.raises(ValueError, match="crystals: expected at least one"):
        predict(tiny(), [])


def test_bad_file_gives_an_error_in_its_place(tiny, cif_folder):
    folder, crystals = cif_folder
    model = tiny()
    rows = predict_files(model, folder)
    assert [row.structure_id for row in rows] == ["a", "b", "c"]
    assert rows[1].values == ()
    assert rows[1].error
    assert math.isnan(rows[1].truncation_bound)
    expected = predict(model, crystals).prediction[:, 0].tolist()
    assert [rows[0].values[0], rows[2].values[0]] == pytest.approx(expected, rel=1e-4)
    assert rows[0].error == rows[2].error == ""


def test_files_of_many_chunks_keep_their_order(tiny, cif_folder, monkeypatch):
    from torch_geometric_crystal.benchmark import prediction

    folder, _ = cif_folder
    files = [folder / "a.cif", folder / "missing.cif", folder / "c.cif", folder / "b.cif", folder / "a.cif"]
    whole = predict_files(tiny(), files)
    monkeypatch.setattr(prediction, "CHUNK", 2)
    parts = predict_files(tiny(), files)
    assert [row.path for row in parts] == [str(file) for file in files]
    assert [row.values for row in parts] == [pytest.approx(row.values) for row in whole]
    assert parts[1].error == "no such file"


def test_crystal_without_a_graph_gives_an_error_in_its_place(tiny, cif_folder, monkeypatch):
    model = tiny()
    transform = model.neighborhood()

    def refuse_large(data):
        if data.z.numel() == make_sizes[0]:
            raise ValueError("too many atoms")
        return transform(data)

    folder, crystals = cif_folder
    make_sizes = [crystals[0].z.numel()]
    assert crystals[1].z.numel() != make_sizes[0]
    monkeypatch.setattr(model, "neighborhood", lambda **options: refuse_large)
    rows = predict_files(model, [folder / "a.cif", folder / "c.cif"])
    assert rows[0].error == "too many atoms"
    assert len(rows[1].values) == 1


def test_only_bad_files_give_only_errors(tiny, cif_folder):
    rows = predict_files(tiny(), cif_folder[0] / "b.cif")
    assert [bool(row.error) for row in rows] == [True]


def test_graphs_are_made_as_in_training(tiny):
    from torch_geometric_crystal.benchmark.config import RunConfig
    from torch_geometric_crystal.benchmark.run import build_run_model

    model = build_run_model(RunConfig(model="tiny", neighborhood={"cutoff": 3.0}), ["a"], [""])
    crystal = make_crystal([1], [[0.0, 0.0, 0.0]], 2.0 * torch.eye(3).numpy(), [True] * 3)
    assert make_graphs(model, [crystal])[0].edge_cutoff.item() == 3.0


@pytest.mark.parametrize("device", ["quantum", "cuda:99"])
def test_unavailable_device_is_named(device):
    with pytest.raises(ValueError, match=f"device: '{device}' is not available here"):
        pick_device(device)


def test_device_can_be_chosen():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
