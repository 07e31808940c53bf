"""The benchmark scripts run in small, refuse what is out of tolerance, and record where their figures come from."""

import json
import mmap
import runpy
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from torch_geometric_crystal.ops import domain_cost

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
QUICK = ("step", "attention", "against_peers", "scaling")
PNG = b"\x89PNG"


@pytest.fixture(scope="module", autouse=True)
def _benchmark_modules():
    """The scripts import each other by their bare names, as they do when one is run."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(FOLDER)):
            del sys.modules[name]


@pytest.fixture
def run_script(monkeypatch, capsys):
    def run(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.fixture
def run_quickly(run_script, tmp_path):
    def run(name: str, *arguments: str) -> tuple[dict, str]:
        output = tmp_path / "figures.json"
        printed = run_script(name, "--quick", "--device", "cpu", "--output", str(output), *arguments)
        assert output.with_suffix(".png").read_bytes().startswith(PNG)
        return json.loads(output.read_text()), printed

    return run


@pytest.mark.parametrize("name", QUICK)
def test_a_quick_run_agrees_with_the_reference_and_writes_figures(run_quickly, name):
    figures, printed = run_quickly(name)
    assert figures["quick"] is True
    assert figures["provenance"]["command"].startswith(f"python benchmarks/{name}.py --quick")
    assert len(figures["rows"]) >= 2
    for row in figures["rows"]:
        assert row["within_tolerance"], row
        assert 0 < row["output_error"] < 1e-5
        assert any(row.get(key, 0) > 0 for key in ("ms", "train_ms", "seconds"))
        assert str(row["atoms"]) in printed


def test_searches_find_the_same_edges_and_are_timed(run_quickly):
    figures, _ = run_quickly("neighbor_search")
    assert [row["crystals"] for row in figures["rows"]] == [1, 4]
    for row in figures["rows"]:
        assert row["edges"] > 10 * row["atoms"]
        assert min(row["torch_ms"], row["pymatgen_ms"], row["ase_ms"]) > 0


def test_searches_that_disagree_have_no_times(run_quickly, monkeypatch):
    monkeypatch.setattr("torch_geometric_crystal.data.neighbors.neighbor_list", lambda *a: ([0],))
    with pytest.raises(RuntimeError, match="disagree"):
        run_quickly("neighbor_search")


def test_merged_graphs_are_smaller_and_give_the_same(run_quickly):
    figures, _ = run_quickly("merged_graphs")
    attention, alignn = figures["rows"]
    assert (attention["model"], alignn["model"]) == ("crystalformer", "alignn")
    assert "angles_ratio" not in attention
    assert alignn["angles_ratio"] > 1
    for row in figures["rows"]:
        assert row["data"] == "flla_2015"
        assert min(row["atoms_ratio"], row["edges_ratio"]) > 1
        assert min(row["step_ratio"], row["inference_ratio"], row["graph_ms_merged"]) > 0
        assert max(row["output_difference"], row["gradient_difference"]) < 1e-5


def test_merged_graphs_that_give_something_else_have_no_times(run_quickly, monkeypatch):
    from torch_geometric_crystal.transforms import merging

    monkeypatch.setattr(merging, "levels", lambda values, tolerance: np.zeros(len(values), dtype=int))
    with pytest.raises(RuntimeError, match="merged graphs give other results"):
        run_quickly("merged_graphs")


def test_costs_of_the_domains_are_measured_and_fitted(run_quickly):
    figures, _ = run_quickly("domain_cost", "--backend", "blocked", "--rounds", "3")
    assert all(row["real_ns"] > 0 and row["reciprocal_ns"] > 0 for row in figures["rows"])
    current, fitted = figures["fits"]
    assert current["real a"] == domain_cost.EDGE_COST
    assert current["reciprocal a"] == domain_cost.WAVE_COST
    assert max(fitted["real a"], fitted["real b"]) > 0
    assert fitted["lost"] >= 0


def test_fitted_costs_are_those_that_made_the_times():
    import domain_cost as script

    rows = [{"atoms": n, "edges": e, "waves": m} for n, e, m in ((2, 300, 200), (30, 4000, 900), (150, 15000, 5000))]
    for row in rows:
        row["real_ns"] = 7.0 * row["edges"] + 20.0 * row["atoms"] ** 2
        row["reciprocal_ns"] = (18.0 * row["atoms"] + 0.3 * row["atoms"] ** 2) * row["waves"]
    assert script.fit("real", rows) == pytest.approx((7.0, 20.0))
    assert script.fit("reciprocal", rows) == pytest.approx((18.0, 0.3))


@pytest.fixture
def run_folders(tmp_path):
    """What two runs of two epochs leave."""
    folders = []
    for seed, error in ((3, 0.2), (4, 0.4)):
        folder = tmp_path / f"seed{seed}"
        folder.mkdir()
        (folder / "config.yaml").write_text(f"data: flla_2015\nmodel: cgcnn\ntargets: [gap]\nseed: {seed}\n")
        (folder / "history.csv").write_text("epoch,train_loss,val_mae_gap\n1,0.9,0.8\n2,0.7,0.6\n")
        test = {name: {"targets": {"gap": {"mae": error, "unit": "eV"}}} for name in ("best", "averaged")}
        training = {"epochs": 2, "seconds": 90.0}
        metrics = {"seed": seed, "training": training, "test": test, "reported_weights": "averaged"}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        (folder / "parity.png").write_bytes(PNG)
        folders.append(folder)
    return folders


def test_runs_of_several_seeds_are_summed_up(run_script, run_folders, tmp_path):
    output = tmp_path / "runs.json"
    run_script("training_runs", *map(str, run_folders), "--name", "runs", "--output", str(output))
    figures = json.loads(output.read_text())
    assert [run["seed"] for run in figures["runs"]] == [3, 4]
    assert figures["summary"]["test_mae_averaged"] == {"mean": 0.3, "std": 0.141, "min": 0.2, "max": 0.4}
    assert figures["runs"][0]["history"]["val_mae_gap"] == [0.8, 0.6]
    assert output.with_suffix(".png").read_bytes().startswith(PNG)


def test_runs_that_differ_in_more_than_the_seed_are_refused(run_script, run_folders, capsys):
    path = run_folders[1] / "config.yaml"
    path.write_text(path.read_text().replace("cgcnn", "alignn"))
    with pytest.raises(SystemExit):
        run_script("training_runs", *map(str, run_folders), "--name", "runs")
    assert "in more than the seed" in capsys.readouterr().err


def test_a_path_out_of_tolerance_gets_no_time(run_quickly, monkeypatch):
    import agreement

    monkeypatch.setitem(agreement.TOLERANCES, "float32", agreement.Tolerance(1e-12, 1e-12))
    figures, _ = run_quickly("step", "--variants", "default")
    assert len(figures["rows"]) >= 1
    for row in figures["rows"]:
        assert not row["within_tolerance"]
        assert not [key for key in row if key.endswith("_ms")]


def test_an_operation_out_of_tolerance_gets_no_time(run_quickly, monkeypatch):
    import agreement

    monkeypatch.setitem(agreement.TOLERANCES, "float32", agreement.Tolerance(1e-12, 1e-12))
    figures, _ = run_quickly("attention", "--backend", "blocked", "--sweeps", "basis")
    assert all(not row["within_tolerance"] and "ms" not in row for row in figures["rows"])


def test_memory_is_measured_for_each_mode(run_quickly):
    figures, _ = run_quickly("step", "--memory", "--variants", "simplified")
    assert [row["mode"] for row in figures["rows"]] == ["train", "infer"]
    assert all(0 < row["before_MiB"] <= row["peak_MiB"] for row in figures["rows"])


def test_a_point_of_scaling_is_printed_as_json_for_the_process_that_asked(run_script):
    printed = run_script("scaling", "--device", "cpu", "--point", "cell", "7", "infer", "--rounds", "3")
    row = json.loads(printed.strip().splitlines()[-1])
    assert row["atoms"] == 10  # two of the 5-atom cells
    assert row["seconds"] > 0
    assert row["within_tolerance"]


@pytest.mark.parametrize("name", [*QUICK, "against_official", "exactness"])
def test_help_says_how_to_run_it(run_script, capsys, name):
    with pytest.raises(SystemExit, match="0"):
        run_script(name, "--help")
    assert f"python benchmarks/{name}.py" in capsys.readouterr().out


def test_against_official_refuses_a_folder_that_is_no_checkout(run_script, capsys, tmp_path):
    with pytest.raises(SystemExit, match="2"):
        run_script("against_official", "--quick", "--device", "cpu", "--checkout", str(tmp_path))
    assert "expected a clone of omron-sinicx/crystalformer" in capsys.readouterr().err


def test_official_weights_are_translated_only_if_the_unused_one_is_zero():
    from official_code import UnusableCheckoutError, translatable_state

    model = torch.nn.Module()
    model.self_attn = torch.nn.Module()
    model.self_attn.atten_scale = torch.nn.Parameter(torch.zeros(1))
    model.self_attn.weight = torch.nn.Parameter(torch.ones(2))
    assert list(translatable_state(model)) == ["self_attn.weight"]
    with torch.no_grad():
        model.self_attn.atten_scale.fill_(0.5)
    with pytest.raises(UnusableCheckoutError, match="atten_scale"):
        translatable_state(model)


def test_an_official_figure_is_compared_with_its_own_device_and_batch_only():
    from official_figures import official_figure, times_faster

    gpu = official_figure("NVIDIA H100 80GB HBM3", "cuda", "default", "128")
    assert gpu.train_ms == 68.9
    assert official_figure("NVIDIA A100", "cuda", "default", "128") is None
    assert official_figure("AMD EPYC", "cpu", "default", "128") is None
    assert official_figure("AMD EPYC", "cpu", "simplified", "16") is None
    assert times_faster(gpu, "train", 6.89, 1435) == pytest.approx(10.0)
    assert times_faster(gpu, "train", 6.89, 2870) == pytest.approx(20.0)
    large = official_figure("NVIDIA H200", "cuda", "default", "large_cells")
    assert times_faster(large, "infer", 6.53, 1072) == pytest.approx(10.0)


def test_functions_take_turns():
    from timing import measure

    turns = []
    functions = {
        name: lambda name=name: (turns.append(name), torch.rand(400, 400) @ torch.rand(400, 400)) for name in "ab"
    }
    timings = measure(functions, "cpu", rounds=4)
    assert [len(timing.seconds) for timing in timings.values()] == [4, 4]
    changes = sum(first != second for first, second in pairwise(turns))
    assert changes >= 4  # warm-up of a, then b, then in every round at least once to the other


def test_the_ratio_is_that_of_the_same_round():
    from timing import Timing, median_ratio

    slow, fast = Timing([4.0, 40.0, 6.0], [4.0, 4.0, 4.0]), Timing([2.0, 20.0, 1.0], [1.0, 1.0, 1.0])
    assert median_ratio(slow, fast) == 2.0
    assert median_ratio(slow, fast, processor=True) == 4.0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts the peak anew")
def test_memory_of_a_call_is_seen_also_after_a_larger_one():
    from timing import memory_of

    def touch(mebibytes: int):
        with mmap.mmap(-1, mebibytes * 2**20) as memory:
            for page in range(0, len(memory), mmap.PAGESIZE):
                memory[page] = 1

    memory_of(lambda: touch(256), "cpu")
    found = memory_of(lambda: touch(64), "cpu")
    assert 60 <= found["peak_MiB"] - found["before_MiB"] <= 128


def test_a_script_in_its_own_process_answers_with_its_last_line(tmp_path):
    from timing import in_own_process

    script = tmp_path / "script.py"
    script.write_text("import sys, json\nprint('hello')\nprint(json.dumps({'argument': sys.argv[1]}))\n")
    assert in_own_process(str(script), "7") == {"argument": "7"}
    script.write_text("raise SystemExit('out of eggs')")
    with pytest.raises(RuntimeError, match="out of eggs"):
        in_own_process(str(script))


def test_the_reference_of_a_model_does_not_depend_on_its_chunks(monkeypatch):
    import agreement
    from workloads import initialised_model, real_crystals

    model = initialised_model("simplified")
    transform = model.neighborhood(tol=1e-2)
    graphs = [transform(data) for data in real_crystals(3)]
    whole = agreement.reference_results(model, graphs)
    monkeypatch.setattr(agreement, "CHUNK_EDGES", 1)
    assert agreement.model_agreement(agreement.reference_results(model, graphs), whole, "float64").good


def test_one_changed_weight_is_out_of_tolerance():
    import agreement
    from workloads import batch_of, initialised_model, real_crystals

    model = initialised_model("simplified")
    transform = model.neighborhood(tol=1e-2)
    graphs = [transform(data) for data in real_crystals(2)]
    expected = agreement.reference_results(model, graphs)
    batch = batch_of(graphs, lambda data: data)
    assert agreement.model_agreement(agreement.model_results(model, model, batch), expected).good
    with torch.no_grad():
        model.blocks[0].attention.qkv.weight[0, 0] += 0.01
    assert not agreement.model_agreement(agreement.model_results(model, model, batch), expected).good


def test_nan_is_out_of_tolerance():
    from agreement import compare

    nan, one = torch.tensor([torch.nan]), torch.ones(1)
    assert compare([(one, one)], [(one, one)]).good
    assert not compare([(nan, one)], [(one, one)]).good
    assert not compare([(one, one)], [(nan, one)]).good


def test_the_slope_of_a_power_law_is_its_exponent_over_the_largest_factor_of_ten():
    from scaling import fit

    points = [(10, 5.0), (30, 5.0), *((atoms, 1e-6 * atoms**1.5) for atoms in (1000, 3000, 10_000))]
    slope = fit(points)
    assert slope.exponent == pytest.approx(1.5)
    assert (slope.first, slope.last, slope.points) == (1000, 10_000, 3)
    assert fit([(10, 1.0)]) is None


def test_work_is_counted_as_documented():
    from roofline import Rates, RealShape, Work, real_work, reciprocal_work

    forward = real_work(RealShape(atoms=1, edges=3, pairs=1, heads=2, head_dim=4, basis=8))["forward"]
    assert forward.flops == 4 * 8 + 2 * 3 * 2 * 8 + 2 * 8 * 8
    assert forward.exps == 3 * (2 + 8)
    assert forward.bytes == 4 * 8 * 4 + 2 * 2 * 4 + 2 * 8 * 4 + 64 * 4 + 3 * 4 + 32
    both = reciprocal_work([(2, 5), (3, 7)], heads=2, head_dim=4)
    assert both["forward"].flops == 2 * 2 * (4 * 5 + 9 * 7) + 4 * 13 * 8
    assert Rates(10.0, 100.0, 1000.0).floor(Work(5.0, 200.0, 300.0)) == (2.0, "flops")


def test_the_large_cells_are_the_twelve_of_68_to_152_atoms():
    from workloads import large_cells

    sizes = sorted(data.num_nodes for data in large_cells())
    assert (len(sizes), sizes[0], sizes[-1], sum(sizes)) == (12, 68, 152, 1072)


def test_the_recorded_command_holds_no_folder_of_this_machine(monkeypatch):
    from provenance import command_line

    monkeypatch.setattr(sys, "argv", ["/home/me/benchmarks/step.py", "--output", "/home/me/out.json", "--tol", "0.01"])
    assert command_line() == "python benchmarks/step.py --output out.json --tol 0.01"


def test_the_path_through_cuda_graphs_is_compared_and_trained_like_the_others():
    import agreement
    from fast_paths import graphed_runs
    from workloads import batch_of, initialised_model, real_crystals

    model = initialised_model("default")
    transform = model.neighborhood(tol=1e-2)
    graphs = [transform(data) for data in real_crystals(2)]
    recorded = []

    def record(function):
        recorded.append(function)
        return function

    runs = graphed_runs(model, batch_of(graphs, lambda data: data), record=record)
    assert agreement.model_agreement(runs.results(), agreement.reference_results(model, graphs)).good
    before = model.head.out.bias.detach().clone()
    runs.infer()
    runs.train()
    assert len(recorded) == 3  # inference, the gradients that are compared, those that are trained with
    assert not torch.equal(model.head.out.bias, before)


def test_a_store_on_the_disk_gives_the_bits_of_memory_and_is_timed_against_it(run_script, tmp_path):
    output = tmp_path / "store.json"
    run_script("data_store", "--quick", "--output", str(output))
    (row,) = json.loads(output.read_text())["rows"]
    assert row["same_to_the_bit"] is True
    assert row["rounds"] >= 3
    assert min(row["ratio"], row["read_memory_us"], row["read_store_us"], row["read_rows_us"]) > 0


def test_a_changed_crystal_in_a_store_is_noticed():
    import data_store
    from torch_geometric.data import Data

    one = Data(pos=torch.zeros(2, 3), structure_id="a")
    assert data_store.same_to_the_bit(one, one.clone())
    assert not data_store.same_to_the_bit(one, Data(pos=torch.full((2, 3), 1e-30), structure_id="a"))
    assert not data_store.same_to_the_bit(one, Data(pos=torch.zeros(2, 3).double(), structure_id="a"))


def test_preparation_is_timed_and_its_cache_is_hit(run_script, tmp_path):
    output = tmp_path / "preparation.json"
    run_script("preparation", "--quick", "--output", str(output))
    (row,) = json.loads(output.read_text())["rows"]
    assert row["structures"] == 20
    assert row["edges"] > 12 * 20
    assert min(row["per_second"], row["loop_per_second"], row["hit_s"]) > 0


def test_preparation_of_nothing_in_particular_is_refused(run_script, capsys):
    with pytest.raises(SystemExit, match="2"):
        run_script("preparation")
    assert "give a compact store" in capsys.readouterr().err


def test_the_allocators_benchmark_times_both_settings(run_quickly):
    figures, _ = run_quickly("allocator")
    assert [row["memory"] for row in figures["rows"]] == ["as it is", "kept"]
    assert all(row["ms"] > 0 and row["peak_MiB"] > 0 for row in figures["rows"])
