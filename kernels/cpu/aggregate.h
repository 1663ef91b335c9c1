// The weighted sum over the footprints of a tile, and its gradients.
//
// Weights are tiles [K * K, G, TILE]; value channel s * G + g takes weight g.
#pragma once

#include "footprints.h"

namespace san {

constexpr int AGGREGATE_SHARES = MANY_REGISTERS ? 8 : 4;

struct Aggregation {
    const Maps& maps;
    int64_t weights, values;  // G, M

    int64_t shares() const { return values / weights; }
};

// Calls work(first share, std::integral_constant<int, how many>) for blocks of shares.
template <int COUNT = AGGREGATE_SHARES, class Work> inline void each_block(int64_t shares, int64_t first, Work work) {
    if constexpr (COUNT > 0) {
        for (; first + COUNT <= shares; first += COUNT) work(first, std::integral_constant<int, COUNT>{});
        if (first < shares) each_block<COUNT - 1>(shares, first, work);
    }
}

// out[c] = sum over offsets of weight * value for the channels of weight g; `value` is the group's padded maps.
template <bool WHOLE>
inline void aggregate(const Aggregation& of, const Footprints& footprints, int64_t g, const Real* weight,
                      const Real* value, Real* out) {
    int64_t apart = of.weights * of.maps.padded();
    each_block(of.shares(), 0, [&](int64_t first, auto count) {
        constexpr int COUNT = decltype(count)::value;
        Vec total[COUNT][2] = {};
        const Real* channel = value + g * of.maps.padded() + first * apart;
        for (int64_t o = 0; o < of.maps.offsets(); o++) {
            const Real *w = weight + (o * of.weights + g) * TILE, *from = channel + of.maps.step(o);
            Vec w0 = load(w), w1 = load(w + LANES);
            for (int s = 0; s < COUNT; s++) {
                total[s][0] += w0 * footprints.load<WHOLE>(from + s * apart, 0);
                total[s][1] += w1 * footprints.load<WHOLE>(from + s * apart, 1);
            }
        }
        for (int s = 0; s < COUNT; s++) {
            Real* to = out + ((first + s) * of.weights + g) * TILE;
            store(to, total[s][0]), store(to + LANES, total[s][1]);
        }
    });
}

// grad_weight[o] = sum over the channels of weight g of grad * value, and what the offset's values get is added to
// `grad_value`: a share's strips from channel 0 of value on, `strip_apart` from channel to channel.
template <bool WHOLE>
inline void aggregate_backward(const Aggregation& of, const Footprints& footprints, int64_t g, const Real* grad,
                               const Real* weight, const Real* value, Real* grad_weight, Real* grad_value,
                               int64_t strip_apart, int64_t shift) {
    int64_t apart = of.weights * of.maps.padded(), into = of.weights * strip_apart;
    each_block(of.shares(), 0, [&](int64_t first, auto count) {
        constexpr int COUNT = decltype(count)::value;
        Vec given[COUNT][2];
        for (int s = 0; s < COUNT; s++)
            for (int v = 0; v < 2; v++)
                given[s][v] = load(grad + ((first + s) * of.weights + g) * TILE + v * LANES);
        const Real* channel = value + g * of.maps.padded() + first * apart;
        Real* strip = grad_value + g * strip_apart + first * into;
        for (int64_t o = 0; o < of.maps.offsets(); o++) {
            int64_t at = (o * of.weights + g) * TILE, step = of.maps.step(o);
            for (int v = 0; v < 2; v++) {
                Vec w = load(weight + at + v * LANES), total = first ? load(grad_weight + at + v * LANES) : Vec{};
                for (int s = 0; s < COUNT; s++) {
                    total += given[s][v] * footprints.load<WHOLE>(channel + s * apart + step, v);
                    footprints.add<WHOLE>(strip + s * into, step + shift, v, w * given[s][v]);
                }
                store(grad_weight + at + v * LANES, total);
            }
        }
    });
}

}  // namespace san
