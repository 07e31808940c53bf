// Products with weights. MKL takes AVX2 on AMD's processors; oneDNN, which torch has inside, takes AVX-512 and half the
// time. But it makes new code for each new shape (half a millisecond), so rows are filled up to a multiple of 16: of the
// atoms in a batch there are then few numbers.
#pragma once

#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <optional>

#include "rows.h"

namespace crystal {

constexpr int64_t ROWS = 16;
constexpr int64_t FEWEST_ROWS = 64;  // below, MKL starts faster

inline const std::optional<c10::OperatorHandle>& onednn_linear() {
    static const auto found = []() -> std::optional<c10::OperatorHandle> {
#if defined(__x86_64__)
        if (__builtin_cpu_is("amd") && __builtin_cpu_supports("avx512f") && at::hasMKLDNN())
            return c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
#endif
        return std::nullopt;
    }();
    return found;
}

inline bool takes_onednn(int64_t rows) {
    return rows >= FEWEST_ROWS && onednn_linear() && at::globalContext().userEnabledMkldnn();
}

inline int64_t padded_rows(int64_t rows) { return takes_onednn(rows) ? round_up(rows, ROWS) : rows; }

// Room for `rows` rows and those that fill them up, which are zero.
inline Tensor empty_padded(int64_t rows, at::IntArrayRef row_sizes, const Tensor& like) {
    std::vector<int64_t> sizes{padded_rows(rows)};
    sizes.insert(sizes.end(), row_sizes.begin(), row_sizes.end());
    Tensor result = at::empty(sizes, like.options());
    if (sizes[0] > rows) result.narrow(0, rows, sizes[0] - rows).zero_();
    return result;
}

inline Tensor with_padded_rows(const Tensor& x) {
    if (padded_rows(x.size(0)) == x.size(0)) return x;
    Tensor result = empty_padded(x.size(0), x.sizes().slice(1), x);
    result.narrow(0, 0, x.size(0)).copy_(x);
    return result;
}

// x W^T, and b. The rows of x are padded ones.
inline Tensor linear(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias = std::nullopt) {
    if (!takes_onednn(x.size(0)) || x.size(0) % ROWS)
        return bias ? at::addmm(*bias, x, weight.t()) : at::mm(x, weight.t());
    torch::jit::Stack stack{x, weight, bias, "none", c10::List<std::optional<at::Scalar>>(), ""};
    onednn_linear()->callBoxed(&stack);
    return stack[0].toTensor();
}

// The gradient of W in y = x W^T, from that of y, whose rows that fill up are zero.
inline Tensor linear_backward_weight(const Tensor& grad, const Tensor& x) {
    return takes_onednn(x.size(0)) ? linear(grad.t(), x.t()) : at::mm(grad.t(), x);
}

}  // namespace crystal
