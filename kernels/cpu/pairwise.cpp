// Pairwise attention (sancli/ops/pairwise.py): a pixel of a footprint weighed by how it compares with the middle.
//
//     u = relu(norm1(query_i + sign * key_{i+o})), hidden = relu(norm2(weight1 u))
//     w = softmax over o of weight2 hidden, out[s * G + g, i] = sum over o of w[g, o, i] * value[s * G + g, i + o]
//
// A tile of positions at a time, all offsets of it in the cache. The statistics of norm2 are linear in the first
// two moments of u, and so is what they add to the gradient of u, so that no pass computes a softmax that another
// one has computed: forward is one pass for the moments (half of a symmetric matrix) and one for the rest,
// backward one for the gradients of all weights and one for what norm2's statistics add.
// bias2 is the same for every offset, so softmax does not see it; it is part of the log-sum-exp alone.

#include "aggregate.h"
#include "comparison.h"
#include "exponential.h"
#include "given.h"
#include "tiles.h"

namespace san {
namespace {

constexpr Real VOID = Real(-1e30);  // as a, it makes u 0 whatever b is
constexpr int64_t MOMENT_TILES = 25;

struct Sizes {
    int64_t planes, weights, values;  // R, G, M
    int64_t channels() const { return planes + 2; }
};

template <class Stored> struct Inputs {
    ChannelsLast<const Stored> query, key, value;
    const Real* place;
};

// The two 1x1 convolutions, with norm2 folded into the first, as tile_product takes them.
struct Mapping {
    Sizes sizes;
    Real *weight1, *bias1, *weight2;  // [D, R], [R], [R, G]
    Real* weight1_back;               // [R, D]

    static Mapping take(Scratch& scratch, Sizes sizes) {
        int64_t size = sizes.planes * sizes.channels();
        Real *weight1 = scratch.take<Real>(size), *bias1 = scratch.take<Real>(sizes.planes);
        return {sizes, weight1, bias1, scratch.take<Real>(sizes.planes * sizes.weights), scratch.take<Real>(size)};
    }
    void fold(const Parameters& given, const Affine& norm2) const {
        norm2.fold(given.norm2, sizes.planes);
        for (int64_t r = 0; r < sizes.planes; r++) {
            bias1[r] = norm2.shift[r];
            for (int64_t d = 0; d < sizes.channels(); d++) {
                int64_t at = r * sizes.channels() + d;
                weight1_back[at] = weight1[d * sizes.planes + r] = norm2.scale[r] * given.weight1[at];
            }
            for (int64_t g = 0; g < sizes.weights; g++)
                weight2[r * sizes.weights + g] = given.weight2[g * sizes.planes + r];
        }
    }
};

// Both layers of a tile at one offset. Functions of their own, so that each product is compiled once.
inline void map_hidden(const Mapping& mapping, const Real* u, Real* hidden) {
    int64_t R = mapping.sizes.planes;
    tile_product(R, mapping.sizes.channels(), mapping.weight1, u, mapping.bias1, [&](int64_t r, Vec x0, Vec x1) {
        store(hidden + r * TILE, relu(x0)), store(hidden + r * TILE + LANES, relu(x1));
    });
}

inline void map_logits(const Mapping& mapping, const Real* hidden, Real* logits) {
    Sizes sizes = mapping.sizes;
    tile_product(sizes.weights, sizes.planes, mapping.weight2, hidden, nullptr, [&](int64_t g, Vec x0, Vec x1) {
        store(logits + g * TILE, x0), store(logits + g * TILE + LANES, x1);
    });
}

// softmax's weights, whose log-sum-exp is known.
inline void map_weights(const Mapping& mapping, const Real* hidden, const Real* logsumexp, Real* weight) {
    Sizes sizes = mapping.sizes;
    tile_product(sizes.weights, sizes.planes, mapping.weight2, hidden, nullptr, [&](int64_t g, Vec x0, Vec x1) {
        const Real* log = logsumexp + g * TILE;
        store(weight + g * TILE, exponential(x0 - load(log)));
        store(weight + g * TILE + LANES, exponential(x1 - load(log + LANES)));
    });
}

// The gradient of the hidden layer before its ReLU, in place of hidden; weight2 [G, R].
inline void map_hidden_backward(Sizes sizes, const Real* weight2, const Real* grad_logits, Real* hidden) {
    tile_product(sizes.planes, sizes.weights, weight2, grad_logits, nullptr, [&](int64_t r, Vec x0, Vec x1) {
        Real* at = hidden + r * TILE;
        store(at, load(at) <= Vec{} ? Vec{} : x0);
        store(at + LANES, load(at + LANES) <= Vec{} ? Vec{} : x1);
    });
}

// a of a tile, normalised.
inline void read_a(const Comparison& of, const Affine& norm1, const Footprints& footprints, Real* tile) {
    for (int64_t c = 0; c < of.channels; c++) {
        const Real* from = of.a_of(footprints.group, c) + footprints.begin;
        Vec scale = broadcast(norm1.scale[c]), shift = broadcast(norm1.shift[c]), nothing = broadcast(VOID);
        for (int v = 0; v < 2; v++) {
            Vec x = v * LANES < footprints.size ? scale * load(from + v * LANES) + shift : nothing;
            store(tile + c * TILE + v * LANES, footprints.exist(v) ? x : nothing);
        }
    }
}

// u at one offset; `b` is the group's padded maps moved by the offset, normalised.
template <bool WHOLE>
inline void relate(const Comparison& of, const Footprints& footprints, const Real* a, const Real* b, Real* u) {
    int64_t apart = of.maps.padded();
    for (int64_t c = 0; c < of.channels; c++, a += TILE, b += apart, u += TILE) {
        store(u, relu(load(a) + footprints.load<WHOLE>(b, 0)));
        store(u + LANES, relu(load(a + LANES) + footprints.load<WHOLE>(b, 1)));
    }
}

// Sums of u [D] and of its products [D, D], of which only those with n >= m count.
struct RelationMoments {
    double *first, *second;

    static int64_t size(Sizes sizes) { return sizes.channels() * (sizes.channels() + 1); }
    static RelationMoments at(double* data, Sizes sizes) { return {data, data + sizes.channels()}; }
    void add(int64_t channels, int64_t count, Tiles u) const {
        tile_sums(channels, count, u, first);
        tile_dots(channels, channels, count, u, u, second, channels, true);
    }
    void complete(int64_t channels) const {
        for (int64_t m = 0; m < channels; m++)
            for (int64_t n = 0; n < m; n++) second[m * channels + n] = second[n * channels + m];
    }
};

// The sum of all shares' `size` numbers, into those of the first one.
inline void add_shares(double* partial, int64_t shares, int64_t size, int64_t threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < size; i++)
        for (int64_t share = 1; share < shares; share++) partial[i] += partial[share * size + i];
}

// weight1 [R, D] times the symmetric sums of products [D, D].
inline void weigh_products(Sizes sizes, const Real* weight1, const double* second, double* result, int64_t threads) {
    int64_t D = sizes.channels();
#pragma omp parallel for num_threads(threads)
    for (int64_t r = 0; r < sizes.planes; r++) {
        double* row = result + r * D;
        for (int64_t e = 0; e < D; e++) row[e] = 0;
        for (int64_t d = 0; d < D; d++) {
            double weight = weight1[r * D + d];
            for (int64_t e = 0; e < D; e++) row[e] += weight * second[d * D + e];
        }
    }
}

// Mean and variance of weight1 u from the moments of u; `room` [R, D].
inline void hidden_statistics(Sizes sizes, RelationMoments sums, double count, const Real* weight1, Norm norm,
                              double* room, int64_t threads) {
    int64_t D = sizes.channels();
    for (int64_t d = 0; d < D; d++) sums.first[d] /= count;
    for (int64_t m = 0; m < D; m++)
        for (int64_t n = 0; n < D; n++)
            sums.second[m * D + n] = sums.second[m * D + n] / count - sums.first[m] * sums.first[n];
    weigh_products(sizes, weight1, sums.second, room, threads);
    for (int64_t r = 0; r < sizes.planes; r++) {
        double mean = 0, var = 0;
        for (int64_t d = 0; d < D; d++) {
            mean += sums.first[d] * weight1[r * D + d];
            var += room[r * D + d] * weight1[r * D + d];
        }
        norm.mean[r] = Real(mean);
        norm.var[r] = var < 0 ? Real(0) : Real(var);
    }
}

// Calls work(first, count) for the offsets in runs of at most MOMENT_TILES.
template <class Work> inline void offset_runs(const Maps& maps, Work work) {
    for (int64_t first = 0; first < maps.offsets(); first += MOMENT_TILES)
        work(first, smaller(MOMENT_TILES, maps.offsets() - first));
}

inline void relation_moments(const Comparison& of, const Affine& norm1, const Footprints& footprints, Real* room,
                             RelationMoments sums) {
    Real *a = room, *u = a + of.channels * TILE;
    int64_t apart = of.channels * TILE;
    read_a(of, norm1, footprints, a);
    offset_runs(of.maps, [&](int64_t first, int64_t count) {
        for (int64_t i = 0; i < count; i++)
            footprints.ways([&](auto whole) {
                const Real* b = of.b_of(footprints.group, 0) + of.maps.step(first + i);
                relate<decltype(whole)::value>(of, footprints, a, b, u + i * apart);
            });
        sums.add(of.channels, count, {u, apart});
    });
}

// Softmax over the offsets, in place, but for its division: `weight` of channel g, `total` what to divide by, and the
// log-sum-exp.
inline void softmax(const Maps& maps, int64_t weights, Real* weight, Vec* total, Real* logsumexp) {
    int64_t apart = weights * TILE;
    for (int v = 0; v < 2; v++) {
        Real* at = weight + v * LANES;
        Vec largest = load(at), sum = {};
        for (int64_t o = 1; o < maps.offsets(); o++) {
            Vec x = load(at + o * apart);
            largest = x > largest ? x : largest;
        }
        for (int64_t o = 0; o < maps.offsets(); o++) {
            Vec x = exponential(load(at + o * apart) - largest);
            sum += x;
            store(at + o * apart, x);
        }
        total[v] = sum;
        store(logsumexp + v * LANES, logarithm(sum) + largest);
    }
}

inline void attend(const Aggregation& of, const Footprints& footprints, Real* weight, const Real* value,
                   const Real* bias2, Real* out, Real* logsumexp) {
    for (int64_t g = 0; g < of.weights; g++) {
        Vec total[2];
        Real* row = logsumexp + g * TILE;
        softmax(of.maps, of.weights, weight + g * TILE, total, row);
        footprints.ways([&](auto whole) {
            aggregate<decltype(whole)::value>(of, footprints, g, weight, value, out);
        });
        for (int v = 0; v < 2; v++) {
            Vec each = 1 / total[v];
            for (int64_t s = 0; s < of.shares(); s++) {
                Real* to = out + (s * of.weights + g) * TILE + v * LANES;
                store(to, load(to) * each);
            }
            store(row + v * LANES, load(row + v * LANES) + bias2[g]);
        }
    }
}

template <class Stored>
int64_t forward(Scratch scratch, int64_t threads, const Maps& maps, Sizes sizes, int64_t sign,
                Inputs<Stored> inputs, Parameters given, ChannelsLast<Stored> out, Real* logsumexp) {
    int64_t D = sizes.channels(), R = sizes.planes, G = sizes.weights, M = sizes.values;
    Shares shares(maps);
    Comparison compared = Comparison::take(scratch, maps, R, sign);
    Affine norm1 = Affine::take(scratch, D), norm2 = Affine::take(scratch, R);
    Mapping mapping = Mapping::take(scratch, sizes);
    Real* value = scratch.take<Real>(maps.groups * M * maps.padded());
    Real* boxes = scratch.take<Real>(threads * 3 * box_room(maps));
    int64_t moments_size = given.norm2.batch ? RelationMoments::size(sizes) : 0;
    double *moments = scratch.take<double>(shares.count * moments_size), *weighed = scratch.take<double>(R * D);
    Rooms rooms(scratch, larger(D + D * MOMENT_TILES, 2 * D + R + maps.offsets() * G + M + G), threads);
    if (scratch.counting()) return scratch.used();

    write_operands(compared, inputs.query, inputs.key, inputs.place, threads);
    normalise_comparison(compared, given.norm1, norm1, boxes, threads);
    if (given.norm2.batch) {
        shares.each(threads, [&](int64_t share) {
            double* mine = moments + share * moments_size;
            std::memset(mine, 0, moments_size * sizeof(double));
            shares.each_tile(share, [&](const Footprints& footprints) {
                relation_moments(compared, norm1, footprints, rooms.mine(), RelationMoments::at(mine, sizes));
            });
        });
        add_shares(moments, shares.count, moments_size, threads);
        RelationMoments sums = RelationMoments::at(moments, sizes);
        sums.complete(D);
        hidden_statistics(sizes, sums, compared.count(), given.weight1, given.norm2, weighed, threads);
    }
    mapping.fold(given, norm2);
    pad_footprints(maps, M, inputs.value, value, threads);
    Aggregation aggregation{maps, G, M};
    shares.each(threads, [&](int64_t share) {
        shares.each_tile(share, [&](const Footprints& footprints) {
            Real *a = rooms.mine(), *u = a + D * TILE, *hidden = u + D * TILE, *weight = hidden + R * TILE;
            Real *result = weight + maps.offsets() * G * TILE, *log = result + M * TILE;
            read_a(compared, norm1, footprints, a);
            for (int64_t o = 0; o < maps.offsets(); o++) {
                footprints.ways([&](auto whole) {
                    const Real* b = compared.b_of(footprints.group, 0) + maps.step(o);
                    relate<decltype(whole)::value>(compared, footprints, a, b, u);
                });
                map_hidden(mapping, u, hidden);
                map_logits(mapping, hidden, weight + o * G * TILE);
            }
            const Real* values = value + footprints.group * M * maps.padded();
            attend(aggregation, footprints, weight, values, given.bias2, result, log);
            footprints.write(M, result, out);
            footprints.write(G, log, ChannelsLast<Real>{logsumexp, G});
        });
    });
    return 0;
}

struct Gradients {
    Real *place, *gamma1, *beta1, *weight1, *gamma2, *beta2, *weight2;
};

// Sums of a share, in double precision.
struct WeightSums {
    double *products, *weight2, *beta2;  // of grad hidden x u [R, D], of grad logits x hidden [G, R], of grad hidden [R]

    static int64_t size(Sizes sizes) { return sizes.planes * (sizes.channels() + sizes.weights + 1); }
    static WeightSums at(double* data, Sizes sizes) {
        double* weight2 = data + sizes.planes * sizes.channels();
        return {data, weight2, weight2 + sizes.weights * sizes.planes};
    }
};

// Where the gradients of a tile's u go: to a of the same tile, and into padded rows of b.
struct Spread {
    const Footprints& footprints;
    Real *grad_a, *strip;
    int64_t apart, shift;

    // Through the ReLU of u at the offset that `step` leads to: its gradient is bias + the product of `a` [steps, D]
    // and the tile b.
    template <bool WHOLE>
    void add(int64_t channels, int64_t steps, const Real* a, const Real* b, const Real* bias, const Real* u,
             int64_t step) const {
        tile_product(channels, steps, a, b, bias, [&](int64_t d, Vec x0, Vec x1) {
            Real* to = grad_a + d * TILE;
            x0 = load(u + d * TILE) <= Vec{} ? Vec{} : x0;
            x1 = load(u + d * TILE + LANES) <= Vec{} ? Vec{} : x1;
            store(to, load(to) + x0), store(to + LANES, load(to + LANES) + x1);
            footprints.add<WHOLE>(strip + d * apart, step + shift, 0, x0);
            footprints.add<WHOLE>(strip + d * apart, step + shift, 1, x1);
        });
    }
};

// What the passes of backward over the tiles work with.
struct Backward {
    const Maps& maps;
    Sizes sizes;
    const Comparison& compared;  // normalised
    const Affine& norm1;
    const Mapping& mapping;
    const Real *weight2, *value;  // [G, R] as given; padded
    Aggregation aggregation;
    Strips grad_b, grad_value;
    Real* grad_a;  // compact

    int64_t attend_rows() const {
        int64_t wide = sizes.channels() + sizes.planes + 2 * sizes.weights;
        return 2 * sizes.channels() + sizes.values + sizes.weights + maps.offsets() * wide;
    }
    int64_t moment_rows() const { return (2 + MOMENT_TILES) * sizes.channels(); }
    const Real* b(const Footprints& footprints, int64_t o) const {
        return compared.b_of(footprints.group, 0) + maps.step(o);
    }
    Spread spread(const Footprints& footprints, int64_t share, Real* tile) const {
        return {footprints, tile, grad_b.channel(share, 0), grad_b.apart, grad_b.shift(share)};
    }
    template <bool WHOLE> void attend_tile(const Footprints&, int64_t share, Real* room, WeightSums sums) const;
    template <bool WHOLE>
    void moment_tile(const Footprints&, int64_t share, Real* room, const Real* matrix, const Real* vector,
                     RelationMoments sums) const;
    void add_to_a(const Footprints& footprints, const Real* tile, bool first) const {
        for (int64_t c = 0; c < sizes.channels(); c++) {
            Real* to = grad_a + (footprints.group * sizes.channels() + c) * maps.compact() + footprints.begin;
            for (int64_t i = 0; i < footprints.size; i++)
                to[i] = first ? tile[c * TILE + i] : to[i] + tile[c * TILE + i];
        }
    }
};

// Through softmax: weight * (grad - sum over o of weight * grad), in place of grad.
inline void softmax_backward(const Maps& maps, int64_t weights, int64_t g, const Real* weight, Real* grad) {
    for (int v = 0; v < 2; v++) {
        Vec total = {};
        int64_t at = g * TILE + v * LANES, apart = weights * TILE;
        for (int64_t o = 0; o < maps.offsets(); o++) total += load(weight + at + o * apart) * load(grad + at + o * apart);
        for (int64_t o = 0; o < maps.offsets(); o++) {
            int64_t here = at + o * apart;
            store(grad + here, load(weight + here) * (load(grad + here) - total));
        }
    }
}

// All gradients of a tile but what comes through the statistics of norm2. The room begins with the gradient of out
// and the log-sum-exp less bias2.
template <bool WHOLE>
void Backward::attend_tile(const Footprints& footprints, int64_t share, Real* room, WeightSums sums) const {
    int64_t D = sizes.channels(), R = sizes.planes, G = sizes.weights, offsets = maps.offsets();
    Real *grad = room, *log = grad + sizes.values * TILE, *a = log + G * TILE, *grad_tile = a + D * TILE;
    Real *u = grad_tile + D * TILE, *hidden = u + offsets * D * TILE, *weight = hidden + offsets * R * TILE;
    Real* logits = weight + offsets * G * TILE;  // their gradients
    read_a(compared, norm1, footprints, a);
    for (int64_t o = 0; o < offsets; o++) {
        Real *u_o = u + o * D * TILE, *hidden_o = hidden + o * R * TILE, *weight_o = weight + o * G * TILE;
        relate<WHOLE>(compared, footprints, a, b(footprints, o), u_o);
        map_hidden(mapping, u_o, hidden_o);
        map_weights(mapping, hidden_o, log, weight_o);
    }
    const Real* values = value + footprints.group * sizes.values * maps.padded();
    for (int64_t g = 0; g < G; g++) {
        aggregate_backward<WHOLE>(aggregation, footprints, g, grad, weight, values, logits,
                                  grad_value.channel(share, 0), grad_value.apart, grad_value.shift(share));
        softmax_backward(maps, G, g, weight, logits);
    }
    tile_dots(G, R, offsets, {logits, G * TILE}, {hidden, R * TILE}, sums.weight2, R);
    for (int64_t o = 0; o < offsets; o++)
        map_hidden_backward(sizes, weight2, logits + o * G * TILE, hidden + o * R * TILE);
    tile_sums(R, offsets, {hidden, R * TILE}, sums.beta2);
    tile_dots(R, D, offsets, {hidden, R * TILE}, {u, D * TILE}, sums.products, D);
    std::memset(grad_tile, 0, D * TILE * sizeof(Real));
    Spread to = spread(footprints, share, grad_tile);
    for (int64_t o = 0; o < offsets; o++)
        to.add<WHOLE>(D, R, mapping.weight1_back, hidden + o * R * TILE, nullptr, u + o * D * TILE, maps.step(o));
    add_to_a(footprints, grad_tile, true);
}

// What comes through the statistics of norm2: u gets matrix u + vector at each offset.
template <bool WHOLE>
void Backward::moment_tile(const Footprints& footprints, int64_t share, Real* room, const Real* matrix,
                           const Real* vector, RelationMoments sums) const {
    int64_t D = sizes.channels();
    Real *a = room, *grad_tile = a + D * TILE, *u = grad_tile + D * TILE;
    read_a(compared, norm1, footprints, a);
    std::memset(grad_tile, 0, D * TILE * sizeof(Real));
    Spread to = spread(footprints, share, grad_tile);
    offset_runs(maps, [&](int64_t first, int64_t count) {
        for (int64_t i = 0; i < count; i++)
            relate<WHOLE>(compared, footprints, a, b(footprints, first + i), u + i * D * TILE);
        sums.add(D, count, {u, D * TILE});
        for (int64_t i = 0; i < count; i++) {
            const Real* u_o = u + i * D * TILE;
            to.add<WHOLE>(D, D, matrix, u_o, vector, u_o, maps.step(first + i));
        }
    });
    add_to_a(footprints, grad_tile, false);
}

// The gradients that norm2 and the weights around it get, and what norm2's statistics add to that of u.
struct Correction {
    Sizes sizes;
    double *slope, *constant;  // [R]: the gradient of z = weight1 u gets slope * z + constant
    Real *matrix, *vector;     // [D, D], [D]: that of u gets matrix u + vector

    static Correction take(Scratch& scratch, Sizes sizes) {
        int64_t R = sizes.planes, D = sizes.channels();
        double *slope = scratch.take<double>(R), *constant = scratch.take<double>(R);
        return {sizes, slope, constant, scratch.take<Real>(D * D), scratch.take<Real>(D)};
    }
    void find(const Parameters& given, WeightSums sums, double count, Gradients grads, int64_t threads) const {
        int64_t R = sizes.planes, D = sizes.channels();
        for (int64_t r = 0; r < R; r++) {
            double invstd = 1 / std::sqrt(double(given.norm2.var[r]) + given.norm2.eps);
            double scale = given.norm2.gamma[r] * invstd, product = 0;
            for (int64_t d = 0; d < D; d++) product += sums.products[r * D + d] * given.weight1[r * D + d];
            double gamma = (product - given.norm2.mean[r] * sums.beta2[r]) * invstd;
            grads.gamma2[r] = Real(gamma), grads.beta2[r] = Real(sums.beta2[r]);
            slope[r] = -scale * gamma / count * invstd;
            constant[r] = -scale * sums.beta2[r] / count - slope[r] * given.norm2.mean[r];
            for (int64_t d = 0; d < D; d++)
                grads.weight1[r * D + d] = Real(scale * sums.products[r * D + d]);
        }
        for (int64_t i = 0; i < sizes.weights * R; i++) grads.weight2[i] = Real(sums.weight2[i]);
#pragma omp parallel for num_threads(threads)
        for (int64_t d = 0; d < D; d++) {
            double first = 0;
            for (int64_t e = 0; e < D; e++) matrix[d * D + e] = 0;
            for (int64_t r = 0; r < R; r++) {
                Real factor = Real(slope[r] * given.weight1[r * D + d]);
                first += constant[r] * given.weight1[r * D + d];
                for (int64_t e = 0; e < D; e++) matrix[d * D + e] += factor * given.weight1[r * D + e];
            }
            vector[d] = Real(first);
        }
    }
    // grad_weight1 gets constant x sum of u + slope x (weight1 times the sum of products); `room` [R, D].
    void add_to_weight1(const Real* weight1, RelationMoments sums, Real* grad_weight1, double* room,
                        int64_t threads) const {
        int64_t D = sizes.channels();
        weigh_products(sizes, weight1, sums.second, room, threads);
        for (int64_t r = 0; r < sizes.planes; r++)
            for (int64_t d = 0; d < D; d++)
                grad_weight1[r * D + d] += Real(constant[r] * sums.first[d] + slope[r] * room[r * D + d]);
    }
};

// The gradient of place: the sum over the images, of a less that of b, which `folded` [N, H, W, 2] has.
inline void place_gradient(const Comparison& grad, const Real* folded, Real* to, int64_t threads) {
    const Maps& maps = grad.maps;
    int64_t pixels = maps.height * maps.width;
#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < pixels; i++)
        for (int64_t axis = 0; axis < 2; axis++) {
            double total = 0;
            for (int64_t image = 0; image < maps.images; image++) {
                int64_t group = image / maps.lanes, lane = image % maps.lanes;
                total += grad.a_of(group, grad.planes + axis)[i * maps.lanes + lane];
                total -= folded[(image * pixels + i) * 2 + axis];
            }
            to[axis * pixels + i] = Real(total);
        }
}

template <class Stored> struct InputGradients {
    ChannelsLast<Stored> query, key, value;
};

// From the gradients of the normalised operands to those of query, key, place, and norm1.
template <class Stored>
void operands_backward(const Comparison& original, const Comparison& grad, const Strips& strips, Norm norm1,
                       Real* boxes, Real* folded, InputGradients<Stored> to, Gradients grads, int64_t threads) {
    const Maps& maps = original.maps;
    NormGradient through{original, grad, norm1};
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t c = 0; c < original.channels; c++) {
        for (int64_t group = 0; group < maps.groups; group++) strips.collect(group, c, grad.b_of(group, c));
        through.run(c, grads.gamma1, grads.beta1, boxes + thread() * 3 * box_room(maps));
        if (c < original.planes && original.sign < 0)
            for (int64_t group = 0; group < maps.groups; group++) rescale(grad.b_of(group, c), maps.padded(), -1);
    }
#pragma omp parallel for num_threads(threads)
    for (int64_t row = 0; row < maps.groups * maps.height; row++) {
        int64_t group = row / maps.height, y = row % maps.height;
        Rows from{grad.a_of(group, 0) + y * maps.width * maps.lanes, maps.compact()};
        scatter(maps, {group, y, 0, maps.width}, original.planes, from, to.query);
    }
    fold(maps, original.planes, original.channels, grad.b, to.key, threads);
    fold(maps, 2, original.channels, grad.b_of(0, original.planes), ChannelsLast<Real>{folded, 2}, threads);
    place_gradient(grad, folded, grads.place, threads);
}

template <class Stored>
int64_t backward(Scratch scratch, int64_t threads, const Maps& maps, Sizes sizes, int64_t sign,
                 ChannelsLast<const Stored> grad_out, Inputs<Stored> inputs, Parameters given, const Real* logsumexp,
                 InputGradients<Stored> to, Gradients grads) {
    int64_t D = sizes.channels(), R = sizes.planes, G = sizes.weights, M = sizes.values;
    Shares shares(maps);
    Comparison original = Comparison::take(scratch, maps, R, sign);
    Comparison compared{maps, R, D, sign, original.a, scratch.take<Real>(maps.groups * D * maps.padded())};
    Comparison grad = Comparison::take(scratch, maps, R, sign);
    Affine norm1 = Affine::take(scratch, D), norm2 = Affine::take(scratch, R);
    Mapping mapping = Mapping::take(scratch, sizes);
    Correction correction = Correction::take(scratch, sizes);
    Real* value = scratch.take<Real>(maps.groups * M * maps.padded());
    Real* boxes = scratch.take<Real>(threads * 3 * box_room(maps));
    Real* folded = scratch.take<Real>(2 * maps.images * maps.height * maps.width);
    Backward work{maps,    sizes, compared,         norm1, mapping, given.weight2, value, {maps, G, M},
                  Strips::take(scratch, shares, D), Strips::take(scratch, shares, M), grad.a};
    int64_t sums_size = WeightSums::size(sizes), moments_size = RelationMoments::size(sizes);
    double* sums = scratch.take<double>(shares.count * sums_size);
    double* moments = scratch.take<double>(given.norm2.batch ? shares.count * moments_size : 0);
    Rooms rooms(scratch, larger(work.attend_rows(), work.moment_rows()), threads);
    if (scratch.counting()) return scratch.used();

    write_operands(original, inputs.query, inputs.key, inputs.place, threads);
    normalise_again(original, given.norm1, norm1, compared.b, threads);
    mapping.fold(given, norm2);
    pad_footprints(maps, M, inputs.value, value, threads);
    shares.each(threads, [&](int64_t share) {
        double* mine = sums + share * sums_size;
        std::memset(mine, 0, sums_size * sizeof(double));
        work.grad_b.clear(share), work.grad_value.clear(share);
        shares.each_tile(share, [&](const Footprints& footprints) {
            Real *room = rooms.mine(), *log = room + M * TILE;
            footprints.read(M, grad_out, room);
            footprints.read(G, ChannelsLast<const Real>{logsumexp, G}, log);
            for (int64_t g = 0; g < G; g++)
                for (int v = 0; v < 2; v++) {
                    Real* at = log + g * TILE + v * LANES;
                    store(at, footprints.exist(v) ? load(at) - given.bias2[g] : broadcast(-VOID));
                }
            footprints.ways([&](auto whole) {
                work.attend_tile<decltype(whole)::value>(footprints, share, room, WeightSums::at(mine, sizes));
            });
        });
    });
    add_shares(sums, shares.count, sums_size, threads);
    correction.find(given, WeightSums::at(sums, sizes), original.count(), grads, threads);
    if (given.norm2.batch) {
        shares.each(threads, [&](int64_t share) {
            double* mine = moments + share * moments_size;
            std::memset(mine, 0, moments_size * sizeof(double));
            shares.each_tile(share, [&](const Footprints& footprints) {
                footprints.ways([&](auto whole) {
                    work.moment_tile<decltype(whole)::value>(footprints, share, rooms.mine(), correction.matrix,
                                                             correction.vector, RelationMoments::at(mine, sizes));
                });
            });
        });
        add_shares(moments, shares.count, moments_size, threads);
        RelationMoments all = RelationMoments::at(moments, sizes);
        all.complete(D);
        correction.add_to_weight1(given.weight1, all, grads.weight1, sums, threads);  // sums have served
    }
    operands_backward(original, grad, work.grad_b, given.norm1, boxes, folded, to, grads, threads);
    work.grad_value.collect_all(value, threads);
    fold(maps, M, M, value, to.value, threads);
    return 0;
}

}  // namespace
}  // namespace san

using namespace san;

// Shapes and layouts: sancli/ops/pairwise.py. `*_stride`: numbers from pixel to pixel.
// Parameters, place and logsumexp are Real.
extern "C" int64_t san_pairwise_attention(char* scratch, int64_t threads, int64_t storage, int64_t images,
                                          int64_t height, int64_t width, int64_t kernel, int64_t planes,
                                          int64_t weights, int64_t values, const void* query, int64_t query_stride,
                                          const void* key, int64_t key_stride, const void* value,
                                          int64_t value_stride, const Real* place, int64_t sign,
                                          SAN_PARAMETERS, void* out, Real* logsumexp) {
    Maps maps(images, height, width, kernel);
    auto run = [&](auto stored) {
        using Stored = decltype(stored);
        Inputs<Stored> inputs{read_maps<Stored>(query, query_stride), read_maps<Stored>(key, key_stride),
                              read_maps<Stored>(value, value_stride), place};
        return forward<Stored>(Scratch(scratch), threads, maps, {planes, weights, values}, sign, inputs,
                               SAN_GIVEN, write_maps<Stored>(out, values), logsumexp);
    };
    return storage == BFLOAT16 ? run(BFloat16{}) : run(Real{});
}

extern "C" int64_t san_pairwise_attention_backward(
    char* scratch, int64_t threads, int64_t storage, int64_t images, int64_t height, int64_t width, int64_t kernel,
    int64_t planes, int64_t weights, int64_t values, const void* grad, int64_t grad_stride, const void* query,
    int64_t query_stride, const void* key, int64_t key_stride, const void* value, int64_t value_stride,
    const Real* place, int64_t sign, SAN_PARAMETERS, const Real* logsumexp, void* grad_query, void* grad_key,
    void* grad_value, Real* grad_place, Real* grad_gamma1, Real* grad_beta1, Real* grad_weight1, Real* grad_gamma2,
    Real* grad_beta2, Real* grad_weight2) {
    Maps maps(images, height, width, kernel);
    auto run = [&](auto stored) {
        using Stored = decltype(stored);
        Inputs<Stored> inputs{read_maps<Stored>(query, query_stride), read_maps<Stored>(key, key_stride),
                              read_maps<Stored>(value, value_stride), place};
        InputGradients<Stored> to{write_maps<Stored>(grad_query, planes), write_maps<Stored>(grad_key, planes),
                                  write_maps<Stored>(grad_value, values)};
        Gradients grads{grad_place,   grad_gamma1, grad_beta1,  grad_weight1,
                        grad_gamma2, grad_beta2,  grad_weight2};
        return backward<Stored>(Scratch(scratch), threads, maps, {planes, weights, values}, sign,
                                read_maps<Stored>(grad, grad_stride), inputs, SAN_GIVEN, logsumexp, to, grads);
    };
    return storage == BFLOAT16 ? run(BFloat16{}) : run(Real{});
}
