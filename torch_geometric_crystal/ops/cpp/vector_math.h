// Short vectors through the compiler's vector extension (g++, clang++), which any instruction set carries out.
#pragma once

#include <cstdint>
#include <cstring>

namespace crystal {

constexpr int LANES = 8;    // heads are handled in groups of this many
constexpr int WINDOW = 16;  // basis centres that are evaluated around a distance

#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif

typedef float Heads __attribute__((vector_size(4 * LANES)));
typedef int32_t HeadsInt __attribute__((vector_size(4 * LANES)));
typedef float Wide __attribute__((vector_size(4 * WIDTH)));
typedef int32_t WideInt __attribute__((vector_size(4 * WIDTH)));

template <typename V>
inline __attribute__((always_inline)) V load(const float* source) {
    V vector;
    std::memcpy(&vector, source, sizeof(V));
    return vector;
}

template <typename V>
inline __attribute__((always_inline)) void store(float* target, V vector) {
    std::memcpy(target, &vector, sizeof(V));
}

// exp(x) for x <= 88, relative error 1e-7; below -86.5 it stays at 2.7e-38, the smallest that is safely no denormal.
// With n = round(x / ln 2), x = n ln 2 + f: a polynomial of degree 6 in f (relative error 2e-9, fitted by iteratively
// reweighted least squares), times 2^n, added to the exponent bits. Not-a-numbers stay what they are.
template <typename V, typename I>
inline __attribute__((always_inline)) V exponential(V x) {
    constexpr float LOWEST = -86.5f;
    constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: adding it leaves an integer in the low bits
    constexpr float LOG2_E = 1.44269504f, LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f;
    x = x < LOWEST ? LOWEST + V{} : x;
    const V shifted = x * LOG2_E + ROUND;
    const V n = shifted - ROUND;
    const V f = (x - n * LN2_HIGH) - n * LN2_LOW;
    V p = f * 0.0013843644f + 0.008374163f;
    p = p * f + 0.041668f;
    p = p * f + 0.16666432f;
    p = p * f + 0.49999994f;
    p = p * f + 1.0f;
    p = p * f + 1.0f;
    return (V)((I)p + ((I)shifted << 23));
}

inline __attribute__((always_inline)) Heads exponential(Heads x) { return exponential<Heads, HeadsInt>(x); }

// The sum of the first `count` lanes, or of all where there are fewer.
inline __attribute__((always_inline)) float sum_first(Heads v, int64_t count) {
    if (count >= LANES) return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7]));
    float sum = 0.0f;
    for (int64_t lane = 0; lane < count; ++lane) sum += v[lane];
    return sum;
}

inline float inner_product(const float* a, const float* b, int64_t size) {
    Heads sums{};
    int64_t k = 0;
    for (; k + LANES <= size; k += LANES) sums += load<Heads>(a + k) * load<Heads>(b + k);
    float sum = sum_first(sums, LANES);
    for (; k < size; ++k) sum += a[k] * b[k];
    return sum;
}

}  // namespace crystal
