import pytest
import torch

from torch_geometric_crystal.benchmark.class_plots import MOST_NAMED, plot_confusion, plot_roc

PNG = b"\x89PNG"


@pytest.mark.parametrize("number", [2, 3, MOST_NAMED + 1])
def test_pictures_are_drawn_for_any_number_of_classes(tmp_path, number):
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.randn(50, number, generator=generator).softmax(1)
    classes = torch.randint(number - 1, (50,), generator=generator)  # the last one does not occur
    names = [f"class {k}" for k in range(number)]
    for plot in (plot_confusion, plot_roc):
        plot(probabilities, classes, tmp_path / "p.png", names, "title")
        assert (tmp_path / "p.png").read_bytes().startswith(PNG)


def test_numbers_of_the_matrix_are_the_counts(tmp_path, monkeypatch):
    from torch_geometric_crystal.benchmark import class_plots

    figures = []
    monkeypatch.setattr(class_plots, "save_figure", lambda figure, path: figures.append(figure))
    probabilities = torch.eye(2)[[0, 1, 1, 1]]
    plot_confusion(probabilities, torch.tensor([0, 0, 1, 1]), tmp_path / "p.png", ["a", "b"])
    assert [text.get_text() for text in figures[0].axes[0].texts] == ["1", "1", "0", "2"]


def test_area_in_the_legend_is_that_of_the_curve(tmp_path, monkeypatch):
    from torch_geometric_crystal.benchmark import class_plots

    figures = []
    monkeypatch.setattr(class_plots, "save_figure", lambda figure, path: figures.append(figure))
    score = torch.tensor([0.1, 0.4, 0.35, 0.8])
    plot_roc(torch.stack([1 - score, score], 1), torch.tensor([0, 0, 1, 1]), tmp_path / "p.png", ["a", "b"])
    (label,) = [text.get_text() for text in figures[0].axes[0].get_legend().get_texts()]
    assert label == "b: area 0.750"
