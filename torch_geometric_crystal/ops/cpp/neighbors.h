// The neighbours of atoms that ops/neighbor_search.py has put into bins: one pass over the bins near each atom.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "rows.h"

namespace crystal {

constexpr int64_t ATOMS_AT_ONCE = 64, CANDIDATES_AT_ONCE = 64;

// One number for each of three axes; `stride` atoms or crystals lie between the axes.
template <typename Number>
struct Axes {
    const Number* data;
    int64_t stride;

    explicit Axes(const Tensor& tensor) : data(tensor.const_data_ptr<Number>()), stride(tensor.size(-1)) {}
    Number operator()(int64_t axis, int64_t index) const { return data[axis * stride + index]; }
    // Of matrices (3, 3, B).
    Number operator()(int64_t row, int64_t column, int64_t index) const {
        return data[(3 * row + column) * stride + index];
    }
};

template <typename Real>
struct Neighbor {
    int64_t source;
    Real dist;
    int32_t found;  // how many were found before it: ties are in order of this
    std::array<int32_t, 3> shift;

    bool operator<(const Neighbor& other) const {
        if (source != other.source) return source < other.source;
        return dist != other.dist ? dist < other.dist : found < other.found;
    }
};

// The fields of PreparedSearch and its bins: those of the atoms and those of the crystals.
struct BinnedAtoms {
    Axes<double> pos, pos_in_bins, to_centre;
    Axes<int64_t> place, wrap;
    const int64_t *crystal, *order, *start;
    Axes<double> basis, edges;
    Axes<int64_t> number, steps, transform;
    Axes<bool> periodic;
    const double *cutoff, *reach;
    const int64_t* first_bin;
    bool self_images;

    BinnedAtoms(at::TensorList atoms, at::TensorList crystals, bool with_self_images)
        : pos(atoms[0]), pos_in_bins(atoms[1]), to_centre(atoms[2]), place(atoms[3]), wrap(atoms[4]),
          crystal(atoms[5].const_data_ptr<int64_t>()), order(atoms[6].const_data_ptr<int64_t>()),
          start(atoms[7].const_data_ptr<int64_t>()), basis(crystals[0]), edges(crystals[1]), number(crystals[2]),
          steps(crystals[3]), transform(crystals[4]), periodic(crystals[5]),
          cutoff(crystals[6].const_data_ptr<double>()), reach(crystals[7].const_data_ptr<double>()),
          first_bin(crystals[8].const_data_ptr<int64_t>()), self_images(with_self_images) {}

    // The neighbours of atom i, sorted by source and distance, behind those that are there. Bins that follow each other
    // along the last axis do so in memory, too, and are looked at together.
    template <typename Real>
    void neighbors_of(int64_t i, std::vector<Neighbor<Real>>& all) const {
        const size_t before = all.size();
        const int64_t b = crystal[i];
        std::array<int64_t, 3> step, image, image_of_run{};
        for (step[0] = -steps(0, b); step[0] <= steps(0, b); ++step[0])
            for (step[1] = -steps(1, b); step[1] <= steps(1, b); ++step[1]) {
                int64_t first = 0, last = 0;
                for (step[2] = -steps(2, b); step[2] <= steps(2, b); ++step[2]) {
                    const int64_t bin = bin_at(i, b, step, image);
                    if (bin < 0) continue;
                    if (bin != last || image != image_of_run) {
                        add_from_bins(i, b, first, last, image_of_run, before, all);
                        first = bin, image_of_run = image;
                    }
                    last = bin + 1;
                }
                add_from_bins(i, b, first, last, image_of_run, before, all);
            }
        std::sort(all.begin() + before, all.end());
    }

  private:
    // The bin some steps from that of atom i, and the image of the cell that it lies in; -1 where it is out of reach.
    int64_t bin_at(int64_t i, int64_t b, const std::array<int64_t, 3>& step, std::array<int64_t, 3>& image) const {
        double squared = 0.0;
        for (int64_t axis = 0; axis < 3; ++axis) {
            double centre = to_centre(axis, i);
            for (int64_t row = 0; row < 3; ++row) centre += static_cast<double>(step[row]) * edges(row, axis, b);
            squared += centre * centre;
        }
        if (squared > reach[b]) return -1;
        int64_t member = 0;
        for (int64_t axis = 0; axis < 3; ++axis) {
            const int64_t bins = number(axis, b), at = place(axis, i) + step[axis];
            image[axis] = at >= 0 ? at / bins : -((bins - 1 - at) / bins);
            if (image[axis] != 0 && !periodic(axis, b)) return -1;
            member = member * bins + (at - image[axis] * bins);
        }
        return first_bin[b] + member;
    }

    template <typename Real>
    void add_from_bins(
        int64_t i, int64_t b, int64_t first, int64_t last, const std::array<int64_t, 3>& image, size_t before,
        std::vector<Neighbor<Real>>& all) const {
        std::array<double, 3> offset;
        for (int64_t axis = 0; axis < 3; ++axis) {
            offset[axis] = 0.0;
            for (int64_t row = 0; row < 3; ++row)
                offset[axis] += static_cast<double>(image[row]) * basis(row, axis, b);
        }
        const double most = cutoff[b] * cutoff[b] * (1.0 + 1e-12);  // what is beyond it needs no root
        std::array<double, CANDIDATES_AT_ONCE> squared;
        for (int64_t begin = start[first]; begin < start[last]; begin += CANDIDATES_AT_ONCE) {
            const int64_t count = std::min(CANDIDATES_AT_ONCE, start[last] - begin);
            std::fill_n(squared.begin(), count, 0.0);
            for (int64_t axis = 0; axis < 3; ++axis) {
                const double *candidates = pos_in_bins.data + axis * pos_in_bins.stride + begin, centre = pos(axis, i);
                for (int64_t c = 0; c < count; ++c) {
                    const double along = candidates[c] - centre + offset[axis];
                    squared[c] += along * along;
                }
            }
            for (int64_t c = 0; c < count; ++c)
                if (squared[c] <= most) add(i, b, order[begin + c], std::sqrt(squared[c]), image, before, all);
        }
    }

    template <typename Real>
    void add(
        int64_t i, int64_t b, int64_t source, double exact, const std::array<int64_t, 3>& image, size_t before,
        std::vector<Neighbor<Real>>& all) const {
        if (exact > cutoff[b]) return;
        Neighbor<Real> neighbor{source, static_cast<Real>(exact), static_cast<int32_t>(all.size() - before), {}};
        if (!self_images && source == i && neighbor.dist == 0) return;
        for (int64_t row = 0; row < 3; ++row) {
            const int64_t cells = image[row] + wrap(row, i) - wrap(row, source);
            for (int64_t axis = 0; axis < 3; ++axis)
                neighbor.shift[axis] += static_cast<int32_t>(cells * transform(row, axis, b));
        }
        all.push_back(neighbor);
    }
};

// Source, target, shift and distance of the edges that lead to the atoms first .. last - 1.
template <typename Real>
std::vector<Tensor> neighbors_between(const BinnedAtoms& atoms, int64_t first, int64_t last, const Tensor& like) {
    const int64_t chunks = (last - first + ATOMS_AT_ONCE - 1) / ATOMS_AT_ONCE;
    std::vector<std::vector<Neighbor<Real>>> found(chunks);
    std::vector<std::vector<int64_t>> ends(chunks);
    at::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t chunk = begin; chunk < end; ++chunk)
            for (int64_t i = first + chunk * ATOMS_AT_ONCE; i < std::min(last, first + (chunk + 1) * ATOMS_AT_ONCE); ++i) {
                atoms.neighbors_of(i, found[chunk]);
                ends[chunk].push_back(static_cast<int64_t>(found[chunk].size()));
            }
    });
    std::vector<int64_t> begins(chunks + 1, 0);
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
        begins[chunk + 1] = begins[chunk] + static_cast<int64_t>(found[chunk].size());
    const auto integers = like.options().dtype(at::kLong);
    const Tensor source = at::empty({begins[chunks]}, integers), target = at::empty({begins[chunks]}, integers);
    const Tensor shift = at::empty({begins[chunks], 3}, integers.dtype(at::kInt));
    const Tensor dist = at::empty({begins[chunks]}, like.options());
    int64_t *sources = source.mutable_data_ptr<int64_t>(), *targets = target.mutable_data_ptr<int64_t>();
    int32_t* shifts = shift.mutable_data_ptr<int32_t>();
    Real* dists = dist.mutable_data_ptr<Real>();
    at::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t chunk = begin; chunk < end; ++chunk) {
            int64_t edge = begins[chunk], atom = 0;
            for (const Neighbor<Real>& neighbor : found[chunk]) {
                while (edge - begins[chunk] >= ends[chunk][atom]) ++atom;
                sources[edge] = neighbor.source;
                targets[edge] = first + chunk * ATOMS_AT_ONCE + atom;
                std::copy(neighbor.shift.begin(), neighbor.shift.end(), shifts + 3 * edge);
                dists[edge++] = neighbor.dist;
            }
        }
    });
    return {source, target, shift, dist};
}

inline std::vector<Tensor> neighbors(
    at::TensorList atoms, at::TensorList crystals, int64_t first, int64_t last, bool self_images, const Tensor& like) {
    const BinnedAtoms binned(atoms, crystals, self_images);
    return like.scalar_type() == at::kDouble ? neighbors_between<double>(binned, first, last, like)
                                             : neighbors_between<float>(binned, first, last, like);
}

}  // namespace crystal
