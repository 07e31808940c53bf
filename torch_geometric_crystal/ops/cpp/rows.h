// The edges of a row, its radial basis, and the layout in which atoms are read: eight heads side by side.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "vector_math.h"

namespace crystal {

using at::Tensor;

constexpr int STRIDE = 4;          // centres between the starts of two windows
constexpr float MARGIN = 5.5f;     // spacings that a window reaches to either side of a distance, at least

inline int64_t round_up(int64_t number, int64_t multiple) { return (number + multiple - 1) / multiple * multiple; }

// The edges, as ops/neighborhood.py describes them.
struct Graph {
    const float* dist;
    const int64_t *pair_order, *pair_ptr, *pair_source, *row_pair_ptr, *pair_target, *column_ptr, *column_pair;
    int64_t num_rows, num_edges, num_pairs;

    int64_t first_slot(int64_t row) const { return pair_ptr[row_pair_ptr[row]]; }
};

struct Sizes {
    int64_t heads, groups, head_dim, basis, windows;
    float spacing;

    Sizes(const Tensor& query, int64_t num_basis, double basis_spacing)
        : heads(query.size(1)),
          groups(round_up(heads, LANES) / LANES),
          head_dim(query.size(2)),
          basis(num_basis),
          windows(num_basis == 0 ? 0 : 1 + round_up(std::max<int64_t>(num_basis - WINDOW, 0), STRIDE) / STRIDE),
          spacing(static_cast<float>(basis_spacing)) {}

    int64_t heads_in(int64_t group) const { return std::min<int64_t>(LANES, heads - group * LANES); }
    int64_t block() const { return head_dim * LANES; }                                // one atom, one group of heads
    int64_t padded_basis() const { return windows ? WINDOW + STRIDE * (windows - 1) : 0; }  // centres of all windows
};

// Run work(first, last) over 0 .. count - 1, a chunk of about equal weight for each thread, where `before(i)` is the weight before i.
template <typename Before, typename Work>
void parallel_by_weight(int64_t count, const Before& before, const Work& work) {
    const int64_t chunks = std::max<int64_t>(1, std::min<int64_t>(count, at::get_num_threads()));
    const double total = static_cast<double>(before(count) - before(0)) + count;
    const auto boundary = [&](int64_t chunk) {
        const double wanted = total * chunk / chunks;
        int64_t low = 0, high = count;
        while (low < high) {
            const int64_t middle = (low + high) / 2;
            if (static_cast<double>(before(middle) - before(0)) + middle < wanted) low = middle + 1;
            else high = middle;
        }
        return chunk == chunks ? count : low;
    };
    at::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) { work(boundary(begin), boundary(end)); });
}

// (N, H, d) with any row stride to (N, groups, d, 8): the heads of a group side by side, zero where there is none.
inline std::vector<float> pack(const Tensor& tensor, const Sizes& sizes) {
    const int64_t rows = tensor.size(0), stride = tensor.stride(0), d = sizes.head_dim;
    const float* source = tensor.const_data_ptr<float>();
    std::vector<float> packed(rows * sizes.groups * sizes.block());
    at::parallel_for(0, rows, 64, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row)
            for (int64_t head = 0; head < sizes.heads; ++head) {
                const float* from = source + row * stride + head * d;
                float* to = packed.data() + (row * sizes.groups + head / LANES) * sizes.block() + head % LANES;
                for (int64_t c = 0; c < d; ++c) to[c * LANES] = from[c];
            }
    });
    return packed;
}

// One group of heads, (d, 8), times a factor, to its place in a row of (H, d).
inline void unpack(const float* packed, Heads factor, float* row, int64_t group, const Sizes& sizes) {
    const int64_t heads = sizes.heads_in(group);
    for (int64_t head = 0; head < heads; ++head) {
        float* to = row + (group * LANES + head) * sizes.head_dim;
        const float f = factor[head];
        for (int64_t c = 0; c < sizes.head_dim; ++c) to[c] = packed[c * LANES + head] * f;
    }
}

inline Heads load_heads(const float* row, int64_t group, int64_t heads) {
    Heads vector{};
    for (int64_t lane = 0; lane < std::min<int64_t>(LANES, heads - group * LANES); ++lane)
        vector[lane] = row[group * LANES + lane];
    return vector;
}

inline void store_heads(float* row, int64_t group, int64_t heads, Heads vector) {
    for (int64_t lane = 0; lane < std::min<int64_t>(LANES, heads - group * LANES); ++lane)
        row[group * LANES + lane] = vector[lane];
}

inline __attribute__((always_inline)) Heads dot(const float* a, const float* b, int64_t d) {
    Heads even{}, odd{};
    int64_t c = 0;
    for (; c + 1 < d; c += 2) {
        even += load<Heads>(a + c * LANES) * load<Heads>(b + c * LANES);
        odd += load<Heads>(a + (c + 1) * LANES) * load<Heads>(b + (c + 1) * LANES);
    }
    if (c < d) even += load<Heads>(a + c * LANES) * load<Heads>(b + c * LANES);
    return even + odd;
}

inline __attribute__((always_inline)) void add(float* sum, Heads factor, const float* vector, int64_t d) {
    for (int64_t c = 0; c < d; ++c)
        store(sum + c * LANES, load<Heads>(sum + c * LANES) + factor * load<Heads>(vector + c * LANES));
}

// The edges of one row in order of pairs, and again in order of their windows.
struct Row {
    std::vector<float> dist, squared;       // by slot
    std::vector<int32_t> slot;              // by place: the slot at each place, places sorted by window
    std::vector<int32_t> window_of_slot;
    std::vector<int64_t> window_ptr;        // places of each window
    std::vector<float> basis, slope;        // by place: b and db/dr at the window's centres
    int64_t first = 0, count = 0, used_centres = 0;

    void read(const Graph& graph, int64_t row) {
        first = graph.first_slot(row);
        count = graph.pair_ptr[graph.row_pair_ptr[row + 1]] - first;
        if (static_cast<int64_t>(dist.size()) < count) dist.resize(count), squared.resize(count);
        for (int64_t s = 0; s < count; ++s) {
            dist[s] = graph.dist[graph.pair_order[first + s]];
            squared[s] = dist[s] * dist[s];
        }
    }

    void sort_by_window(const Sizes& sizes) {
        if (static_cast<int64_t>(slot.size()) < count) {
            slot.resize(count), window_of_slot.resize(count), basis.resize(count * WINDOW);
        }
        window_ptr.assign(sizes.windows + 1, 0);
        const float inverse = 1.0f / (sizes.spacing * STRIDE), shift = (1.0f + MARGIN) / STRIDE;
        const float last = static_cast<float>(sizes.windows - 1);
        for (int64_t s = 0; s < count; ++s)
            // In this order of arguments, not-a-number falls into the first window, where it goes on as such.
            window_of_slot[s] = static_cast<int32_t>(std::min(last, std::max(0.0f, dist[s] * inverse - shift)));
        for (int64_t s = 0; s < count; ++s) ++window_ptr[window_of_slot[s] + 1];
        used_centres = 0;
        for (int64_t w = 0; w < sizes.windows; ++w) {
            if (window_ptr[w + 1]) used_centres = w * STRIDE + WINDOW;
            window_ptr[w + 1] += window_ptr[w];
        }
        for (int64_t s = 0; s < count; ++s) slot[window_ptr[window_of_slot[s]]++] = static_cast<int32_t>(s);
        for (int64_t w = sizes.windows; w > 0; --w) window_ptr[w] = window_ptr[w - 1];
        window_ptr[0] = 0;
    }

    template <bool WITH_SLOPE>
    void evaluate_basis(const Sizes& sizes) {
        if (WITH_SLOPE && slope.size() < basis.size()) slope.resize(basis.size());
        const float inverse = 1.0f / sizes.spacing;
        Wide index;
        for (int lane = 0; lane < WIDTH; ++lane) index[lane] = static_cast<float>(lane + 1);
        for (int64_t w = 0; w < sizes.windows; ++w)
            for (int64_t place = window_ptr[w]; place < window_ptr[w + 1]; ++place) {
                const float x = dist[slot[place]] * inverse - static_cast<float>(w * STRIDE);
                for (int part = 0; part < WINDOW; part += WIDTH) {
                    const Wide offset = (x - static_cast<float>(part)) - index;
                    const Wide value = exponential<Wide, WideInt>(offset * offset * -0.5f);
                    store(basis.data() + place * WINDOW + part, value);
                    if (WITH_SLOPE) store(slope.data() + place * WINDOW + part, offset * value * -inverse);
                }
            }
    }
};

// u += w b over the edges of one window: `TILE` heads whose sums stay in registers. u is (8, padded basis).
template <int TILE>
inline __attribute__((always_inline)) void add_window(
    const Row& row, const float* weight, int64_t begin, int64_t end, float* u, int64_t padded, int head) {
    constexpr int PARTS = WINDOW / WIDTH;
    Wide sum[TILE][PARTS];
    for (int h = 0; h < TILE; ++h)
        for (int part = 0; part < PARTS; ++part) sum[h][part] = load<Wide>(u + (head + h) * padded + part * WIDTH);
    for (int64_t place = begin; place < end; ++place) {
        const float* w = weight + row.slot[place] * static_cast<int64_t>(LANES) + head;
        for (int part = 0; part < PARTS; ++part) {
            const Wide values = load<Wide>(row.basis.data() + place * WINDOW + part * WIDTH);
            for (int h = 0; h < TILE; ++h) sum[h][part] += values * w[h];
        }
    }
    for (int h = 0; h < TILE; ++h)
        for (int part = 0; part < PARTS; ++part) store(u + (head + h) * padded + part * WIDTH, sum[h][part]);
}

inline void sum_basis(const Row& row, const Sizes& sizes, const float* weight, float* u) {
    constexpr int TILE = WIDTH / 2;
    const int64_t padded = sizes.padded_basis();
    std::fill(u, u + LANES * padded, 0.0f);
    for (int64_t w = 0; w < sizes.windows; ++w) {
        const int64_t begin = row.window_ptr[w], end = row.window_ptr[w + 1];
        if (begin == end) continue;
        for (int head = 0; head < LANES; head += TILE)
            add_window<TILE>(row, weight, begin, end, u + w * STRIDE, padded, head);
    }
}

// Products q.k of a row's pairs, (pairs, 8), and the largest logit, which each pair's nearest image has.
struct Pairs {
    std::vector<float> product, nearest;

    void find_nearest(const Graph& graph, const Row& row, int64_t first, int64_t last) {
        nearest.resize(last - first);
        for (int64_t pair = first; pair < last; ++pair) {
            float least = std::numeric_limits<float>::infinity();
            for (int64_t s = graph.pair_ptr[pair]; s < graph.pair_ptr[pair + 1]; ++s)
                least = std::min(least, row.squared[s - row.first]);
            nearest[pair - first] = least;
        }
    }

    void multiply(const Graph& graph, const float* query, const float* key, int64_t atom_stride, int64_t head_dim,
                  int64_t first, int64_t last) {
        product.resize((last - first) * LANES);
        for (int64_t pair = first; pair < last; ++pair)
            store(product.data() + (pair - first) * LANES,
                  dot(query, key + graph.pair_source[pair] * atom_stride, head_dim));
    }

    Heads largest(Heads decay) const {
        Heads most = Heads{} - std::numeric_limits<float>::infinity();
        for (size_t pair = 0; pair < nearest.size(); ++pair) {
            const Heads logit = load<Heads>(product.data() + pair * LANES) - decay * nearest[pair];
            most = logit > most ? logit : most;
        }
        return most;
    }
};

}  // namespace crystal
