"""Binary features of the elements for CGCNN: 92 bits per element, rebuilt from tabulated properties.

The values are those of the MIT-licensed package `mendeleev <https://github.com/lmmentel/mendeleev>`_, version 0.4.0
(the authors of CGCNN say that theirs came from mendeleev): group, period, Pauling electronegativity, single-bond
covalent radius (Pyykko and Atsumi 2009), number of valence electrons, first ionisation energy, electron affinity, block
and atomic volume. The table is rebuilt from that source, not copied from the authors' file; it gives the same 92 bits
as their file for each of the elements 1 to 100 that the file has. Two oddities of the source are kept for that reason:
lanthanum to ytterbium and actinium to nobelium have group 0 and two valence electrons, and palladium has twelve.
"""

import numpy as np

NUM_ELEMENTS = 118
NUM_ELEMENT_FEATURES = 92

_BLOCKS = "spdf"

# Number of bins and their range, after the supplement of Xie and Grossman 2018 (table S2). Energies in eV, radii in pm,
# volumes in cm^3/mol; "ln" marks a natural logarithm. Group has a bin 0 and period stops at 7, as in the authors' file.
_ELECTRONEGATIVITY_BINS = (10, 0.5, 4.0)
_COVALENT_RADIUS_BINS = (10, 25.0, 250.0)
_LN_IONIZATION_ENERGY_BINS = (10, 1.3, 3.3)
_ELECTRON_AFFINITY_BINS = (10, -3.0, 3.7)
_LN_ATOMIC_VOLUME_BINS = (10, 1.5, 4.3)
_NUM_GROUPS, _NUM_PERIODS, _NUM_VALENCES = 19, 7, 12

# symbol, group, period, electronegativity, covalent radius, valence electrons, ionisation energy, electron affinity,
# block, atomic volume; "-" is a missing value. One line an element, in the order of the atomic number.
_PROPERTIES = """
H 1 1 2.2 32 1 13.5984 0.7542 s 14.1
He 18 1 - 46 2 24.5874 -19.7 s 31.8
Li 1 2 0.98 133 1 5.3917 0.618 s 13.1
Be 2 2 1.57 102 2 9.3227 -2.4 s 5
B 13 2 2.04 85 3 8.298 0.2797 p 4.6
C 14 2 2.55 75 4 11.2603 1.2621 p 5.3
N 15 2 3.04 71 5 14.5341 -1.4 p 17.3
O 16 2 3.44 63 6 13.6181 1.4611 p 14
F 17 2 3.98 64 7 17.4228 3.4012 p 17.1
Ne 18 2 - 67 8 21.5645 - p 16.8
Na 1 3 0.93 155 1 5.1391 0.5479 s 23.7
Mg 2 3 1.31 139 2 7.6462 - s 14
Al 13 3 1.61 126 3 5.9858 0.4328 p 10
Si 14 3 1.9 116 4 8.1517 1.3895 p 12.1
P 15 3 2.19 111 5 10.4867 0.7466 p 17
S 16 3 2.58 103 6 10.36 2.0771 p 15.5
Cl 17 3 3.16 99 7 12.9676 3.6127 p 18.7
Ar 18 3 - 96 8 15.7596 -11.5 p 24.2
K 1 4 0.82 196 1 4.3407 0.5015 s 45.3
Ca 2 4 1 171 2 6.1132 0.0245 s 29.9
Sc 3 4 1.36 148 3 6.5615 0.188 d 15
Ti 4 4 1.54 136 4 6.8281 0.079 d 10.6
V 5 4 1.63 134 5 6.7462 0.525 d 8.35
Cr 6 4 1.66 122 6 6.7665 0.666 d 7.23
Mn 7 4 1.55 119 7 7.434 - d 7.39
Fe 8 4 1.83 116 8 7.9025 0.151 d 7.1
Co 9 4 1.88 111 9 7.881 0.6623 d 6.7
Ni 10 4 1.91 110 10 7.6399 1.156 d 6.6
Cu 11 4 1.9 112 11 7.7264 1.235 d 7.1
Zn 12 4 1.65 118 12 9.3942 - d 9.2
Ga 13 4 1.81 124 3 5.9993 0.43 p 11.8
Ge 14 4 2.01 121 4 7.8994 1.2327 p 13.6
As 15 4 2.18 121 5 9.789 0.804 p 13.1
Se 16 4 2.55 116 6 9.7524 2.0207 p 16.5
Br 17 4 2.96 114 7 11.8138 3.3636 p 23.5
Kr 18 4 - 117 8 13.9996 - p 32.2
Rb 1 5 0.82 210 1 4.1771 0.4859 s 55.9
Sr 2 5 0.95 185 2 5.6949 0.048 s 33.7
Y 3 5 1.22 163 3 6.2173 0.307 d 19.8
Zr 4 5 1.33 154 4 6.6339 0.426 d 14.1
Nb 5 5 1.6 147 5 6.7588 0.9174 d 10.8
Mo 6 5 2.16 138 6 7.0924 0.748 d 9.4
Tc 7 5 2.1 128 7 7.1194 0.55 d 8.5
Ru 8 5 2.2 125 8 7.3605 1.05 d 8.3
Rh 9 5 2.28 125 9 7.4589 1.137 d 8.3
Pd 10 5 2.2 120 12 8.3369 0.562 d 8.9
Ag 11 5 1.93 128 11 7.5762 1.302 d 10.3
Cd 12 5 1.69 136 12 8.9938 - d 13.1
In 13 5 1.78 142 3 5.7864 0.3 p 15.7
Sn 14 5 1.96 140 4 7.3439 1.1121 p 16.3
Sb 15 5 2.05 140 5 8.6084 1.046 p 18.4
Te 16 5 2.1 136 6 9.0097 1.9709 p 20.5
I 17 5 2.66 133 7 10.4513 3.059 p 25.7
Xe 18 5 2.6 131 8 12.1298 -0.056 p 42.9
Cs 1 6 0.79 232 1 3.8939 0.4716 s 70
Ba 2 6 0.89 196 2 5.2117 0.1446 s 39
La 0 6 1.1 180 2 5.5769 0.47 f 22.5
Ce 0 6 1.12 163 2 5.5386 0.65 f 21
Pr 0 6 1.13 176 2 5.473 0.962 f 20.8
Nd 0 6 1.14 174 2 5.525 1.916 f 20.6
Pm 0 6 - 173 2 5.582 - f -
Sm 0 6 1.17 172 2 5.6437 - f 19.9
Eu 0 6 - 168 2 5.6704 0.864 f 28.9
Gd 0 6 1.2 169 2 6.1498 - f 19.9
Tb 0 6 - 168 2 5.8638 1.165 f 19.2
Dy 0 6 1.22 167 2 5.939 0.352 f 19
Ho 0 6 1.23 166 2 6.0215 - f 18.7
Er 0 6 1.24 165 2 6.1077 - f 18.4
Tm 0 6 1.25 164 2 6.1843 1.029 f 18.1
Yb 0 6 - 170 2 6.2542 -0.02 f 24.8
Lu 3 6 1 162 3 5.4259 0.34 d 17.8
Hf 4 6 1.3 152 4 6.8251 0.014 d 13.6
Ta 5 6 1.5 146 5 7.5496 0.322 d 10.9
W 6 6 1.7 137 6 7.864 0.8163 d 9.53
Re 7 6 1.9 131 7 7.8335 0.15 d 8.85
Os 8 6 2.2 129 8 8.4382 1.1 d 8.43
Ir 9 6 2.2 122 9 8.967 1.5638 d 8.54
Pt 10 6 2.2 123 10 8.9588 2.128 d 9.1
Au 11 6 2.4 124 11 9.2256 2.3086 d 10.2
Hg 12 6 1.9 133 12 10.4375 - d 14.8
Tl 13 6 1.8 144 3 6.1083 0.377 p 17.2
Pb 14 6 1.8 144 4 7.4167 0.3567 p 18.3
Bi 15 6 1.9 151 5 7.2855 0.9424 p 21.3
Po 16 6 2 145 6 8.414 1.9 p 22.7
At 17 6 2.2 147 7 9.3175 2.8 p -
Rn 18 6 - 142 8 10.7485 - p -
Fr 1 7 0.7 223 1 4.0727 0.486 s -
Ra 2 7 0.9 201 2 5.2784 0.1 s 45
Ac 0 7 1.1 186 2 5.3802 0.35 f 22.54
Th 0 7 1.3 175 2 6.3067 - f 19.8
Pa 0 7 1.5 169 2 5.89 - f 15
U 0 7 1.7 170 2 6.194 - f 12.5
Np 0 7 1.3 171 2 6.2655 - f 21.1
Pu 0 7 1.3 172 2 6.0258 - f -
Am 0 7 - 166 2 5.9738 - f 20.8
Cm 0 7 - 166 2 5.9914 - f 18.28
Bk 0 7 - 168 2 6.1978 - f -
Cf 0 7 - 168 2 6.2817 - f -
Es 0 7 - 165 2 6.3676 - f -
Fm 0 7 - 167 2 6.5 - f -
Md 0 7 - 173 2 6.58 - f -
No 0 7 - 176 2 6.65 - f -
Lr 3 7 - 161 3 4.9 - d -
Rf 4 7 - 157 4 6.01 - d -
Db 5 7 - 149 5 6.8 - d -
Sg 6 7 - 143 6 7.8 - d -
Bh 7 7 - 141 7 7.7 - d -
Hs 8 7 - 134 8 7.6 - d -
Mt 9 7 - 129 9 - - d -
Ds 10 7 - 128 10 - - d -
Rg 11 7 - 121 11 - - d -
Cn 12 7 - 122 12 - - d -
Nh 13 7 - 136 3 - - p -
Fl 14 7 - 143 4 - - p -
Mc 15 7 - 162 5 - - p -
Lv 16 7 - 175 6 - - p -
Ts 17 7 - 165 7 - - p -
Og 18 7 - 157 8 - 0.056 p -
"""


def _one_hot(position: int, size: int) -> np.ndarray:
    bits = np.zeros(size, dtype=np.uint8)
    bits[position] = 1
    return bits


def _binned(value: str, bins: tuple[int, float, float], logarithm: bool = False) -> np.ndarray:
    """One-hot bins of equal width; all zero for a missing value and for one outside the range."""
    size, low, high = bins
    if value == "-":
        return np.zeros(size, dtype=np.uint8)
    number = np.log(float(value)) if logarithm else float(value)
    if not low <= number < high:
        return np.zeros(size, dtype=np.uint8)
    return _one_hot(int((number - low) / (high - low) * size), size)


def element_features() -> np.ndarray:
    """Return the binary features of the elements 1 to 118, (118, 92), uint8: row Z - 1 belongs to atomic number Z.

    In order: group 0..18 (0: lanthanides and actinides), period 1..7, electronegativity (10 bins in 0.5 to 4.0),
    covalent radius (10 in 25 to 250 pm), valence electrons 1..12, ln of the first ionisation energy (10 in 1.3 to
    3.3), electron affinity (10 in -3 to 3.7 eV), block s, p, d, f, ln of the atomic volume (10 in 1.5 to 4.3). A
    property that is not known sets no bit.
    """
    rows = []
    for line in _PROPERTIES.strip().splitlines():
        _, group, period, electronegativity, radius, valence, ionization, affinity, block, volume = line.split()
        rows.append(
            np.concatenate(
                [
                    _one_hot(int(group), _NUM_GROUPS),
                    _one_hot(int(period) - 1, _NUM_PERIODS),
                    _binned(electronegativity, _ELECTRONEGATIVITY_BINS),
                    _binned(radius, _COVALENT_RADIUS_BINS),
                    _one_hot(int(valence) - 1, _NUM_VALENCES),
                    _binned(ionization, _LN_IONIZATION_ENERGY_BINS, logarithm=True),
                    _binned(affinity, _ELECTRON_AFFINITY_BINS),
                    _one_hot(_BLOCKS.index(block), len(_BLOCKS)),
                    _binned(volume, _LN_ATOMIC_VOLUME_BINS, logarithm=True),
                ]
            )
        )
    return np.stack(rows)
