// The operators of torch.ops.torch_geometric_crystal_cpp.
//
// The search for neighbours, the grouping of edges in rows and pairs, and infinite attention on the CPU, float32: forward and backward over them.
//
// Vectors run over 8 heads. Of each pair (i, j) the product q.k is taken once; of each edge and head one exponential.
// The basis is local: of its K centres the 16 around r are evaluated, in windows that start every 4 centres, so at
// least 5.5 spacings to either side; beyond them b < 2.7e-7. The edges of a row are sorted by window, so that the sums
// over a window stay in registers. Every row, and in the second pass of backward every column, is summed by one thread
// in a fixed order: results do not depend on the number of threads, bit by bit.

#include <torch/library.h>

#include "attention.h"
#include "block.h"
#include "group_edges.h"
#include "neighbors.h"
#include "reciprocal.h"

namespace crystal {
namespace {

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
        "neighbors(Tensor[] atoms, Tensor[] crystals, int first, int last, bool self_images, Tensor like) -> Tensor[]",
        crystal::neighbors);
    // Two names for one function: infinite_attention_node, for graphs that are recorded, is given a derivative in Python,
    // which every other call would have to pass.
    library.def(
        "infinite_attention(Tensor query, Tensor key, Tensor value, Tensor rho, Tensor dist, Tensor[] indices, "
        "float r0, float scale, int num_basis, float basis_spacing) -> (Tensor, Tensor, Tensor)");
    library.def(
        "infinite_attention_node(Tensor query, Tensor key, Tensor value, Tensor rho, Tensor dist, Tensor[] indices, "
        "float r0, float scale, int num_basis, float basis_spacing) -> (Tensor, Tensor, Tensor)");
    library.def(
        "infinite_attention_backward(Tensor grad_out, Tensor grad_lse, Tensor? grad_mean_basis, Tensor query, "
        "Tensor key, Tensor value, Tensor rho, Tensor dist, Tensor[] indices, float r0, float scale, "
        "Tensor? encoding, int num_basis, float basis_spacing, Tensor out, Tensor lse, Tensor mean_basis, "
        "bool need_dist) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
    library.def(
        "block(Tensor x, Tensor[] weights, Tensor statistics, Tensor dist, Tensor[] indices, float r0, float scale, "
        "float rho_min, float elu_beta, int num_basis, float basis_spacing) -> Tensor[]",
        crystal::block_forward);
    library.def(
        "block_backward(Tensor grad, Tensor[] weights, Tensor[] saved, Tensor statistics, Tensor dist, "
        "Tensor[] indices, float r0, float scale, float rho_min, float elu_beta, int num_basis, float basis_spacing) "
        "-> Tensor[]",
        crystal::block_backward);
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

TORCH_LIBRARY_IMPL(torch_geometric_crystal_cpp, CPU, library) {
    library.impl("infinite_attention", crystal::attention_forward);
    library.impl("infinite_attention_node", crystal::attention_forward);
    library.impl("infinite_attention_backward", crystal::attention_backward);
}
