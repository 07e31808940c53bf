// The grouping of edges by target and by (target, source) pair: ops/neighborhood.py in two passes of counting.
#pragma once

#include <ATen/ops/empty.h>

#include <numeric>
#include <vector>

#include "rows.h"

namespace crystal {

using Counts = std::vector<int64_t>;

// From counts in entries 1 .. n to the places where each begins.
inline void accumulate(Counts& counts) {
    for (size_t n = 1; n < counts.size(); ++n) counts[n] += counts[n - 1];
}

// The stable order that sorts `index`, whose values are 0 .. num_values - 1; `first` gets where each value begins.
inline Counts counting_sort(const int64_t* index, int64_t count, int64_t num_values, Counts& first) {
    first.assign(num_values + 1, 0);
    for (int64_t e = 0; e < count; ++e) ++first[index[e] + 1];
    accumulate(first);
    Counts next(first.begin(), first.end() - 1), order(count);
    for (int64_t e = 0; e < count; ++e) order[next[index[e]]++] = e;
    return order;
}

inline Tensor to_tensor(const Counts& values, const Tensor& like) {
    Tensor tensor = at::empty({static_cast<int64_t>(values.size())}, like.options());
    std::copy(values.begin(), values.end(), tensor.mutable_data_ptr<int64_t>());
    return tensor;
}

inline Tensor tensor_of(int64_t size, const Tensor& like) { return at::empty({size}, like.options()); }

// The same as group_edges for edges in order of their target, then of their source, as the transforms store them.
inline std::vector<Tensor> group_sorted_edges(const Tensor& edge_index, int64_t num_nodes) {
    const int64_t count = edge_index.size(1);
    const int64_t *source = edge_index.const_data_ptr<int64_t>(), *target = source + count;
    const Tensor order = tensor_of(count, edge_index), edge_pair = tensor_of(count, edge_index);
    int64_t *place = order.mutable_data_ptr<int64_t>(), *pair_of = edge_pair.mutable_data_ptr<int64_t>();
    Counts row_ptr, row_pair_ptr, pair_ptr, pair_source, pair_target, column_ptr;
    row_ptr.reserve(num_nodes + 1);
    row_pair_ptr.reserve(num_nodes + 1);
    std::iota(place, place + count, 0);
    for (int64_t begin = 0, end = 0; begin < count; begin = end) {
        const int64_t pair = static_cast<int64_t>(pair_ptr.size()), i = target[begin], j = source[begin];
        while (end < count && source[end] == j && target[end] == i) ++end;
        std::fill(pair_of + begin, pair_of + end, pair);
        row_ptr.resize(i + 1, begin);
        row_pair_ptr.resize(i + 1, pair);
        pair_ptr.push_back(begin);
        pair_source.push_back(j);
        pair_target.push_back(i);
    }
    const int64_t num_pairs = static_cast<int64_t>(pair_ptr.size());
    row_ptr.resize(num_nodes + 1, count);
    row_pair_ptr.resize(num_nodes + 1, num_pairs);
    pair_ptr.push_back(count);
    const Counts column_pair = counting_sort(pair_source.data(), num_pairs, num_nodes, column_ptr);
    const auto tensor = [&](const Counts& values) { return to_tensor(values, edge_index); };
    return {order, edge_index[0].clone(), tensor(row_ptr), order.clone(), tensor(pair_ptr), tensor(pair_source),
            tensor(row_pair_ptr), edge_pair, tensor(pair_target), tensor(column_ptr), tensor(column_pair)};
}

// by_row, source, row_ptr, pair_order, pair_ptr, pair_source, row_pair_ptr, edge_pair, pair_target, column_ptr,
// column_pair; nothing where an index is out of range. `edge_index` is contiguous.
inline std::vector<Tensor> group_edges(const Tensor& edge_index, int64_t num_nodes) {
    const int64_t count = edge_index.size(1);
    const int64_t *source = edge_index.const_data_ptr<int64_t>(), *target = source + count;
    bool outside = false, sorted = true;
    for (int64_t n = 0; n < 2 * count; ++n) outside |= (source[n] < 0) | (source[n] >= num_nodes);
    if (outside) return {};
    for (int64_t e = 1; e < count; ++e)
        sorted &= (target[e - 1] < target[e]) | ((target[e - 1] == target[e]) & (source[e - 1] <= source[e]));
    if (sorted) return group_sorted_edges(edge_index, num_nodes);
    Counts row_ptr, column_ptr;
    const Counts by_row = counting_sort(target, count, num_nodes, row_ptr);
    Counts sorted_source(count), pair_order(count), edge_pair(count);
    for (int64_t e = 0; e < count; ++e) sorted_source[e] = source[by_row[e]];

    Counts pair_ptr, pair_source, pair_target, row_pair_ptr(num_nodes + 1, 0), next(num_nodes, 0), sources;
    for (int64_t row = 0; row < num_nodes; ++row) {
        const int64_t begin = row_ptr[row], end = row_ptr[row + 1];
        sources.clear();
        for (int64_t e = begin; e < end; ++e)
            if (next[sorted_source[e]]++ == 0) sources.push_back(sorted_source[e]);
        std::sort(sources.begin(), sources.end());
        int64_t place = begin;
        for (const int64_t j : sources) {
            pair_ptr.push_back(place);
            pair_source.push_back(j);
            pair_target.push_back(row);
            const int64_t images = next[j];
            next[j] = place;
            place += images;
        }
        for (int64_t e = begin; e < end; ++e) pair_order[next[sorted_source[e]]++] = e;
        for (const int64_t j : sources) next[j] = 0;
        row_pair_ptr[row + 1] = static_cast<int64_t>(pair_source.size());
    }
    pair_ptr.push_back(count);
    const int64_t num_pairs = static_cast<int64_t>(pair_source.size());
    for (int64_t pair = 0; pair < num_pairs; ++pair)
        for (int64_t slot = pair_ptr[pair]; slot < pair_ptr[pair + 1]; ++slot) edge_pair[pair_order[slot]] = pair;
    const Counts column_pair = counting_sort(pair_source.data(), num_pairs, num_nodes, column_ptr);

    const auto tensor = [&](const Counts& values) { return to_tensor(values, edge_index); };
    return {tensor(by_row), tensor(sorted_source), tensor(row_ptr), tensor(pair_order), tensor(pair_ptr),
            tensor(pair_source), tensor(row_pair_ptr), tensor(edge_pair), tensor(pair_target), tensor(column_ptr),
            tensor(column_pair)};
}

}  // namespace crystal
