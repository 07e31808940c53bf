// A whole block of Crystalformer, so that small batches do not wait for Python between its parts:
//
//     x <- x + W_o attention(W_qkv x + b_qkv) + b_o,    x <- x + W_2 relu(W_1 x + b_1) + b_2,
//
// with rho = 1 + (1 - b) elu(beta t / (1 - b)), t = g_0 (w . q + g_1), as nn/decay.py has it.
#pragma once

#include <ATen/ops/bmm.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/threshold_backward.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>

#include "attention.h"
#include "linear.h"

namespace crystal {

// The weights in the order of nn/fused_block.py; W^E, (H, d, K), is there if there is a basis.
struct BlockWeights {
    Tensor qkv, qkv_bias, decay, out, out_bias, expand, expand_bias, contract, contract_bias;
    std::optional<Tensor> encoding;

    explicit BlockWeights(at::TensorList w)
        : qkv(w[0]), qkv_bias(w[1]), decay(w[2]), out(w[3]), out_bias(w[4]), expand(w[5]), expand_bias(w[6]),
          contract(w[7]), contract_bias(w[8]) {
        if (w.size() > 9) encoding = w[9];
    }

    // (N, 3 H d) as q, k and v, each (N, H, d).
    QueryKeyValue split(const Tensor& projected) const {
        const auto parts = projected.view({projected.size(0), 3, decay.size(0), decay.size(1)}).unbind(1);
        return {parts[0], parts[1], parts[2]};
    }
};

// The decay's settings: g_0, g_1, the lower bound b and the slope beta.
struct Decay {
    float scale, shift, bound, slope;

    Decay(const Tensor& statistics, double rho_min, double elu_beta)
        : scale(static_cast<float>(statistics.const_data_ptr<double>()[0])),
          shift(static_cast<float>(statistics.const_data_ptr<double>()[1])),
          bound(static_cast<float>(rho_min)),
          slope(static_cast<float>(elu_beta)) {}

    Tensor rho(const Tensor& query, const Tensor& weight) const {
        const int64_t heads = query.size(1), d = query.size(2), stride = query.stride(0);
        const float *q = query.const_data_ptr<float>(), *w = weight.const_data_ptr<float>();
        Tensor result = at::empty({query.size(0), heads}, query.options());
        float* to = result.mutable_data_ptr<float>();
        const float room = 1 - bound;
        at::parallel_for(0, query.size(0), 256, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i)
                for (int64_t h = 0; h < heads; ++h) {
                    const float z = (inner_product(q + i * stride + h * d, w + h * d, d) + shift) * scale * slope / room;
                    to[i * heads + h] = 1 + room * (z > 0 ? z : std::expm1(z));
                }
        });
        return result;
    }

    // From the gradient of rho to that of w . q, in place. elu' is 1, or e^z = (rho - b) / (1 - b) where z < 0.
    void differentiate(Tensor& grad_rho, const Tensor& rho) const {
        float* grad = grad_rho.mutable_data_ptr<float>();
        const float* value = rho.const_data_ptr<float>();
        for (int64_t n = 0; n < rho.numel(); ++n)
            grad[n] *= scale * slope * std::min(1.0f, (value[n] - bound) / (1 - bound));
    }
};

// The new states, then what the backward pass takes: x, W_qkv x + b, rho, the attention's output, log-sum-exp and mean
// basis, the states between the two parts, and the hidden layer. Of all but rho, log-sum-exp and mean basis the rows are
// padded, as `linear` takes them.
inline std::vector<Tensor> block_forward(
    const Tensor& x, at::TensorList weights, const Tensor& statistics, const Tensor& dist, at::TensorList indices,
    double r0, double scale, double rho_min, double elu_beta, int64_t num_basis, double spacing) {
    const BlockWeights w(weights);
    const int64_t rows = x.size(0);
    const Tensor padded = with_padded_rows(x);
    const Tensor projected = linear(padded, w.qkv, w.qkv_bias);
    const auto [query, key, value] = w.split(projected.narrow(0, 0, rows));
    const Tensor rho = Decay(statistics, rho_min, elu_beta).rho(query, w.decay);
    const Tensor attended = empty_padded(rows, query.sizes().slice(1), x);
    Tensor attended_rows = attended.narrow(0, 0, rows);
    const auto [lse, mean_basis] =
        attention_forward_into(attended_rows, query, key, value, rho, dist, indices, r0, scale, num_basis, spacing);
    if (w.encoding)
        attended_rows += at::bmm(mean_basis.transpose(0, 1), w.encoding->transpose(1, 2)).transpose(0, 1);
    Tensor middle = linear(attended.flatten(1), w.out, w.out_bias);
    middle += padded;
    Tensor hidden = linear(middle, w.expand, w.expand_bias);
    hidden.relu_();
    Tensor result = linear(hidden, w.contract, w.contract_bias);
    result += middle;
    return {result.narrow(0, 0, rows), padded, projected, rho, attended, lse, mean_basis, middle, hidden};
}

// The gradient (H, d, K) of W^E from those of the attended values (N, H, d) and the mean basis (N, H, K). A product
// may sum row after row, so there are few in each.
inline Tensor encoding_gradient(const Tensor& grad_attended, const Tensor& mean_basis) {
    constexpr int64_t rows_at_once = 1024;
    const auto product = [&](int64_t first) {
        const int64_t count = std::min(rows_at_once, mean_basis.size(0) - first);
        return at::bmm(
            grad_attended.narrow(0, first, count).permute({1, 2, 0}), mean_basis.narrow(0, first, count).transpose(0, 1));
    };
    Tensor total = product(0);
    for (int64_t first = rows_at_once; first < mean_basis.size(0); first += rows_at_once) total += product(first);
    return total;
}

// Gradients of x and of the weights, in their order. `saved` is what block_forward returned after the new states.
inline std::vector<Tensor> block_backward(
    const Tensor& grad_rows, at::TensorList weights, at::TensorList saved, const Tensor& statistics,
    const Tensor& dist, at::TensorList indices, double r0, double scale, double rho_min, double elu_beta,
    int64_t num_basis, double spacing) {
    const BlockWeights w(weights);
    const int64_t rows = grad_rows.size(0);
    const Tensor &x = saved[0], &projected = saved[1], &rho = saved[2], &attended = saved[3], &lse = saved[4],
                 &mean_basis = saved[5], &middle = saved[6], &hidden = saved[7];
    const Tensor grad = with_padded_rows(grad_rows);
    Tensor grad_hidden = linear(grad, w.contract.t());
    at::threshold_backward_out(grad_hidden, grad_hidden, hidden, 0);
    Tensor grad_middle = linear(grad_hidden, w.expand.t());
    grad_middle += grad;
    const Tensor grad_attended = linear(grad_middle, w.out.t()).narrow(0, 0, rows).view({rows, w.decay.size(0), -1});

    const auto [query, key, value] = w.split(projected.narrow(0, 0, rows));
    const Tensor grad_projected = empty_padded(rows, projected.sizes().slice(1), projected);
    const QueryKeyValue grads = w.split(grad_projected.narrow(0, 0, rows));
    std::optional<Tensor> encoding, no_grad_mean_basis;
    if (w.encoding) encoding = w.encoding->permute({2, 0, 1}).contiguous();
    auto [grad_rho, grad_dist] = attention_backward_into(
        grads, grad_attended, at::zeros_like(lse), no_grad_mean_basis, query, key, value, rho, dist, indices, r0, scale,
        encoding, num_basis, spacing, attended, lse, mean_basis, false);
    Decay(statistics, rho_min, elu_beta).differentiate(grad_rho, rho);
    grads.query.addcmul_(grad_rho.unsqueeze(-1), w.decay);
    const Tensor grad_decay = grad_rho.unsqueeze(-1).mul(query).sum(0);  // not as a product, which sums row after row

    const auto sum = [&](const Tensor& of_output) { return of_output.narrow(0, 0, rows).sum(0); };
    Tensor grad_x = linear(grad_projected, w.qkv.t());
    grad_x += grad_middle;
    std::vector<Tensor> result{
        grad_x.narrow(0, 0, rows),
        linear_backward_weight(grad_projected, x), sum(grad_projected), grad_decay,
        linear_backward_weight(grad_middle, attended.flatten(1)), sum(grad_middle),
        linear_backward_weight(grad_hidden, middle), sum(grad_hidden),
        linear_backward_weight(grad, hidden), sum(grad),
    };
    if (w.encoding) result.push_back(encoding_gradient(grad_attended, mean_basis));
    return result;
}

}  // namespace crystal
