"""The factor from a model's output to eV, from what its card says and what the user states."""

from ase import units

from torch_geometric_crystal.checks import check_argument, check_choice

ENERGIES = ("per_atom", "total")

EV = {
    "eV": 1.0,
    "meV": 1e-3,
    "Ha": units.Hartree,
    "Ry": units.Rydberg,
    "kJ/mol": units.kJ / units.mol,
    "kcal/mol": units.kcal / units.mol,
}
"""Units of energy in eV, with the constants of ASE."""

PER_ATOM = "/atom"


def energy_factor(card_unit: str, energy: str, unit: str | None) -> float:
    """Return the unit of a model's output in eV, the energy being per atom or total.

    Args:
        card_unit: the unit that the model's card states, such as ``"eV/atom"``; empty where unknown.
        energy: ``"per_atom"`` or ``"total"``, as the user states it.
        unit: the unit as the user states it, of energies per atom with or without ``/atom``; None for that of the card.

    Raises:
        ValueError: if the two contradict each other, or neither gives a unit of energy.
    """
    check_choice("energy", energy, ENERGIES)
    known = card_unit.removesuffix(PER_ATOM)
    contradiction = card_unit.endswith(PER_ATOM) and energy == "total"
    check_argument(not contradiction, "energy", f"'per_atom' for a model whose unit is {card_unit!r}", energy)
    if unit is None:
        check_argument(known in EV, "unit", f"one of {', '.join(EV)}, as the model's card has none", card_unit)
        return EV[known]
    unit = unit.removesuffix(PER_ATOM) if energy == "per_atom" else unit
    check_choice("unit", unit, EV)
    same = known not in EV or known == unit
    check_argument(same, "unit", f"{known!r}, which the model's card states, or None", unit)
    return EV[unit]
