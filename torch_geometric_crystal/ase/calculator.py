"""A model trained on energies as an ASE calculator."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from torch import Tensor, nn
from torch_geometric.data import Data

from torch_geometric_crystal.ase.energy_units import energy_factor
from torch_geometric_crystal.benchmark.checkpoint import load_model
from torch_geometric_crystal.benchmark.prediction import pick_device
from torch_geometric_crystal.checks import InvalidStructureError, check_argument, check_choice
from torch_geometric_crystal.data import from_ase_atoms, validate_crystal
from torch_geometric_crystal.transforms import InfiniteNeighborhood, RebuildEdges, certify_edges

DTYPES = {"float32": torch.float32, "float64": torch.float64}

NEW_START = 0.5
"""A: where an atom (in the moving cell) or a lattice vector has moved further since the last call, the crystal is taken
for another one. A step of molecular dynamics or of an optimizer is shorter."""


class CrystalCalculator(Calculator):
    r"""Energy, forces and stress of crystals from a model trained on energies.

    .. math::
        \mathbf{F}_i = -\frac{\partial E}{\partial \mathbf{p}_i}, \qquad
        \sigma_{ab} = \frac{1}{V} \frac{\partial E}{\partial \varepsilon_{ab}}, \qquad
        \mathbf{p}_i \to \mathbf{p}_i (1 + \varepsilon), \quad L \to L (1 + \varepsilon)

    with a symmetric strain :math:`\varepsilon` and the volume V: derivatives of the model by autograd. They are those
    of the energy that the model learned: an energy of formation has the same forces and stress as the total energy,
    since the references depend on the composition alone. How good they are depends on whether the training set has
    crystals out of equilibrium.

    The edges are made anew in each step (:class:`~torch_geometric_crystal.transforms.RebuildEdges`), within the cutoff
    that the crystal got at the first step from the model's tolerance. It stays while atoms and cell move by small
    steps, so that the energy does not jump; :meth:`truncation_bound` says what it then drops. Another crystal
    (composition, or a move by more than 0.5 A at once) gets a cutoff of its own.

    Args:
        model: as :func:`~torch_geometric_crystal.benchmark.load_model` returns it, or the path that it takes. A copy is
            made. Models on graphs of nearest neighbours (CGCNN, ALIGNN) are refused: their energy jumps where
            neighbours change.
        energy: what the model's target is: ``"per_atom"`` or ``"total"``.
        unit: its unit: ``"eV"``, ``"meV"``, ``"Ha"``, ``"Ry"``, ``"kJ/mol"`` or ``"kcal/mol"``. (default: that of the
            model's card)
        target: name of the energy among the model's targets; needed where there are several.
        tol: tolerance of the graph, smaller for energies with smaller jumps. (default: as in training)
        skin: skin of the neighbour list in A.
        dtype: ``"float64"`` or ``"float32"``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.

    Results:
        energy and free_energy in eV, forces (N, 3) in eV/A, stress (6,) in eV/A^3 in the order xx, yy, zz, yz, xz, xy,
        positive under tension, as ASE has it.

    Raises:
        ValueError: for a model or an argument that does not fit.
        InvalidStructureError: when calculating, for atoms that are not periodic in three directions, or are otherwise
            no crystal.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012 (as ASE's base class has it)
    name = "torch_geometric_crystal"

    def __init__(
        self,
        model: nn.Module | str | Path,
        *,
        energy: str,
        unit: str | None = None,
        target: str | None = None,
        tol: float | None = None,
        skin: float = 0.5,
        dtype: str = "float64",
        device: str = "auto",
    ):
        super().__init__()
        check_choice("dtype", dtype, DTYPES)
        model = load_model(model) if isinstance(model, (str, Path)) else model
        self.column, card_unit = _energy_target(model, target)
        self.factor = energy_factor(card_unit, energy, unit)
        self.per_atom = energy == "per_atom"
        self.add_graph = _moving_graph(model, tol)
        self.rebuild_edges = RebuildEdges(skin)
        self.dtype, self.device = DTYPES[dtype], pick_device(device)
        self.model = copy.deepcopy(model).to(self.device, self.dtype).eval().requires_grad_(False)
        self._crystal: Data | None = None

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute all results for `atoms`; ASE calls this where it has none."""
        super().calculate(atoms, list(properties), list(system_changes))
        crystal = self._place(self.atoms)
        energy, slope, strain_slope = self._derivatives(crystal)
        values = (energy, slope, strain_slope)
        if not all(bool(value.isfinite().all()) for value in values):
            formula = self.atoms.get_chemical_formula()
            raise CalculationFailed(f"the model's energy or forces of {formula} are not finite")
        strained = strain_slope.cpu().double().numpy()
        self.results = {
            "energy": float(energy),
            "free_energy": float(energy),
            "forces": -slope.cpu().double().numpy(),
            "stress": full_3x3_to_voigt_6_stress(strained / self.atoms.get_volume()),
        }

    def truncation_bound(self) -> float:
        """Certified share of any row of the attention that the cutoff drops at the last positions.

        It is that of :class:`~torch_geometric_crystal.transforms.InfiniteNeighborhood`; NaN for a crystal that is
        summed in reciprocal space alone.

        Raises:
            ValueError: before the first calculation.
        """
        if self._crystal is None:
            raise ValueError("atoms: nothing was calculated yet; ask for an energy first")
        if not _has_edges(self._crystal):
            return float("nan")
        graph = self.add_graph
        certified = certify_edges(self._crystal.clone(), graph.sigma_max, graph.spread)
        return float(certified.truncation_bound)

    def _place(self, atoms: Atoms) -> Data:
        """The crystal with its graph at the present positions and cell."""
        name = atoms.get_chemical_formula() or "unnamed"
        if not atoms.pbc.all():
            raise InvalidStructureError(
                name,
                f"pbc is {atoms.pbc.tolist()}, and the model's energies are those of crystals",
                "Give a cell with three lattice vectors (vacuum included, for a slab) and pbc=True",
            )
        last = self._crystal
        if last is None or _is_another(atoms, last):
            crystal = self.add_graph(from_ase_atoms(atoms, structure_id=name, dtype=self.dtype)).to(self.device)
        else:
            crystal = copy.copy(last)
            crystal.pos = torch.as_tensor(atoms.positions).to(last.pos)
            crystal.cell = torch.as_tensor(atoms.cell.array).to(last.cell).view(1, 3, 3)
            validate_crystal(crystal, name, check_overlap=False)
            crystal = self.rebuild_edges(crystal) if _has_edges(crystal) else crystal
        self._crystal = crystal
        return crystal

    def _derivatives(self, crystal: Data) -> tuple[Tensor, Tensor, Tensor]:
        """Energy (eV), its slopes in the positions (N, 3) (eV/A) and in the strain (3, 3) (eV)."""
        pos = crystal.pos.detach().clone().requires_grad_()
        strain = torch.zeros_like(crystal.cell[0], requires_grad=True)
        deformation = torch.eye(3, dtype=self.dtype, device=self.device) + 0.5 * (strain + strain.T)
        deformed = copy.copy(crystal)
        deformed.pos, deformed.cell = pos @ deformation, crystal.cell @ deformation
        with torch.enable_grad():
            output = self.model(deformed)[0, self.column]
            energy = output * (self.factor * (crystal.num_nodes if self.per_atom else 1))
            slopes = torch.autograd.grad(energy, [pos, strain], allow_unused=True, materialize_grads=True)
        return energy.detach(), *slopes


def _energy_target(model: nn.Module, target: str | None) -> tuple[int, str]:
    """Column of the energy in the model's output, and its unit as the card states it."""
    card: Any = getattr(model, "card", None)
    if card is None:
        single = model.normalization.num_targets == 1  # type: ignore[union-attr]
        check_argument(
            target is None and bool(single), "target", "None, and a model of one target without card", target
        )
        return 0, ""
    kind = (card.task, card.level)
    check_argument(kind == ("regression", "crystal"), "model", "one trained on energies of crystals", kind)
    names = list(card.target_names)
    check_argument(target is not None or len(names) == 1, "target", f"one of {', '.join(names)}", target)
    name = names[0] if target is None else target
    check_choice("target", name, names)
    return names.index(name), card.units[names.index(name)]


def _moving_graph(model: nn.Module, tol: float | None) -> InfiniteNeighborhood:
    """The transform that makes a crystal's first graph."""
    card: Any = getattr(model, "card", None)
    settings = {name: value for name, value in card.neighborhood.items() if name != "merge_tolerance"} if card else {}
    if tol is not None:
        settings = {name: value for name, value in settings.items() if name != "cutoff"} | {"tol": tol}
    try:
        graph = model.neighborhood(**settings)  # type: ignore[operator]
    except TypeError:
        graph = None
    if not isinstance(graph, InfiniteNeighborhood):
        raise ValueError(
            f"model: expected a model on all images within a cutoff (Crystalformer), received {type(model).__name__}, "
            "whose energy jumps where the nearest neighbours change, so that it has no forces"
        )
    return graph


def _has_edges(crystal: Data) -> bool:
    return crystal.get("edge_cutoff") is not None and float(crystal.edge_cutoff) > 0.0


def _is_another(atoms: Atoms, last: Data) -> bool:
    """Whether `atoms` are another crystal than the last one, or have moved by more than a step does."""
    z = torch.as_tensor(atoms.numbers)
    if z.shape != last.z.shape or bool((z != last.z.cpu()).any()):
        return True
    old_cell, old_pos = (tensor.detach().cpu().double().numpy() for tensor in (last.cell[0], last.pos))
    cell = atoms.cell.array
    if not np.abs(cell - old_cell).max() <= NEW_START:
        return True
    carried = old_pos @ np.linalg.solve(old_cell, cell)
    return not np.linalg.norm(atoms.positions - carried, axis=1).max() <= NEW_START
