// The second half of patchwise attention: the weights w = weight2 hidden + bias2, and what they weigh,
//
//     out[s * G + g, i] = sum over o of w[g, o, i] * value[s * G + g, i + o]
//
// One weight channel g at a time: its K * K rows of weights are made for a tile, and used while they lie in the
// cache by all channels that share them.
#pragma once

#include "gemm.h"
#include "parts.h"

namespace san {

struct Attention {
    const Maps& maps;
    int64_t weights, shares;  // G, and the value channels that share one
    const Real *weight, *bias;  // [G * K * K, G], [G * K * K]

    int64_t values() const { return weights * shares; }
    // K * K rows of weights of channel g for a tile.
    void make(int64_t g, int64_t size, Rows hidden, Rows made) const {
        int64_t first = g * maps.offsets();
        product(maps.offsets(), weights, size, {weight + first * weights, 1, weights}, hidden, made, false,
                bias + first);
    }
};

constexpr int MOST_SHARES = MANY_REGISTERS ? 8 : 4;

// Calls work.run<SHARES>(first share) for blocks of shares whose number the compiler knows.
template <class Work> void each_share_block(int64_t shares, Work work) {
    int64_t s = 0;
    for (; s + MOST_SHARES <= shares; s += MOST_SHARES) work.template run<MOST_SHARES>(s);
    for (; s < shares; s++) work.template run<1>(s);
}

// A run of positions of one tile row: where it stands in padded channels and in the rows of the tile.
struct Span {
    int64_t corner, at, count;
};

// out[s] = sum over offsets of made[o] * value[s], along one span.
struct Aggregate {
    const Maps& maps;
    Span span;
    Rows made;
    const Real* value;  // the first of the channels that share, in padded rows
    int64_t value_apart;
    Real* out;
    int64_t out_apart;

    template <int SHARES> void run(int64_t first) const {
        Real* to = out + first * out_apart + span.at;
        for (int64_t i = 0; i < maps.kernel; i++) {  // row by row of the footprint: 7 rows would fill the cache
            const Real* x = value + first * value_apart + span.corner + i * maps.padded_row();
            for (int64_t p = 0; p < span.count; p += LANES) {
                Vec total[SHARES];
                for (int s = 0; s < SHARES; s++) total[s] = i ? load(to + s * out_apart + p) : Vec{};
                for (int64_t j = 0; j < maps.kernel; j++) {
                    Vec w = load(made[i * maps.kernel + j] + span.at + p);
                    for (int s = 0; s < SHARES; s++) total[s] += w * load(x + s * value_apart + j * maps.lanes + p);
                }
                for (int s = 0; s < SHARES; s++) store(to + s * out_apart + p, total[s]);
            }
        }
    }
};

// All channels of a tile: `hidden` G rows in, `out` M rows.
inline void attend_tile(const Attention& attention, const Tile& tile, Rows hidden, const Real* padded_value,
                        Rows made, Rows out) {
    const Maps& maps = attention.maps;
    const Real* group = padded_value + tile.group * attention.values() * maps.padded();
    for (int64_t g = 0; g < attention.weights; g++) {
        attention.make(g, tile.size, hidden, made);
        maps.each_row(tile, [&](int64_t corner, int64_t at, int64_t count) {
            Aggregate work{maps, {corner, at, count}, made, group + g * maps.padded(),
                           attention.weights * maps.padded(), out[g], attention.weights * out.apart};
            each_share_block(attention.shares, work);
        });
    }
}

// grads[o] (+)= sum over shares of grad[s] * value[s] at offset o, along one span.
struct WeightGradient {
    const Maps& maps;
    Span span;
    Rows grads;
    const Real* value;
    int64_t value_apart;
    const Real* grad;  // of the output, compact, where the tile begins
    int64_t grad_apart;

    template <int SHARES> void run(int64_t first) const {
        for (int64_t i = 0; i < maps.kernel; i++) {
            const Real* x = value + first * value_apart + span.corner + i * maps.padded_row();
            each_vector(span.count, [&](int64_t p, auto left) {
                Vec dy[SHARES];
                for (int s = 0; s < SHARES; s++) dy[s] = load(grad + (first + s) * grad_apart + span.at + p);
                for (int64_t j = 0; j < maps.kernel; j++) {
                    Real* to = grads[i * maps.kernel + j] + span.at + p;
                    Vec total = first ? load(to) : Vec{};
                    for (int s = 0; s < SHARES; s++) total += dy[s] * load(x + s * value_apart + j * maps.lanes + p);
                    store_first(to, total, left);
                }
            });
        }
    }
};

// grad_value[s] at offset o += made[o] * grad[s], along one span, gathered: each number is written once for
// every row of the footprint. `grad` rows stand alone, with (K - 1) pixels of 0 on both sides.
struct ValueGradient {
    const Maps& maps;
    Span span;
    Rows made;
    Rows grad;
    Real* grad_value;
    int64_t value_apart;

    template <int SHARES> void run(int64_t first) const {
        int64_t count = span.count + (maps.kernel - 1) * maps.lanes;
        for (int64_t i = 0; i < maps.kernel; i++) {
            Real* into = grad_value + first * value_apart + span.corner + i * maps.padded_row();
            each_vector(count, [&](int64_t p, auto left) {
                Vec total[SHARES];
                for (int s = 0; s < SHARES; s++) total[s] = load(into + s * value_apart + p);
                for (int64_t j = 0; j < maps.kernel; j++) {
                    int64_t from = p - j * maps.lanes;
                    Vec w = load(made[i * maps.kernel + j] + span.at + from);
                    for (int s = 0; s < SHARES; s++) total[s] += w * load(grad[first + s] + from);
                }
                for (int s = 0; s < SHARES; s++) store_first(into + s * value_apart + p, total[s], left);
            });
        }
    }
};

// Scratch memory of one thread for the backward pass, set to 0 once.
struct AttendBackward {
    Rows made, grads, dy, grad_hidden;

    static int64_t margin(const Maps& maps) { return round_up((maps.kernel - 1) * maps.lanes, LANES); }
    static AttendBackward at(Real* memory, const Attention& attention, int64_t tile) {
        const Maps& maps = attention.maps;
        int64_t wide = Maps::odd_lines(tile + 2 * margin(maps)), narrow = Maps::odd_lines(tile);
        AttendBackward buffers{{memory + margin(maps), wide}, {}, {}, {}};
        memory += wide * maps.offsets();
        buffers.grads = {memory, narrow};
        memory += narrow * maps.offsets();
        buffers.dy = {memory + margin(maps), wide};
        memory += wide * attention.shares;
        buffers.grad_hidden = {memory, narrow};
        return buffers;
    }
    static int64_t size(const Attention& attention, int64_t tile) {
        const Maps& maps = attention.maps;
        int64_t wide = Maps::odd_lines(tile + 2 * margin(maps)), narrow = Maps::odd_lines(tile);
        return wide * (maps.offsets() + attention.shares) + narrow * (maps.offsets() + attention.weights);
    }
};

// Weight channel g of a tile: adds to the gradients of value (padded), weight2, bias2 and of the tile's hidden
// layer (`add`: not the first channel).
inline void attend_backward_tile(const Attention& attention, const Tile& tile, int64_t g, Rows hidden,
                                 const Real* padded_value, Rows grad_out, const AttendBackward& buffers,
                                 bool add, Real* grad_padded, Real* grad_weight, double* grad_bias) {
    const Maps& maps = attention.maps;
    int64_t offsets = maps.offsets(), apart = attention.weights * maps.padded(), first = g * offsets;
    int64_t channel = (tile.group * attention.values() + g) * maps.padded();
    attention.make(g, tile.size, hidden, buffers.made);
    maps.each_row(tile, [&](int64_t corner, int64_t at, int64_t count) {
        Span span{corner, at, count};
        int64_t dy_apart = attention.weights * grad_out.apart;
        each_share_block(attention.shares, WeightGradient{maps, span, buffers.grads, padded_value + channel, apart,
                                                          grad_out[g], dy_apart});
        for (int64_t s = 0; s < attention.shares; s++) {
            std::memcpy(buffers.dy[s], grad_out[g] + s * dy_apart + at, count * sizeof(Real));
            std::memset(buffers.dy[s] + count, 0, AttendBackward::margin(maps) * sizeof(Real));
        }
        each_share_block(attention.shares,
                         ValueGradient{maps, span, buffers.made, buffers.dy, grad_padded + channel, apart});
    });
    for (int64_t o = 0; o < offsets; o++) {
        Real* row = buffers.grads[o];
        store_first(row + tile.size, Vec{}, round_up(tile.size, LANES) - tile.size);
        Vec total = {};
        for (int64_t p = 0; p < tile.size; p += LANES) total += load(row + p);
        grad_bias[first + o] += double(sum(total));
    }
    dots(offsets, attention.weights, tile.size, buffers.grads, hidden, grad_weight + first * attention.weights,
         attention.weights);
    product(attention.weights, offsets, tile.size, {attention.weight + first * attention.weights, attention.weights, 1},
            buffers.grads, buffers.grad_hidden, add);
}

}  // namespace san
