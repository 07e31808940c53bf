import builtins

import numpy as np
import pytest

from torch_geometric_crystal.benchmark import predict
from torch_geometric_crystal.benchmark.embedding_file import check_embedding_path, write_embedding
from torch_geometric_crystal.checks import MissingDependencyError


@pytest.fixture
def predictions(tiny, make_crystals):
    model = tiny(num_targets=2)
    return predict(model, make_crystals(5), device="cpu", embedding=True), model.card


def test_npz_has_ids_features_and_predictions(predictions, tmp_path):
    result, card = predictions
    write_embedding(tmp_path / "e.npz", result, card)
    with np.load(tmp_path / "e.npz", allow_pickle=False) as arrays:
        assert arrays["ids"].tolist() == result.ids
        np.testing.assert_array_equal(arrays["embedding"], result.embedding.numpy())
        np.testing.assert_array_equal(arrays["prediction"], result.prediction.numpy())


def test_parquet_has_a_row_for_each_crystal(predictions, tmp_path):
    pytest.importorskip("pyarrow")
    import pandas

    result, card = predictions
    write_embedding(tmp_path / "e.parquet", result, card)
    table = pandas.read_parquet(tmp_path / "e.parquet")
    assert list(table)[:3] == ["id", "prediction_target0", "prediction_target1"]
    assert table["id"].tolist() == result.ids
    features = [f"embedding_{index}" for index in range(result.embedding.size(1))]
    assert list(table)[3:] == features
    np.testing.assert_array_equal(table[features].to_numpy(), result.embedding.numpy())
    np.testing.assert_array_equal(table["prediction_target1"].to_numpy(), result.prediction[:, 1].numpy())


def test_parquet_without_pyarrow_names_the_extra(monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "pyarrow":
            raise ImportError("no pyarrow", name="pyarrow")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r"'pyarrow' is needed .*torch_geometric_crystal\[parquet\]"):
        check_embedding_path("e.parquet")


@pytest.mark.parametrize("name", ["e.csv", "e", "e.NPZ"])
def test_other_endings_are_refused(name):
    with pytest.raises(ValueError, match=r"output: expected a name that ends in .npz or .parquet"):
        check_embedding_path(name)


def test_predictions_without_features_are_refused(tiny, make_crystals, tmp_path):
    model = tiny()
    with pytest.raises(ValueError, match="predict with embedding=True"):
        write_embedding(tmp_path / "e.npz", predict(model, make_crystals(2), device="cpu"), model.card)
    assert list(tmp_path.iterdir()) == []
