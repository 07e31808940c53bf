// The operators of torch.ops.torch_geometric_crystal_cpp.
//
// The grouping of edges in rows and pairs, and infinite attention on the CPU, float32: forward and backward over them.
//
// Vectors run over 8 heads. Of each pair (i, j) the product q.k is taken once; of each edge and head one exponential.
// The basis is local: of its K centres the 16 around r are evaluated, in windows that start every 4 centres, so at
// least 5.5 spacings to either side; beyond them b < 2.7e-7. The edges of a row are sorted by window, so that the sums
// over a window stay in registers. Every row, and in the second pass of backward every column, is summed by one thread
// in a fixed order: results do not depend on the number of threads, bit by bit.

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <optional>
#include <tuple>

#include "backward.h"
#include "forward.h"
#include "group_edges.h"
#include "reciprocal.h"

namespace crystal {
namespace {

Graph read_graph(const Tensor& dist, at::TensorList indices) {
    const auto data = [&](int which) { return indices[which].const_data_ptr<int64_t>(); };
    return {
        dist.const_data_ptr<float>(), data(0), data(1), data(2), data(3), data(4), data(5), data(6),
        indices[3].numel() - 1, indices[0].numel(), indices[2].numel(),
    };
}

std::vector<float> pack_scaled(const Tensor& tensor, const Sizes& sizes, double scale) {
    std::vector<float> packed = pack(tensor, sizes);
    for (float& entry : packed) entry *= static_cast<float>(scale);
    return packed;
}

std::tuple<Tensor, Tensor, Tensor> forward(
    const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& rho, const Tensor& dist,
    at::TensorList indices, double r0, double scale, int64_t num_basis, double spacing) {
    const Sizes sizes(query, num_basis, spacing);
    Tensor out = at::empty({query.size(0), sizes.heads, sizes.head_dim}, query.options());
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
    return {out, lse, mean_basis};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> backward(
    const Tensor& grad_out, const Tensor& grad_lse, const std::optional<Tensor>& grad_mean_basis, const Tensor& query,
    const Tensor& key, const Tensor& value, const Tensor& rho, const Tensor& dist, at::TensorList indices, double r0,
    double scale, const std::optional<Tensor>& encoding, int64_t num_basis, double spacing, const Tensor& out,
    const Tensor& lse, const Tensor& mean_basis, bool need_dist) {
    const Sizes sizes(query, num_basis, spacing);
    const Graph graph = read_graph(dist, indices);
    const auto like_query = [&] { return at::empty({query.size(0), sizes.heads, sizes.head_dim}, query.options()); };
    Tensor grad_query = like_query(), grad_key = like_query(), grad_value = like_query();
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
        grad_query.mutable_data_ptr<float>(), grad_key.mutable_data_ptr<float>(), grad_value.mutable_data_ptr<float>(),
        grad_rho.mutable_data_ptr<float>(), grad_dist.mutable_data_ptr<float>(), weight_sums, logit_sums,
    };
    parallel_by_weight(
        graph.num_rows, [&](int64_t row) { return graph.first_slot(row); },
        [&](int64_t begin, int64_t end) { pass.run_rows(begin, end); });
    parallel_by_weight(
        graph.num_rows, [&](int64_t column) { return graph.column_ptr[column]; },
        [&](int64_t begin, int64_t end) { pass.run_columns(begin, end); });
    return {grad_query, grad_key, grad_value, grad_rho, grad_dist};
}

WaveSet read_waves(const Tensor& pos, const Tensor& vector, const Tensor& atom_ptr, const Tensor& wave_ptr) {
    return {
        pos.const_data_ptr<float>(), vector.const_data_ptr<float>(), atom_ptr.const_data_ptr<int64_t>(),
        wave_ptr.const_data_ptr<int64_t>(), atom_ptr.numel() - 1,
    };
}

// Work on the crystals before one, as good as it must be to share them out: each atom against all atoms and waves.
template <typename Pass>
void run_crystals(const Pass& pass) {
    const WaveSet& set = pass.set;
    std::vector<int64_t> before(set.num_crystals + 1, 0);
    for (int64_t b = 0; b < set.num_crystals; ++b) {
        const int64_t atoms = set.atom_ptr[b + 1] - set.atom_ptr[b], waves = set.wave_ptr[b + 1] - set.wave_ptr[b];
        before[b + 1] = before[b] + atoms * atoms * (waves + 1);
    }
    parallel_by_weight(
        set.num_crystals, [&](int64_t b) { return before[b]; },
        [&](int64_t begin, int64_t end) { pass.run(begin, end); });
}

std::tuple<Tensor, Tensor> reciprocal_forward(
    const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& sigma_sq, const Tensor& pos,
    const Tensor& vector, const Tensor& atom_ptr, const Tensor& wave_ptr, double scale, double floor) {
    const Sizes sizes(query, 0, 1.0);
    Tensor out = at::empty({query.size(0), sizes.heads, sizes.head_dim}, query.options());
    Tensor lse = at::empty({query.size(0), sizes.heads}, query.options());
    run_crystals(ReciprocalForward{
        read_waves(pos, vector, atom_ptr, wave_ptr), sizes, static_cast<float>(floor),
        pack_scaled(query, sizes, scale), pack(key, sizes), pack(value, sizes), sigma_sq.const_data_ptr<float>(),
        out.mutable_data_ptr<float>(), lse.mutable_data_ptr<float>(),
    });
    return {out, lse};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> reciprocal_backward(
    const Tensor& grad_out, const Tensor& grad_lse, const Tensor& query, const Tensor& key, const Tensor& value,
    const Tensor& sigma_sq, const Tensor& pos, const Tensor& vector, const Tensor& atom_ptr, const Tensor& wave_ptr,
    double scale, double floor, const Tensor& out, const Tensor& lse) {
    const Sizes sizes(query, 0, 1.0);
    const auto like_query = [&] { return at::empty({query.size(0), sizes.heads, sizes.head_dim}, query.options()); };
    Tensor grad_query = like_query(), grad_key = like_query(), grad_value = like_query();
    Tensor grad_sigma_sq = at::empty({query.size(0), sizes.heads}, query.options());
    run_crystals(ReciprocalBackward{
        read_waves(pos, vector, atom_ptr, wave_ptr), sizes, static_cast<float>(scale), static_cast<float>(floor),
        pack_scaled(query, sizes, scale), pack(key, sizes), pack(value, sizes), pack(grad_out, sizes),
        sigma_sq.const_data_ptr<float>(), grad_lse.const_data_ptr<float>(), out.const_data_ptr<float>(),
        lse.const_data_ptr<float>(), grad_query.mutable_data_ptr<float>(), grad_key.mutable_data_ptr<float>(),
        grad_value.mutable_data_ptr<float>(), grad_sigma_sq.mutable_data_ptr<float>(),
    });
    return {grad_query, grad_key, grad_value, grad_sigma_sq};
}

}  // namespace
}  // namespace crystal

TORCH_LIBRARY(torch_geometric_crystal_cpp, library) {
    library.def("group_edges(Tensor edge_index, int num_nodes) -> Tensor[]", crystal::group_edges);
    library.def(
        "infinite_attention(Tensor query, Tensor key, Tensor value, Tensor rho, Tensor dist, Tensor[] indices, "
        "float r0, float scale, int num_basis, float basis_spacing) -> (Tensor, Tensor, Tensor)",
        crystal::forward);
    library.def(
        "infinite_attention_backward(Tensor grad_out, Tensor grad_lse, Tensor? grad_mean_basis, Tensor query, "
        "Tensor key, Tensor value, Tensor rho, Tensor dist, Tensor[] indices, float r0, float scale, "
        "Tensor? encoding, int num_basis, float basis_spacing, Tensor out, Tensor lse, Tensor mean_basis, "
        "bool need_dist) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
        crystal::backward);
    library.def(
        "reciprocal_attention(Tensor query, Tensor key, Tensor value, Tensor sigma_sq, Tensor pos, Tensor vector, "
        "Tensor atom_ptr, Tensor wave_ptr, float scale, float floor) -> (Tensor, Tensor)",
        crystal::reciprocal_forward);
    library.def(
        "reciprocal_attention_backward(Tensor grad_out, Tensor grad_lse, Tensor query, Tensor key, Tensor value, "
        "Tensor sigma_sq, Tensor pos, Tensor vector, Tensor atom_ptr, Tensor wave_ptr, float scale, float floor, "
        "Tensor out, Tensor lse) -> (Tensor, Tensor, Tensor, Tensor)",
        crystal::reciprocal_backward);
}
