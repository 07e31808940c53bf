// Forward of infinite attention, by rows.
#pragma once

#include <cmath>

#include "rows.h"

namespace crystal {

struct Forward {
    Graph graph;
    Sizes sizes;
    float half_inverse_square;             // 1 / (2 r0^2)
    std::vector<float> query, key, value;  // the query scaled
    const float* rho;
    float *out, *lse, *mean_basis;

    void run(int64_t begin, int64_t end) const {
        Row row;
        Pairs pairs;
        std::vector<float> weight, sum(sizes.block()), u(LANES * sizes.padded_basis());
        for (int64_t i = begin; i < end; ++i) {
            row.read(graph, i);
            if (row.count == 0) {
                clear(i);
                continue;
            }
            if (sizes.windows) {
                row.sort_by_window(sizes);
                row.evaluate_basis<false>(sizes);
            }
            pairs.find_nearest(graph, row, graph.row_pair_ptr[i], graph.row_pair_ptr[i + 1]);
            if (static_cast<int64_t>(weight.size()) < row.count * LANES) weight.resize(row.count * LANES);
            for (int64_t group = 0; group < sizes.groups; ++group) attend(i, group, row, pairs, weight, sum, u);
        }
    }

    void clear(int64_t i) const {
        std::fill_n(out + i * sizes.heads * sizes.head_dim, sizes.heads * sizes.head_dim, 0.0f);
        std::fill_n(lse + i * sizes.heads, sizes.heads, -std::numeric_limits<float>::infinity());
        std::fill_n(mean_basis + i * sizes.heads * sizes.basis, sizes.heads * sizes.basis, 0.0f);
    }

    void attend(int64_t i, int64_t group, const Row& row, Pairs& pairs, std::vector<float>& weight,
                std::vector<float>& sum, std::vector<float>& u) const {
        const int64_t first = graph.row_pair_ptr[i], last = graph.row_pair_ptr[i + 1], d = sizes.head_dim;
        const int64_t stride = sizes.groups * sizes.block(), offset = group * sizes.block();
        pairs.multiply(graph, query.data() + i * stride + offset, key.data() + offset, stride, d, first, last);
        const Heads decay = load_heads(rho + i * sizes.heads, group, sizes.heads) * half_inverse_square;
        const Heads most = pairs.largest(decay);

        Heads total{};
        std::fill(sum.begin(), sum.end(), 0.0f);
        for (int64_t pair = first; pair < last; ++pair) {
            const Heads base = load<Heads>(pairs.product.data() + (pair - first) * LANES) - most;
            Heads of_pair{};
            for (int64_t s = graph.pair_ptr[pair] - row.first; s < graph.pair_ptr[pair + 1] - row.first; ++s) {
                const Heads w = exponential(base - decay * row.squared[s]);
                store(weight.data() + s * LANES, w);
                of_pair += w;
            }
            total += of_pair;
            add(sum.data(), of_pair, value.data() + graph.pair_source[pair] * stride + offset, d);
        }
        const Heads inverse = 1.0f / total;
        unpack(sum.data(), inverse, out + i * sizes.heads * d, group, sizes);
        Heads log_total;
        for (int lane = 0; lane < LANES; ++lane) log_total[lane] = std::log(total[lane]);
        store_heads(lse + i * sizes.heads, group, sizes.heads, most + log_total);
        if (sizes.windows) {
            sum_basis(row, sizes, weight.data(), u.data());
            write_basis(i, group, u.data(), inverse);
        }
    }

    void write_basis(int64_t i, int64_t group, const float* u, Heads inverse) const {
        const int64_t heads = sizes.heads_in(group), padded = sizes.padded_basis();
        for (int64_t head = 0; head < heads; ++head) {
            float* to = mean_basis + (i * sizes.heads + group * LANES + head) * sizes.basis;
            const float factor = inverse[head];
            for (int64_t k = 0; k < sizes.basis; ++k) to[k] = u[head * padded + k] * factor;
        }
    }
};

}  // namespace crystal
