// Backward of infinite attention: a pass by rows and a pass by columns.
#pragma once

#include "rows.h"

namespace crystal {

// grad_w += sum_k G_k b_k (or a slope in place of b) of the edges of one window, for four edges at a time.
// G is (padded basis, 8), `values` has 16 entries a place.
template <int EDGES>
inline __attribute__((always_inline)) void project_edges(
    const float* values, const float* grad_basis, const int32_t* slot, float* result) {
    Heads sum[EDGES] = {};
    for (int k = 0; k < WINDOW; ++k) {
        const Heads factor = load<Heads>(grad_basis + k * LANES);
        for (int edge = 0; edge < EDGES; ++edge) sum[edge] += factor * values[edge * WINDOW + k];
    }
    for (int edge = 0; edge < EDGES; ++edge) store(result + slot[edge] * static_cast<int64_t>(LANES), sum[edge]);
}

inline void project_basis_values(const Row& row, const Sizes& sizes, const float* values, const float* grad_basis,
                          float* result) {
    for (int64_t w = 0; w < sizes.windows; ++w) {
        const float* of_window = grad_basis + w * STRIDE * LANES;
        int64_t place = row.window_ptr[w];
        for (; place + 4 <= row.window_ptr[w + 1]; place += 4)
            project_edges<4>(values + place * WINDOW, of_window, row.slot.data() + place, result);
        for (; place < row.window_ptr[w + 1]; ++place)
            project_edges<1>(values + place * WINDOW, of_window, row.slot.data() + place, result);
    }
}

// First pass of backward, by rows: gradients of query, rho and distance, and of each pair the sums over its images of
// the weights w and of the gradients of the logits w (dL/dw - sum w dL/dw).
struct Backward {
    Graph graph;
    Sizes sizes;
    float half_inverse_square, scale;
    bool need_dist;
    std::vector<float> query, key, value, grad_out;  // the query scaled
    std::vector<float> encoding;  // (K, groups, d, 8), or empty where it is not part of the operation
    const float *rho, *grad_lse, *grad_mean_basis, *out, *lse, *mean_basis;
    float *grad_query, *grad_key, *grad_value;
    int64_t grad_stride;  // of the rows of these three
    float *grad_rho, *grad_dist;
    std::vector<float>&weight_sums, &logit_sums;  // (groups, pairs, 8)

    struct Scratch {
        Row row;
        Pairs pairs, grad_pairs;
        std::vector<float> grad_weight, slope_sum, sum, grad_basis;
    };

    void run_rows(int64_t begin, int64_t end) const {
        Scratch scratch;
        scratch.sum.resize(sizes.block());
        scratch.grad_basis.resize(sizes.padded_basis() * LANES);
        for (int64_t i = begin; i < end; ++i) {
            Row& row = scratch.row;
            row.read(graph, i);
            if (need_dist)
                for (int64_t s = 0; s < row.count; ++s) grad_dist[graph.pair_order[row.first + s]] = 0.0f;
            if (row.count == 0) {
                std::fill_n(grad_query + i * grad_stride, sizes.heads * sizes.head_dim, 0.0f);
                std::fill_n(grad_rho + i * sizes.heads, sizes.heads, 0.0f);
                continue;
            }
            if (sizes.windows) {
                row.sort_by_window(sizes);
                if (need_dist) row.evaluate_basis<true>(sizes);
                else row.evaluate_basis<false>(sizes);
            }
            if (static_cast<int64_t>(scratch.grad_weight.size()) < row.count * LANES) {
                scratch.grad_weight.resize(row.count * LANES);
                scratch.slope_sum.resize(need_dist ? row.count * LANES : 0);
            }
            for (int64_t group = 0; group < sizes.groups; ++group) {
                project(i, group, scratch);
                if (need_dist) sum_row<true>(i, group, scratch);
                else sum_row<false>(i, group, scratch);
            }
        }
    }

    // What the encoding adds to dL/dw of each edge, and to its slope in r: G b, where G = dL/du + W^E^T dL/dy, (K, 8).
    void project(int64_t i, int64_t group, Scratch& scratch) const {
        const Row& row = scratch.row;
        if (sizes.windows == 0) return;
        const int64_t used = std::min(row.used_centres, sizes.basis), heads = sizes.heads_in(group);
        const float* grad = grad_out.data() + (i * sizes.groups + group) * sizes.block();
        float* sums = scratch.grad_basis.data();
        if (grad_mean_basis) {
            for (int64_t lane = 0; lane < heads; ++lane) {
                const float* from = grad_mean_basis + (i * sizes.heads + group * LANES + lane) * sizes.basis;
                for (int64_t k = 0; k < used; ++k) sums[k * LANES + lane] = from[k];
            }
        } else {
            std::fill_n(sums, used * LANES, 0.0f);
        }
        for (int64_t k = 0; k < (encoding.empty() ? 0 : used); ++k) {
            const float* weights = encoding.data() + (k * sizes.groups + group) * sizes.block();
            store(sums + k * LANES, load<Heads>(sums + k * LANES) + dot(grad, weights, sizes.head_dim));
        }
        project_basis_values(row, sizes, row.basis.data(), scratch.grad_basis.data(), scratch.grad_weight.data());
        if (need_dist)
            project_basis_values(row, sizes, row.slope.data(), scratch.grad_basis.data(), scratch.slope_sum.data());
    }

    // Sum over the edges of w dL/dw, less the share of the log-sum-exp itself; by head.
    Heads centre(int64_t i, int64_t group) const {
        Heads centred{};
        const float* grad = &grad_out[(i * sizes.groups + group) * sizes.block()];
        for (int64_t lane = 0; lane < sizes.heads_in(group); ++lane) {
            const int64_t head = i * sizes.heads + group * LANES + lane;
            float sum = -grad_lse[head];
            for (int64_t c = 0; c < sizes.head_dim; ++c) sum += grad[c * LANES + lane] * out[head * sizes.head_dim + c];
            if (grad_mean_basis)
                sum += inner_product(grad_mean_basis + head * sizes.basis, mean_basis + head * sizes.basis, sizes.basis);
            centred[lane] = sum;
        }
        return centred;
    }

    template <bool WITH_DIST>
    void sum_row(int64_t i, int64_t group, Scratch& scratch) const {
        const int64_t first = graph.row_pair_ptr[i], last = graph.row_pair_ptr[i + 1], d = sizes.head_dim;
        const int64_t stride = sizes.groups * sizes.block(), offset = group * sizes.block();
        const Row& row = scratch.row;
        scratch.pairs.multiply(graph, query.data() + i * stride + offset, key.data() + offset, stride, d, first, last);
        scratch.grad_pairs.multiply(
            graph, grad_out.data() + i * stride + offset, value.data() + offset, stride, d, first, last);
        const Heads row_rho = load_heads(rho + i * sizes.heads, group, sizes.heads);
        const Heads decay = row_rho * half_inverse_square, stretch = row_rho * (2 * half_inverse_square);
        const Heads row_lse = load_heads(lse + i * sizes.heads, group, sizes.heads);
        const Heads row_centred = centre(i, group);

        Heads moment{};  // sum of r^2 times the gradients of the logits
        std::fill(scratch.sum.begin(), scratch.sum.end(), 0.0f);
        for (int64_t pair = first; pair < last; ++pair) {
            const Heads base = load<Heads>(scratch.pairs.product.data() + (pair - first) * LANES) - row_lse;
            const Heads grad_base =
                load<Heads>(scratch.grad_pairs.product.data() + (pair - first) * LANES) - row_centred;
            Heads weight_sum{}, logit_sum{};
            for (int64_t s = graph.pair_ptr[pair] - row.first; s < graph.pair_ptr[pair + 1] - row.first; ++s) {
                const Heads w = exponential(base - decay * row.squared[s]);
                const Heads grad = sizes.windows ? grad_base + load<Heads>(&scratch.grad_weight[s * LANES]) : grad_base;
                const Heads grad_logit = w * grad;
                weight_sum += w;
                logit_sum += grad_logit;
                moment += grad_logit * row.squared[s];
                if (WITH_DIST) {
                    Heads per_head = -(grad_logit * stretch) * row.dist[s];
                    if (sizes.windows) per_head += w * load<Heads>(&scratch.slope_sum[s * LANES]);
                    grad_dist[graph.pair_order[row.first + s]] += sum_first(per_head, sizes.heads - group * LANES);
                }
            }
            store(&weight_sums[(group * graph.num_pairs + pair) * LANES], weight_sum);
            store(&logit_sums[(group * graph.num_pairs + pair) * LANES], logit_sum);
            add(scratch.sum.data(), logit_sum, key.data() + graph.pair_source[pair] * stride + offset, d);
        }
        unpack(scratch.sum.data(), Heads{} + scale, grad_query + i * grad_stride, group, sizes);
        store_heads(grad_rho + i * sizes.heads, group, sizes.heads, moment * -half_inverse_square);
    }

    // Second pass, by columns of the transposed pairs: gradients of key and value.
    void run_columns(int64_t begin, int64_t end) const {
        const int64_t d = sizes.head_dim, stride = sizes.groups * sizes.block();
        std::vector<float> key_sum(sizes.block()), value_sum(sizes.block());
        for (int64_t j = begin; j < end; ++j)
            for (int64_t group = 0; group < sizes.groups; ++group) {
                std::fill(key_sum.begin(), key_sum.end(), 0.0f);
                std::fill(value_sum.begin(), value_sum.end(), 0.0f);
                for (int64_t place = graph.column_ptr[j]; place < graph.column_ptr[j + 1]; ++place) {
                    const int64_t pair = graph.column_pair[place];
                    const int64_t atom = graph.pair_target[pair] * stride + group * sizes.block();
                    const int64_t sums = (group * graph.num_pairs + pair) * LANES;
                    add(key_sum.data(), load<Heads>(&logit_sums[sums]), query.data() + atom, d);
                    add(value_sum.data(), load<Heads>(&weight_sums[sums]), grad_out.data() + atom, d);
                }
                unpack(key_sum.data(), Heads{} + 1.0f, grad_key + j * grad_stride, group, sizes);
                unpack(value_sum.data(), Heads{} + 1.0f, grad_value + j * grad_stride, group, sizes);
            }
    }
};

}  // namespace crystal
