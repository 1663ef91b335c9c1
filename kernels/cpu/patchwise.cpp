// Patchwise attention (sancli/ops/patchwise.py): weights made from all pixels of a footprint at once.
//
//     relation = [query_i, key_{i+o} for every offset o]
//     z = weight1 relu(norm1(relation)), hidden = relu(norm2(z)), w = weight2 hidden + bias2
//     out[s * G + g, i] = sum over o of w[g, o, i] * value[s * G + g, i + o]
//
// No tensor with a footprint in it is made, but for one tile of positions. Backward is a product with the
// transposed weights, a mask, and one addition to each padded pixel: no atomics, and no order left to chance.

#include "attend.h"
#include "generate.h"
#include "given.h"

namespace san {

constexpr int64_t FORWARD_TILE = 128, BACKWARD_TILE = 512;  // numbers; K * K rows of them stay in the cache

struct Sizes {
    int64_t planes, weights, values;  // R, G, M
};

template <class Stored> struct Inputs {
    ChannelsLast<const Stored> query, key, value;
};

inline void zero(Real* data, int64_t size, int64_t threads) {
    constexpr int64_t PIECE = 1 << 16;
#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < size; i += PIECE) std::memset(data + i, 0, smaller(PIECE, size - i) * sizeof(Real));
}

template <class Stored> inline Real rounded(Real x) { return to_real(to_stored<Stored>(x)); }

// relu(norm2(z)) along rows of positions.
inline void normalise(const Affine& norm, int64_t channels, int64_t size, Rows z, Rows hidden) {
    for (int64_t g = 0; g < channels; g++) {
        Vec scale = broadcast(norm.scale[g]), shift = broadcast(norm.shift[g]);
        for (int64_t p = 0; p < size; p += LANES) store(hidden[g] + p, relu(scale * load(z[g] + p) + shift));
    }
}

template <class Stored>
int64_t forward(Scratch scratch, int64_t threads, const Maps& maps, Sizes sizes, Inputs<Stored> inputs,
                Parameters given, ChannelsLast<Stored> out, ChannelsLast<Stored> z_out) {
    Relation relation{maps, sizes.planes};
    Attention attention{maps, sizes.weights, sizes.values / sizes.weights, given.weight2, given.bias2};
    int64_t G = sizes.weights, features = relation.features();
    int64_t row = Maps::odd_lines(maps.tile_size(FORWARD_TILE));
    int64_t each = row * (maps.offsets() + G + sizes.values);
    Affine norm1 = Affine::take(scratch, features), norm2 = Affine::take(scratch, G);
    Real* weight1 = scratch.take<Real>(features * G);
    Real* related = scratch.take<Real>(maps.groups * 2 * sizes.planes * maps.padded());
    Real* value = scratch.take<Real>(maps.groups * sizes.values * maps.padded());
    Real* z = scratch.take<Real>(maps.groups * G * maps.compact());
    Moments* sums = scratch.take<Moments>(larger(threads * maps.groups * maps.padded_height() * maps.kernel,
                                                 maps.groups * maps.height * G));
    Real* tiles = scratch.take<Real>(threads * each);
    if (scratch.counting()) return scratch.used();

    pad(maps, sizes.planes, 2 * sizes.planes, inputs.query, related, threads);
    pad(maps, sizes.planes, 2 * sizes.planes, inputs.key, related + sizes.planes * maps.padded(), threads);
    if (given.norm1.batch) relation_statistics(relation, related, sums, given.norm1, threads);
    norm1.fold(given.norm1, features);
    by_feature(given.weight1, G, features, weight1, threads);
    auto each_tile_row = [&](auto work) {  // on many threads
        int64_t high = maps.tile_rows(FORWARD_TILE), lines = (maps.height + high - 1) / high;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
        for (int64_t task = 0; task < maps.groups * lines; task++) {
            int64_t group = task / lines, y = task % lines * high;
            maps.each_tile(group, y, smaller(y + high, maps.height), FORWARD_TILE, work);
        }
    };
    each_tile_row([&](const Tile& tile) {
        Rows made{tiles + thread() * each, row}, result{made[maps.offsets()], row};
        generate_tile(relation, tile, G, related, norm1, weight1, made, result);
        for (int64_t g = 0; g < G; g++) {
            Real* to = z + (tile.group * G + g) * maps.compact() + tile.begin;
            for (int64_t p = 0; p < tile.size; p++) to[p] = rounded<Stored>(result[g][p]);
        }
    });
    unpack(maps, G, z, z_out, threads);
    if (given.norm2.batch)
        statistics(maps, G, z, sums, given.norm2.mean, given.norm2.var, threads);
    norm2.fold(given.norm2, G);
    pad(maps, sizes.values, sizes.values, inputs.value, value, threads);
    each_tile_row([&](const Tile& tile) {
        Rows made{tiles + thread() * each, row}, hidden{made[maps.offsets()], row}, result{hidden[G], row};
        Rows from{z + tile.group * G * maps.compact() + tile.begin, maps.compact()};
        normalise(norm2, G, tile.size, from, hidden);
        attend_tile(attention, tile, hidden, value, made, result);
        for (int64_t y = 0; y < tile.rows; y++) {
            Rows line{result.data + y * tile.columns * maps.lanes, row};
            scatter(maps, {tile.group, tile.y + y, tile.x, tile.columns}, sizes.values, line, out);
        }
    });
    return 0;
}

struct Gradients {
    Real *gamma1, *beta1, *weight1, *gamma2, *beta2, *weight2, *bias2;
};

// Turns the gradient of hidden into that of z, in place, and gives those of gamma and beta.
inline void norm_relu_backward(const Maps& maps, int64_t channels, const Norm& norm, const Affine& affine,
                               const Real* z, Real* grad, Real* grad_gamma, Real* grad_beta, int64_t threads) {
    double count = double(maps.images) * maps.height * maps.width;
    int64_t size = maps.positions();
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t c = 0; c < channels; c++) {
        Vec mean = broadcast(norm.mean[c]), scale = broadcast(affine.scale[c]), beta = broadcast(norm.beta[c]);
        double scaled = 0, plain = 0;
        auto rows = [&](auto work) {
            for (int64_t group = 0; group < maps.groups; group++) {
                int64_t at = (group * channels + c) * maps.compact();
                for (int64_t p = 0; p < size; p += LANES) work(z + at + p, grad + at + p, size - p);
            }
        };
        constexpr int64_t RUN = 64;  // vectors summed before they join the sum in double precision
        Vec scaled_run = {}, plain_run = {};
        int64_t run = 0;
        auto flush = [&] {
            scaled += double(sum(scaled_run)), plain += double(sum(plain_run));
            scaled_run = plain_run = Vec{}, run = 0;
        };
        rows([&](const Real* x, Real* dx, int64_t left) {
            Vec distance = load(x) - mean;
            Vec d = Vec{} >= scale * distance + beta ? Vec{} : first_lanes(load(dx), left);
            scaled_run += first_lanes(d * distance, left);
            plain_run += d;
            store_first(dx, d, left);
            if (++run == RUN) flush();
        });
        flush();
        grad_gamma[c] = Real(scaled * affine.invstd[c]);
        grad_beta[c] = Real(plain);
        double invstd = affine.invstd[c];
        Vec constant = broadcast(norm.batch ? Real(-plain / count) : Real(0));
        Vec slope = broadcast(norm.batch ? Real(-scaled * invstd * invstd / count) : Real(0));
        rows([&](const Real* x, Real* dx, int64_t left) {
            store_first(dx, scale * (load(dx) + constant + slope * (load(x) - mean)), left);
        });
    }
    if (!norm.batch) return;
    for (int64_t group = 0; group < maps.groups; group++) {  // no image, no gradient: the constant went there too
        int64_t used = maps.used_lanes(group), lanes = maps.lanes;
        for (int64_t c = 0; used < lanes && c < channels; c++)
            for (int64_t p = 0; p < size; p += lanes)
                for (int64_t n = used; n < lanes; n++) grad[(group * channels + c) * maps.compact() + p + n] = 0;
    }
}

// The gradients of hidden (compact), value (padded), weight2 and bias2.
inline void attend_backward(Scratch& scratch, int64_t threads, const Attention& attention, Real* hidden,
                            const Real* value, Real* grad_out, Real* grad_hidden, Real* grad_value,
                            Real* grad_weight, Real* grad_bias) {
    const Maps& maps = attention.maps;
    Parts parts(maps);
    int64_t G = attention.weights, M = attention.values(), rows = G * maps.offsets();
    int64_t blocks = larger(1, smaller(G, SHARES / 2 / (maps.groups * parts.count)));
    int64_t per_group = G * maps.compact(), partial = maps.groups * parts.count;
    int64_t each = AttendBackward::size(attention, maps.tile_size(BACKWARD_TILE));
    Real* buffers = scratch.take<Real>(threads * each);
    Real* hidden_sums = scratch.take<Real>(blocks * maps.groups * per_group);
    Real* weight_sums = scratch.take<Real>(partial * rows * G);
    double* bias_sums = scratch.take<double>(partial * rows);
    if (scratch.counting()) return;

    zero(buffers, threads * each, threads);
    zero(weight_sums, partial * rows * G, threads);
    zero(grad_value, maps.groups * M * maps.padded(), threads);
    std::memset(bias_sums, 0, partial * rows * sizeof(double));
    each_part(maps, parts, blocks, threads, [&](int64_t group, int64_t part, int64_t block) {
        auto own = AttendBackward::at(buffers + thread() * each, attention, maps.tile_size(BACKWARD_TILE));
        int64_t sums = group * parts.count + part, first = block * G / blocks, last = (block + 1) * G / blocks;
        auto work = [&](const Tile& tile) {
            Rows inputs{hidden + group * per_group + tile.begin, maps.compact()};
            Rows grads{grad_out + group * M * maps.compact() + tile.begin, maps.compact()};
            for (int64_t g = first; g < last; g++)
                attend_backward_tile(attention, tile, g, inputs, value, grads, own, g > first, grad_value,
                                     weight_sums + sums * rows * G, bias_sums + sums * rows);
            for (int64_t g = 0; g < G; g++)
                std::memcpy(hidden_sums + (block * maps.groups + group) * per_group + g * maps.compact() + tile.begin,
                            own.grad_hidden[g], tile.size * sizeof(Real));
        };
        maps.each_tile(group, parts.first(part), parts.last(part), BACKWARD_TILE, work);
    });
#pragma omp parallel for num_threads(threads)
    for (int64_t row = 0; row < rows; row++) {
        double bias = 0;
        for (int64_t i = 0; i < partial; i++) bias += bias_sums[i * rows + row];
        grad_bias[row] = Real(bias);
        for (int64_t g = 0; g < G; g++) {
            Real total = 0;
            for (int64_t i = 0; i < partial; i++) total += weight_sums[(i * rows + row) * G + g];
            grad_weight[row * G + g] = total;
        }
    }
#pragma omp parallel for num_threads(threads)
    for (int64_t channel = 0; channel < maps.groups * G; channel++)
        for (int64_t p = 0, at = channel * maps.compact(); p < maps.positions(); p++) {
            Real total = 0;
            for (int64_t block = 0; block < blocks; block++)
                total += hidden_sums[block * maps.groups * per_group + at + p];
            grad_hidden[at + p] = total;
        }
}

// The gradients of query and key (padded), weight1, gamma1 and beta1.
inline void generate_backward(Scratch& scratch, int64_t threads, const Relation& relation, int64_t G,
                              const Real* padded, const Norm& norm, const Affine& affine, const Real* weight,
                              Real* grad_z, Real* grad_padded, Gradients grads) {
    const Maps& maps = relation.maps;
    Parts parts(maps);
    int64_t features = relation.features(), row = Maps::odd_lines(maps.tile_size(BACKWARD_TILE));
    int64_t each = 2 * maps.offsets() * row, partial = maps.groups * parts.count, R = relation.planes;
    int64_t line = maps.kernel * (maps.width + maps.kernel - 1);
    Real* tiles = scratch.take<Real>(threads * each);
    Real* weight_sums = scratch.take<Real>(partial * features * G);
    double* sums = scratch.take<double>(2 * partial * features);
    Real *grad_mean = scratch.take<Real>(features), *grad_var = scratch.take<Real>(features);
    Real* lines = scratch.take<Real>(threads * 2 * line);
    if (scratch.counting()) return;

    zero(weight_sums, partial * features * G, threads);
    zero(grad_padded, maps.groups * 2 * R * maps.padded(), threads);
    std::memset(sums, 0, 2 * partial * features * sizeof(double));
    each_part(maps, parts, relation.batches(), threads, [&](int64_t group, int64_t part, int64_t batch) {
        Rows made{tiles + thread() * each, row}, before{made[maps.offsets()], row};
        int64_t i = group * parts.count + part;
        RelationSums own{weight_sums + i * features * G, sums + 2 * i * features, sums + (2 * i + 1) * features};
        maps.each_tile(group, parts.first(part), parts.last(part), BACKWARD_TILE, [&](const Tile& tile) {
            Rows from{grad_z + group * G * maps.compact() + tile.begin, maps.compact()};
            generate_backward_tile(relation, tile, batch, G, padded, norm, affine, weight, from, made, before,
                                   grad_padded, own);
        });
    });
#pragma omp parallel for num_threads(threads)
    for (int64_t f = 0; f < features; f++) {
        double scaled = 0, plain = 0, invstd = affine.invstd[f];
        for (int64_t i = 0; i < partial; i++) {
            scaled += sums[2 * i * features + f];
            plain += sums[(2 * i + 1) * features + f];
        }
        grads.gamma1[f] = Real(scaled * invstd);
        grads.beta1[f] = Real(plain);
        grad_mean[f] = Real(-affine.scale[f] * plain);
        grad_var[f] = Real(-0.5 * scaled * affine.scale[f] * invstd * invstd);
        for (int64_t g = 0; g < G; g++) {
            Real total = 0;
            for (int64_t i = 0; i < partial; i++) total += weight_sums[(i * features + f) * G + g];
            grads.weight1[g * features + f] = total;
        }
    }
    if (!norm.batch) return;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t channel = 0; channel < 2 * R; channel++) {
        int64_t f = relation.feature(channel);
        Real* own = lines + thread() * 2 * line;
        window_statistics_backward(maps, 2 * R, padded, relation.window(channel), norm.mean + f, grad_mean + f,
                                   grad_var + f, own, own + line, grad_padded);
    }
}

template <class Stored>
int64_t backward(Scratch scratch, int64_t threads, const Maps& maps, Sizes sizes, Inputs<Stored> inputs,
                 ChannelsLast<const Stored> grad, ChannelsLast<const Stored> z_saved, Parameters given,
                 ChannelsLast<Stored> grad_query, ChannelsLast<Stored> grad_key, ChannelsLast<Stored> grad_value,
                 Gradients grads) {
    Relation relation{maps, sizes.planes};
    Attention attention{maps, sizes.weights, sizes.values / sizes.weights, given.weight2, given.bias2};
    int64_t G = sizes.weights, M = sizes.values, R = sizes.planes, features = relation.features();
    Affine norm1 = Affine::take(scratch, features), norm2 = Affine::take(scratch, G);
    Real* weight1 = scratch.take<Real>(features * G);
    Real* z = scratch.take<Real>(maps.groups * G * maps.compact());
    Real* grad_z = scratch.take<Real>(maps.groups * G * maps.compact());
    Scratch first = scratch, second = scratch;  // one half after the other, in the same memory
    Real* hidden = first.take<Real>(maps.groups * G * maps.compact());
    Real* value = first.take<Real>(maps.groups * M * maps.padded());
    Real* grad_padded = first.take<Real>(maps.groups * M * maps.padded());
    Real* grad_out = first.take<Real>(maps.groups * M * maps.compact());
    if (!scratch.counting()) {
        pack(maps, G, z_saved, z, threads);
        pack(maps, M, grad, grad_out, threads);
        pad(maps, M, M, inputs.value, value, threads);
        norm1.fold(given.norm1, features);
        norm2.fold(given.norm2, G);
#pragma omp parallel for num_threads(threads)
        for (int64_t channel = 0; channel < maps.groups * G; channel++) {
            Real *from = z + channel * maps.compact(), *to = hidden + channel * maps.compact();
            int64_t g = channel % G, size = maps.positions();
            for (int64_t p = size; p < maps.compact(); p++) from[p] = 0;
            Affine one{norm2.scale + g, norm2.shift + g, norm2.invstd + g};
            normalise(one, 1, maps.compact(), {from, 0}, {to, 0});
        }
    }
    attend_backward(first, threads, attention, hidden, value, grad_out, grad_z, grad_padded, grads.weight2,
                    grads.bias2);
    Real* related = second.take<Real>(maps.groups * 2 * R * maps.padded());
    Real* grad_related = second.take<Real>(maps.groups * 2 * R * maps.padded());
    if (!scratch.counting()) {
        fold(maps, M, M, grad_padded, grad_value, threads);
        norm_relu_backward(maps, G, given.norm2, norm2, z, grad_z, grads.gamma2, grads.beta2, threads);
        for (int64_t channel = 0; channel < maps.groups * G; channel++)
            std::memset(grad_z + channel * maps.compact() + maps.positions(), 0,
                        (maps.compact() - maps.positions()) * sizeof(Real));
        by_feature(given.weight1, G, features, weight1, threads);
        pad(maps, R, 2 * R, inputs.query, related, threads);
        pad(maps, R, 2 * R, inputs.key, related + R * maps.padded(), threads);
    }
    generate_backward(second, threads, relation, G, related, given.norm1, norm1, weight1, grad_z, grad_related,
                      grads);
    if (scratch.counting()) return larger(first.used(), second.used());
    fold(maps, R, 2 * R, grad_related, grad_query, threads);
    fold(maps, R, 2 * R, grad_related + R * maps.padded(), grad_key, threads);
    return 0;
}

}  // namespace san

using namespace san;

// Shapes and layouts: sancli/ops/patchwise.py. `*_stride`: numbers from pixel to pixel. Parameters are Real.
extern "C" int64_t san_patchwise_attention(char* scratch, int64_t threads, int64_t storage, int64_t images,
                                           int64_t height, int64_t width, int64_t kernel, int64_t planes,
                                           int64_t weights, int64_t values, const void* query,
                                           int64_t query_stride, const void* key, int64_t key_stride,
                                           const void* value, int64_t value_stride, SAN_PARAMETERS,
                                           void* out, void* z) {
    Maps maps(images, height, width, kernel);
    auto run = [&](auto stored) {
        using Stored = decltype(stored);
        Inputs<Stored> inputs{read_maps<Stored>(query, query_stride), read_maps<Stored>(key, key_stride),
                              read_maps<Stored>(value, value_stride)};
        return forward<Stored>(Scratch(scratch), threads, maps, {planes, weights, values}, inputs, SAN_GIVEN,
                               write_maps<Stored>(out, values), write_maps<Stored>(z, weights));
    };
    return storage == BFLOAT16 ? run(BFloat16{}) : run(Real{});
}

extern "C" int64_t san_patchwise_attention_backward(
    char* scratch, int64_t threads, int64_t storage, int64_t images, int64_t height, int64_t width, int64_t kernel,
    int64_t planes, int64_t weights, int64_t values, const void* grad, const void* query, int64_t query_stride,
    const void* key, int64_t key_stride, const void* value, int64_t value_stride, SAN_PARAMETERS,
    const void* z, void* grad_query, void* grad_key, void* grad_value, Real* grad_gamma1, Real* grad_beta1,
    Real* grad_weight1, Real* grad_gamma2, Real* grad_beta2, Real* grad_weight2, Real* grad_bias2) {
    Maps maps(images, height, width, kernel);
    auto run = [&](auto stored) {
        using Stored = decltype(stored);
        Gradients grads{grad_gamma1, grad_beta1,   grad_weight1, grad_gamma2,
                        grad_beta2,  grad_weight2, grad_bias2};
        Inputs<Stored> inputs{read_maps<Stored>(query, query_stride), read_maps<Stored>(key, key_stride),
                              read_maps<Stored>(value, value_stride)};
        return backward<Stored>(Scratch(scratch), threads, maps, {planes, weights, values}, inputs,
                                read_maps<Stored>(grad, values), read_maps<Stored>(z, weights), SAN_GIVEN,
                                write_maps<Stored>(grad_query, planes), write_maps<Stored>(grad_key, planes),
                                write_maps<Stored>(grad_value, values), grads);
    };
    return storage == BFLOAT16 ? run(BFloat16{}) : run(Real{});
}
