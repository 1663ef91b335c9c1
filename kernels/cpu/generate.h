// The first half of patchwise attention: z = weight1 relu(norm1([query_i, key_{i+o} for every offset o])).
//
// query and key lie in one padded layout of 2 R channels. A feature is one channel of the relation: f < R is
// query f seen through the middle, R + r * K * K + o is key r seen through offset o. Features are taken in
// batches of at most K * K: they are made for one tile of positions, and used while they lie in the cache.
#pragma once

#include "gemm.h"
#include "parts.h"
#include "windows.h"

namespace san {

struct Relation {
    const Maps& maps;
    int64_t planes;  // R

    int64_t features() const { return planes * (maps.offsets() + 1); }
    int64_t query_batches() const { return (planes + maps.offsets() - 1) / maps.offsets(); }
    int64_t batches() const { return query_batches() + planes; }
    // Query features of a batch are windows of several channels, key features of one.
    int64_t first(int64_t batch) const {
        int64_t key = batch - query_batches();
        return key < 0 ? batch * maps.offsets() : planes + key * maps.offsets();
    }
    int64_t count(int64_t batch) const {
        return batch < query_batches() ? smaller(maps.offsets(), planes - first(batch)) : maps.offsets();
    }
    // Where feature f of a position stands in a group's padded channels.
    int64_t source(int64_t feature) const {
        if (feature < planes) return feature * maps.padded() + maps.step(maps.offsets() / 2);
        int64_t key = feature - planes;
        return (planes + key / maps.offsets()) * maps.padded() + maps.step(key % maps.offsets());
    }
    Window window(int64_t channel) const {
        int64_t middle = maps.offsets() / 2;
        return channel < planes ? Window{channel, middle, 1} : Window{channel, 0, maps.offsets()};
    }
    // The first feature of a padded channel.
    int64_t feature(int64_t channel) const {
        return channel < planes ? channel : planes + (channel - planes) * maps.offsets();
    }
};

// Mean and variance of every feature over the batch.
inline void relation_statistics(const Relation& relation, const Real* padded, Moments* sums, const Norm& norm,
                                int64_t threads) {
    const Maps& maps = relation.maps;
    int64_t rows = maps.groups * maps.padded_height() * maps.kernel;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t channel = 0; channel < 2 * relation.planes; channel++) {
        int64_t f = relation.feature(channel);
        window_statistics(maps, 2 * relation.planes, padded, relation.window(channel), sums + thread() * rows,
                          norm.mean + f, norm.var + f);
    }
}

// weight1 [G, features] by feature: [features, G].
inline void by_feature(const Real* weight, int64_t weights, int64_t features, Real* transposed, int64_t threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t f = 0; f < features; f++)
        for (int64_t g = 0; g < weights; g++) transposed[f * weights + g] = weight[g * features + f];
}

// z, compact, for one tile. `made` has K * K rows, `out` G rows, of a tile.
inline void generate_tile(const Relation& relation, const Tile& tile, int64_t weights, const Real* padded,
                          const Affine& norm, const Real* weight, Rows made, Rows out) {
    const Maps& maps = relation.maps;
    const Real* group = padded + tile.group * 2 * relation.planes * maps.padded();
    for (int64_t batch = 0; batch < relation.batches(); batch++) {
        int64_t first = relation.first(batch), features = relation.count(batch);
        maps.each_row(tile, [&](int64_t corner, int64_t at, int64_t count) {
            for (int64_t i = 0; i < features; i++) {
                const Real* x = group + relation.source(first + i) + corner;
                Vec scale = broadcast(norm.scale[first + i]), shift = broadcast(norm.shift[first + i]);
                Real* to = made[i] + at;
                for (int64_t p = 0; p < count; p += LANES) store(to + p, relu(scale * load(x + p) + shift));
            }
        });
        Left by_step{weight + first * weights, weights, 1};
        product(weights, features, tile.size, by_step, made, out, batch > 0);
    }
}

// What the backward pass of a batch of features adds up, in each group and part.
struct RelationSums {
    Real* weight;  // [features, G]
    double *scaled, *plain;  // [features]: sum of (gradient before the ReLU) times (x - mean), and alone
};

// Adds to the padded gradient, and to the sums, what one batch of features of a tile gives.
inline void generate_backward_tile(const Relation& relation, const Tile& tile, int64_t batch, int64_t weights,
                                   const Real* padded, const Norm& norm, const Affine& affine, const Real* weight,
                                   Rows grad_z, Rows made, Rows grads, Real* grad_padded, RelationSums sums) {
    const Maps& maps = relation.maps;
    int64_t base = tile.group * 2 * relation.planes * maps.padded();
    int64_t first = relation.first(batch), features = relation.count(batch);
    product(features, weights, tile.size, {weight + first * weights, 1, weights}, grad_z, grads, false);
    for (int64_t i = 0; i < features; i++) {
        int64_t f = first + i, source = base + relation.source(f);
        Vec mean = broadcast(norm.mean[f]), scale = broadcast(affine.scale[f]), beta = broadcast(norm.beta[f]);
        Vec scaled = {}, plain = {};
        maps.each_row(tile, [&](int64_t corner, int64_t at, int64_t count) {
            const Real *x = padded + source + corner, *after = grads[i] + at;
            Real *into = grad_padded + source + corner, *to = made[i] + at;
            each_vector(count, [&](int64_t p, auto left) {
                Vec distance = load(x + p) - mean, before = scale * distance + beta;
                Vec grad = Vec{} >= before ? Vec{} : first_lanes(load(after + p), left);
                scaled += first_lanes(grad * distance, left);
                plain += grad;
                store_first(into + p, load(into + p) + scale * grad, left);
                store_first(to + p, relu(before), left);
            });
        });
        sums.scaled[f] += double(sum(scaled));
        sums.plain[f] += double(sum(plain));
        store_first(made[i] + tile.size, Vec{}, round_up(tile.size, LANES) - tile.size);
    }
    dots(features, weights, tile.size, made, grad_z, sums.weight + first * weights, weights);
}

}  // namespace san
