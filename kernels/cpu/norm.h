// One BatchNorm as operators are told of it, and the sums that its statistics are made from.
#pragma once

#include "layout.h"

namespace san {

struct Norm {
    const Real *gamma, *beta;
    Real *mean, *var;  // given, or (batch) to be written
    double eps;
    bool batch;
};

// A BatchNorm with all its statistics: scale * (x - mean) + beta. Never divides by gamma, which may be 0.
struct Affine {
    Real *scale, *shift, *invstd;  // shift: scale * x + shift is the same

    static Affine take(Scratch& scratch, int64_t channels) {
        return {scratch.take<Real>(channels), scratch.take<Real>(channels), scratch.take<Real>(channels)};
    }
    void fold(const Norm& norm, int64_t channels) const {
        for (int64_t c = 0; c < channels; c++) {
            invstd[c] = Real(1 / std::sqrt(double(norm.var[c]) + norm.eps));
            scale[c] = norm.gamma[c] * invstd[c];
            shift[c] = norm.beta[c] - norm.mean[c] * scale[c];
        }
    }
};

// Sums over images of a run of pixels, around `centre`. Lanes without an image do not count.
struct Moments {
    double first = 0, second = 0;
    void add(const Moments& other) { first += other.first, second += other.second; }
};

inline Moments moments(const Maps& maps, int64_t group, const Real* x, int64_t pixels, Real centre) {
    int64_t lanes = maps.lanes, used = maps.used_lanes(group), count = pixels * lanes;
    Moments sums;
    if (used < lanes) {
        for (int64_t i = 0; i < count; i++)
            if (i % lanes < used) {
                double distance = x[i] - centre;
                sums.add({distance, distance * distance});
            }
        return sums;
    }
    Vec first = {}, second = {}, middle = broadcast(centre);
    for (int64_t i = 0; i < count; i += LANES) {
        Vec distance = first_lanes(load(x + i) - middle, count - i);
        first += distance;
        second += distance * distance;
    }
    return {double(sum(first)), double(sum(second))};
}

// Mean and biased variance of each channel of compact maps; `partial` has groups * height * channels.
inline void statistics(const Maps& maps, int64_t channels, const Real* compact, Moments* partial, Real* mean,
                       Real* var, int64_t threads) {
    int64_t rows = maps.groups * maps.height, row_size = maps.width * maps.lanes;
#pragma omp parallel for num_threads(threads)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t c = 0; c < channels; c++) {
            int64_t group = row / maps.height, y = row % maps.height;
            const Real* x = compact + (group * channels + c) * maps.compact() + y * row_size;
            partial[row * channels + c] = moments(maps, group, x, maps.width, compact[c * maps.compact()]);
        }
    double count = double(maps.images) * maps.height * maps.width;
    for (int64_t c = 0; c < channels; c++) {
        Moments all;
        for (int64_t row = 0; row < rows; row++) all.add(partial[row * channels + c]);
        double distance = all.first / count, square = all.second / count - distance * distance;
        mean[c] = Real(compact[c * maps.compact()] + distance);
        var[c] = square < 0 ? Real(0) : Real(square);
    }
}

}  // namespace san
