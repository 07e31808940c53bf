// Infinite attention on tensors: forward and backward.
#pragma once

#include <ATen/ops/empty.h>

#include <optional>
#include <tuple>

#include "backward.h"
#include "forward.h"

namespace crystal {

inline Graph read_graph(const Tensor& dist, at::TensorList indices) {
    const auto data = [&](int which) { return indices[which].const_data_ptr<int64_t>(); };
    return {
        dist.const_data_ptr<float>(), data(0), data(1), data(2), data(3), data(4), data(5), data(6),
        indices[3].numel() - 1, indices[0].numel(), indices[2].numel(),
    };
}

inline std::vector<float> pack_scaled(const Tensor& tensor, const Sizes& sizes, double scale) {
    std::vector<float> packed = pack(tensor, sizes);
    for (float& entry : packed) entry *= static_cast<float>(scale);
    return packed;
}

// Log-sum-exp and mean basis; the output is written to `out`, (N, H, d).
inline std::tuple<Tensor, Tensor> attention_forward_into(
    const Tensor& out, const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& rho,
    const Tensor& dist, at::TensorList indices, double r0, double scale, int64_t num_basis, double spacing) {
    const Sizes sizes(query, num_basis, spacing);
    Tensor lse = at::empty({query.size(0), sizes.heads}, query.options());
    Tensor mean_basis = at::empty({query.size(0), sizes.heads, num_basis}, query.options());
    const Forward pass{
        read_graph(dist, indices), sizes, static_cast<float>(0.5 / (r0 * r0)),
        pack_scaled(query, sizes, scale), pack(key, sizes), pack(value, sizes), rho.const_data_ptr<float>(),
        out.mutable_data_ptr<float>(), lse.mutable_data_ptr<float>(), mean_basis.mutable_data_ptr<float>(),
    };
    parallel_by_weight(
        pass.graph.num_rows, [&](int64_t row) { return pass.graph.first_slot(row); },
        [&](int64_t begin, int64_t end) { pass.run(begin, end); });
    return {lse, mean_basis};
}

inline std::tuple<Tensor, Tensor, Tensor> attention_forward(
    const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& rho, const Tensor& dist,
    at::TensorList indices, double r0, double scale, int64_t num_basis, double spacing) {
    const Tensor out = at::empty(query.sizes(), query.options());
    const auto [lse, mean_basis] =
        attention_forward_into(out, query, key, value, rho, dist, indices, r0, scale, num_basis, spacing);
    return {out, lse, mean_basis};
}

// Gradients of query, key and value, for the caller to place: (N, H, d) with rows as far apart as they like.
struct QueryKeyValue {
    Tensor query, key, value;
};

// The gradients of rho and dist; those of query, key and value are written to `grads`.
inline std::tuple<Tensor, Tensor> attention_backward_into(
    const QueryKeyValue& grads, const Tensor& grad_out, const Tensor& grad_lse,
    const std::optional<Tensor>& grad_mean_basis, const Tensor& query, const Tensor& key, const Tensor& value,
    const Tensor& rho, const Tensor& dist, at::TensorList indices, double r0, double scale,
    const std::optional<Tensor>& encoding, int64_t num_basis, double spacing, const Tensor& out, const Tensor& lse,
    const Tensor& mean_basis, bool need_dist) {
    const Sizes sizes(query, num_basis, spacing);
    const Graph graph = read_graph(dist, indices);
    Tensor grad_rho = at::empty({query.size(0), sizes.heads}, query.options());
    Tensor grad_dist = at::empty({need_dist ? graph.num_edges : 0}, query.options());
    std::vector<float> weight_sums(sizes.groups * graph.num_pairs * LANES), logit_sums(weight_sums.size());
    const Backward pass{
        graph, sizes, static_cast<float>(0.5 / (r0 * r0)), static_cast<float>(scale), need_dist,
        pack_scaled(query, sizes, scale), pack(key, sizes), pack(value, sizes), pack(grad_out, sizes),
        encoding ? pack(*encoding, sizes) : std::vector<float>(),
        rho.const_data_ptr<float>(), grad_lse.const_data_ptr<float>(),
        grad_mean_basis && num_basis ? grad_mean_basis->const_data_ptr<float>() : nullptr,
        out.const_data_ptr<float>(), lse.const_data_ptr<float>(), mean_basis.const_data_ptr<float>(),
        grads.query.mutable_data_ptr<float>(), grads.key.mutable_data_ptr<float>(),
        grads.value.mutable_data_ptr<float>(), grads.query.stride(0),
        grad_rho.mutable_data_ptr<float>(), grad_dist.mutable_data_ptr<float>(), weight_sums, logit_sums,
    };
    parallel_by_weight(
        graph.num_rows, [&](int64_t row) { return graph.first_slot(row); },
        [&](int64_t begin, int64_t end) { pass.run_rows(begin, end); });
    parallel_by_weight(
        graph.num_rows, [&](int64_t column) { return graph.column_ptr[column]; },
        [&](int64_t begin, int64_t end) { pass.run_columns(begin, end); });
    return {grad_rho, grad_dist};
}

inline std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> attention_backward(
    const Tensor& grad_out, const Tensor& grad_lse, const std::optional<Tensor>& grad_mean_basis, const Tensor& query,
    const Tensor& key, const Tensor& value, const Tensor& rho, const Tensor& dist, at::TensorList indices, double r0,
    double scale, const std::optional<Tensor>& encoding, int64_t num_basis, double spacing, const Tensor& out,
    const Tensor& lse, const Tensor& mean_basis, bool need_dist) {
    const auto like_query = [&] { return at::empty(query.sizes(), query.options()); };
    const QueryKeyValue grads{like_query(), like_query(), like_query()};
    auto [grad_rho, grad_dist] = attention_backward_into(
        grads, grad_out, grad_lse, grad_mean_basis, query, key, value, rho, dist, indices, r0, scale, encoding,
        num_basis, spacing, out, lse, mean_basis, need_dist);
    return {grads.query, grads.key, grads.value, grad_rho, grad_dist};
}

}  // namespace crystal
