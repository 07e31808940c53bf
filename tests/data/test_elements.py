from pymatgen.core import Element

from torch_geometric_crystal.data.elements import ATOMIC_NUMBERS, SYMBOLS


def test_symbols_and_numbers_are_those_of_the_periodic_table():
    assert len(SYMBOLS) == 118
    assert all(Element.from_Z(z).symbol == symbol for z, symbol in enumerate(SYMBOLS, start=1))
    assert all(z == Element(symbol).Z for symbol, z in ATOMIC_NUMBERS.items())
