// The weighted sum over a footprint (sancli/ops/aggregation.py):
// out[s * G + g, i] = sum over o of weight[o, g, i] * value[s * G + g, i + o].

#include "aggregate.h"

namespace san {
namespace {

template <class Stored>
int64_t sum_footprints(Scratch scratch, int64_t threads, const Aggregation& of, ChannelsLast<const Stored> value,
                       ChannelsLast<const Stored> weight, ChannelsLast<Stored> out) {
    const Maps& maps = of.maps;
    int64_t weights = maps.offsets() * of.weights;
    Shares shares(maps);
    Real* padded = scratch.take<Real>(maps.groups * of.values * maps.padded());
    Rooms rooms(scratch, weights + of.values, threads);
    if (scratch.counting()) return scratch.used();

    pad_footprints(maps, of.values, value, padded, threads);
    shares.each(threads, [&](int64_t share) {
        shares.each_tile(share, [&](const Footprints& footprints) {
            Real *tile = rooms.mine(), *result = tile + weights * TILE;
            footprints.read(weights, weight, tile);
            const Real* values = padded + footprints.group * of.values * maps.padded();
            footprints.ways([&](auto whole) {
                for (int64_t g = 0; g < of.weights; g++)
                    aggregate<decltype(whole)::value>(of, footprints, g, tile, values, result);
            });
            footprints.write(of.values, result, out);
        });
    });
    return 0;
}

template <class Stored>
int64_t sum_footprints_backward(Scratch scratch, int64_t threads, const Aggregation& of,
                                ChannelsLast<const Stored> grad, ChannelsLast<const Stored> value,
                                ChannelsLast<const Stored> weight, ChannelsLast<Stored> grad_value,
                                ChannelsLast<Stored> grad_weight) {
    const Maps& maps = of.maps;
    int64_t weights = maps.offsets() * of.weights;
    Shares shares(maps);
    Real* padded = scratch.take<Real>(maps.groups * of.values * maps.padded());
    Strips strips = Strips::take(scratch, shares, of.values);
    Rooms rooms(scratch, 2 * weights + of.values, threads);
    if (scratch.counting()) return scratch.used();

    pad_footprints(maps, of.values, value, padded, threads);
    shares.each(threads, [&](int64_t share) {
        strips.clear(share);
        shares.each_tile(share, [&](const Footprints& footprints) {
            Real *given = rooms.mine(), *tile = given + of.values * TILE, *result = tile + weights * TILE;
            footprints.read(of.values, grad, given);
            footprints.read(weights, weight, tile);
            const Real* values = padded + footprints.group * of.values * maps.padded();
            footprints.ways([&](auto whole) {
                for (int64_t g = 0; g < of.weights; g++)
                    aggregate_backward<decltype(whole)::value>(of, footprints, g, given, tile, values, result,
                                                               strips.channel(share, 0), strips.apart,
                                                               strips.shift(share));
            });
            footprints.write(weights, result, grad_weight);
        });
    });
    strips.collect_all(padded, threads);
    fold(maps, of.values, of.values, padded, grad_value, threads);
    return 0;
}

}  // namespace
}  // namespace san

using namespace san;

// Shapes: sancli/ops/aggregation.py. `*_stride`: numbers from pixel to pixel; those of weight [N, K * K * G, H, W].
extern "C" int64_t san_aggregation(char* scratch, int64_t threads, int64_t storage, int64_t images, int64_t height,
                                   int64_t width, int64_t kernel, int64_t weights, int64_t values,
                                   const void* value, int64_t value_stride, const void* weight,
                                   int64_t weight_stride, void* out, int64_t out_stride) {
    Maps maps(images, height, width, kernel);
    auto run = [&](auto stored) {
        using Stored = decltype(stored);
        return sum_footprints<Stored>(Scratch(scratch), threads, {maps, weights, values},
                                      {static_cast<const Stored*>(value), value_stride},
                                      {static_cast<const Stored*>(weight), weight_stride},
                                      {static_cast<Stored*>(out), out_stride});
    };
    return storage == BFLOAT16 ? run(BFloat16{}) : run(Real{});
}

extern "C" int64_t san_aggregation_backward(char* scratch, int64_t threads, int64_t storage, int64_t images,
                                            int64_t height, int64_t width, int64_t kernel, int64_t weights,
                                            int64_t values, const void* grad, int64_t grad_stride, const void* value,
                                            int64_t value_stride, const void* weight, int64_t weight_stride,
                                            void* grad_value, int64_t grad_value_stride, void* grad_weight,
                                            int64_t grad_weight_stride) {
    Maps maps(images, height, width, kernel);
    auto run = [&](auto stored) {
        using Stored = decltype(stored);
        return sum_footprints_backward<Stored>(Scratch(scratch), threads, {maps, weights, values},
                                               {static_cast<const Stored*>(grad), grad_stride},
                                               {static_cast<const Stored*>(value), value_stride},
                                               {static_cast<const Stored*>(weight), weight_stride},
                                               {static_cast<Stored*>(grad_value), grad_value_stride},
                                               {static_cast<Stored*>(grad_weight), grad_weight_stride});
    };
    return storage == BFLOAT16 ? run(BFloat16{}) : run(Real{});
}
