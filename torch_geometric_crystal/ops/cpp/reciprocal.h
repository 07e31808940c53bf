// Reciprocal attention on the CPU, float32, without gradients of positions: crystal by crystal, row by row.
//
// S_ij = sum_m E_im cos g_m.(p_j - p_i), E_im = exp(-sigma_i^2 g_m^2 / 2) times the multiplicity of the wave, is taken
// as sum_m (E_im cos g_m.p_i) cos g_m.p_j + (E_im sin g_m.p_i) sin g_m.p_j, for 8 heads at a time. The softmax of
// s q.k + log max(S, floor) needs no logarithm: its terms are max(S, floor) exp(s q.k). One thread does a crystal, so
// results do not depend on the number of threads.
#pragma once

#include <cmath>

#include "rows.h"

namespace crystal {

struct WaveSet {
    const float *pos, *vector;
    const int64_t *atom_ptr, *wave_ptr;
    int64_t num_crystals;
};

// sum += a_m cos_jm + b_m sin_jm over the waves, for `ATOMS` atoms j at a time.
template <int ATOMS>
inline __attribute__((always_inline)) void lattice_sums(
    const float* a, const float* b, const float* cosine, const float* sine, int64_t waves, float* sums) {
    Heads even[ATOMS] = {}, odd[ATOMS] = {};
    for (int64_t m = 0; m < waves; ++m) {
        const Heads along = load<Heads>(a + m * LANES), across = load<Heads>(b + m * LANES);
        for (int j = 0; j < ATOMS; ++j) {
            even[j] += along * cosine[j * waves + m];
            odd[j] += across * sine[j * waves + m];
        }
    }
    for (int j = 0; j < ATOMS; ++j) store(sums + j * LANES, even[j] + odd[j]);
}

// One crystal: the phases of its atoms, and the sums S of one row and one group of heads.
struct WaveRow {
    std::vector<float> cosine, sine;           // (atoms, waves)
    std::vector<float> length_sq;              // (waves)
    std::vector<float> along, across;          // (waves, 8): E cos, E sin of the row
    std::vector<float> sums;                   // (atoms, 8)
    int64_t first = 0, atoms = 0, waves = 0;

    void read(const WaveSet& set, int64_t crystal) {
        first = set.atom_ptr[crystal];
        atoms = set.atom_ptr[crystal + 1] - first;
        waves = set.wave_ptr[crystal + 1] - set.wave_ptr[crystal];
        const float* vector = set.vector + 3 * set.wave_ptr[crystal];
        cosine.resize(atoms * waves), sine.resize(atoms * waves), length_sq.resize(waves), sums.resize(atoms * LANES);
        along.resize(waves * LANES), across.resize(waves * LANES);
        for (int64_t m = 0; m < waves; ++m) length_sq[m] = inner_product(vector + 3 * m, vector + 3 * m, 3);
        constexpr double TURN = 6.283185307179586;
        for (int64_t j = 0; j < atoms; ++j)
            for (int64_t m = 0; m < waves; ++m) {
                const float *p = set.pos + 3 * (first + j), *g = vector + 3 * m;
                const double angle = double(p[0]) * g[0] + double(p[1]) * g[1] + double(p[2]) * g[2];
                const float reduced = static_cast<float>(angle - TURN * std::nearbyint(angle / TURN));
                cosine[j * waves + m] = std::cos(reduced);
                sine[j * waves + m] = std::sin(reduced);
            }
    }

    void sum(int64_t row, Heads sigma_sq) {
        for (int64_t m = 0; m < waves; ++m) {
            const Heads value = exponential(sigma_sq * (-0.5f * length_sq[m])) * (m == 0 ? 1.0f : 2.0f);
            store(&along[m * LANES], value * cosine[row * waves + m]);
            store(&across[m * LANES], value * sine[row * waves + m]);
        }
        int64_t j = 0;
        for (; j + 4 <= atoms; j += 4)
            lattice_sums<4>(along.data(), across.data(), &cosine[j * waves], &sine[j * waves], waves, &sums[j * LANES]);
        for (; j < atoms; ++j)
            lattice_sums<1>(along.data(), across.data(), &cosine[j * waves], &sine[j * waves], waves, &sums[j * LANES]);
    }

    // dL/dsigma^2 of the row, given dL/dS of its atoms, (atoms, 8).
    Heads grad_sigma_sq(int64_t row, const std::vector<float>& grad_sums) const {
        Heads total{};
        int64_t m = 0;
        for (; m + 4 <= waves; m += 4) total += grad_of_waves<4>(row, m, grad_sums);
        for (; m < waves; ++m) total += grad_of_waves<1>(row, m, grad_sums);
        return total * -0.5f;
    }

    // The sum of g^2 E dL/dE over `COUNT` waves.
    template <int COUNT>
    Heads grad_of_waves(int64_t row, int64_t first_wave, const std::vector<float>& grad_sums) const {
        Heads cosines[COUNT] = {}, sines[COUNT] = {}, total{};
        for (int64_t j = 0; j < atoms; ++j) {
            const Heads grad = load<Heads>(&grad_sums[j * LANES]);
            for (int m = 0; m < COUNT; ++m) {
                cosines[m] += grad * cosine[j * waves + first_wave + m];
                sines[m] += grad * sine[j * waves + first_wave + m];
            }
        }
        for (int m = 0; m < COUNT; ++m) {
            const int64_t wave = first_wave + m;
            const Heads a = load<Heads>(&along[wave * LANES]), b = load<Heads>(&across[wave * LANES]);
            total += (cosines[m] * a + sines[m] * b) * length_sq[wave];
        }
        return total;
    }
};

struct ReciprocalForward {
    WaveSet set;
    Sizes sizes;
    float floor;
    std::vector<float> query, key, value;  // the query scaled
    const float* sigma_sq;
    float *out, *lse;

    void run(int64_t begin, int64_t end) const {
        WaveRow row;
        std::vector<float> products, sum(sizes.block());
        for (int64_t crystal = begin; crystal < end; ++crystal) {
            row.read(set, crystal);
            products.resize(row.atoms * LANES);
            for (int64_t i = 0; i < row.atoms; ++i)
                for (int64_t group = 0; group < sizes.groups; ++group) attend(i, group, row, products, sum);
        }
    }

    void attend(int64_t i, int64_t group, WaveRow& row, std::vector<float>& products, std::vector<float>& sum) const {
        const int64_t d = sizes.head_dim, stride = sizes.groups * sizes.block(), offset = group * sizes.block();
        const int64_t atom = row.first + i;
        float *atom_out = out + atom * sizes.heads * d, *atom_lse = lse + atom * sizes.heads;
        std::fill(sum.begin(), sum.end(), 0.0f);
        if (row.waves == 0) {
            unpack(sum.data(), Heads{}, atom_out, group, sizes);
            store_heads(atom_lse, group, sizes.heads, Heads{} - std::numeric_limits<float>::infinity());
            return;
        }
        row.sum(i, load_heads(sigma_sq + atom * sizes.heads, group, sizes.heads));
        Heads most = Heads{} - std::numeric_limits<float>::infinity(), total{};
        for (int64_t j = 0; j < row.atoms; ++j) {
            const Heads product =
                dot(query.data() + atom * stride + offset, key.data() + (row.first + j) * stride + offset, d);
            store(&products[j * LANES], product);
            most = product > most ? product : most;
        }
        for (int64_t j = 0; j < row.atoms; ++j) {
            const Heads s = load<Heads>(&row.sums[j * LANES]);
            const Heads w = exponential(load<Heads>(&products[j * LANES]) - most) * (s < floor ? floor + Heads{} : s);
            total += w;
            add(sum.data(), w, value.data() + (row.first + j) * stride + offset, d);
        }
        Heads log_total;
        for (int lane = 0; lane < LANES; ++lane) log_total[lane] = std::log(total[lane]);
        unpack(sum.data(), 1.0f / total, atom_out, group, sizes);
        store_heads(atom_lse, group, sizes.heads, most + log_total);
    }
};

struct ReciprocalBackward {
    WaveSet set;
    Sizes sizes;
    float scale, floor;
    std::vector<float> query, key, value, grad_out;  // the query scaled
    const float *sigma_sq, *grad_lse, *out, *lse;
    float *grad_query, *grad_key, *grad_value, *grad_sigma_sq;

    void run(int64_t begin, int64_t end) const {
        WaveRow row;
        std::vector<float> grad_sums, query_sum(sizes.block()), key_sums, value_sums;
        for (int64_t crystal = begin; crystal < end; ++crystal) {
            row.read(set, crystal);
            grad_sums.resize(row.atoms * LANES);
            for (int64_t group = 0; group < sizes.groups; ++group) {
                key_sums.assign(row.atoms * sizes.block(), 0.0f);
                value_sums.assign(row.atoms * sizes.block(), 0.0f);
                for (int64_t i = 0; i < row.atoms; ++i)
                    sum_row(i, group, row, grad_sums, query_sum, key_sums, value_sums);
                for (int64_t j = 0; j < row.atoms; ++j) {
                    const int64_t to = (row.first + j) * sizes.heads * sizes.head_dim;
                    unpack(&key_sums[j * sizes.block()], Heads{} + 1.0f, grad_key + to, group, sizes);
                    unpack(&value_sums[j * sizes.block()], Heads{} + 1.0f, grad_value + to, group, sizes);
                }
            }
        }
    }

    void sum_row(int64_t i, int64_t group, WaveRow& row, std::vector<float>& grad_sums, std::vector<float>& query_sum,
                 std::vector<float>& key_sums, std::vector<float>& value_sums) const {
        const int64_t d = sizes.head_dim, stride = sizes.groups * sizes.block(), offset = group * sizes.block();
        const int64_t atom = row.first + i;
        const float *q = query.data() + atom * stride + offset, *grad = grad_out.data() + atom * stride + offset;
        std::fill(query_sum.begin(), query_sum.end(), 0.0f);
        Heads grad_sigma{};
        if (row.waves > 0) {
            row.sum(i, load_heads(sigma_sq + atom * sizes.heads, group, sizes.heads));
            const Heads atom_lse = load_heads(lse + atom * sizes.heads, group, sizes.heads);
            const Heads centred = centre(grad, atom, group);
            for (int64_t j = 0; j < row.atoms; ++j) {
                const int64_t source = (row.first + j) * stride + offset;
                const Heads s = load<Heads>(&row.sums[j * LANES]);
                const Heads w = exponential(dot(q, key.data() + source, d) - atom_lse) * (s < floor ? floor + Heads{} : s);
                const Heads grad_logit = w * (dot(grad, value.data() + source, d) - centred);
                store(&grad_sums[j * LANES], s > floor ? grad_logit / s : Heads{});
                add(query_sum.data(), grad_logit, key.data() + source, d);
                add(&key_sums[j * sizes.block()], grad_logit, q, d);
                add(&value_sums[j * sizes.block()], w, grad, d);
            }
            grad_sigma = row.grad_sigma_sq(i, grad_sums);
        }
        unpack(query_sum.data(), Heads{} + scale, grad_query + atom * sizes.heads * d, group, sizes);
        store_heads(grad_sigma_sq + atom * sizes.heads, group, sizes.heads, grad_sigma);
    }

    Heads centre(const float* grad, int64_t atom, int64_t group) const {
        Heads centred{};
        for (int64_t lane = 0; lane < sizes.heads_in(group); ++lane) {
            const int64_t head = atom * sizes.heads + group * LANES + lane;
            centred[lane] = -grad_lse[head];
            for (int64_t c = 0; c < sizes.head_dim; ++c)
                centred[lane] += grad[c * LANES + lane] * out[head * sizes.head_dim + c];
        }
        return centred;
    }
};

}  // namespace crystal
