// Batch statistics of every shifted copy of a map, exact, without making a copy (sancli/ops/statistics.py).
//
// A copy at offset (i, j) is the part of the padded map from row i and column j on: the rows' sums slide along
// the columns, and the copies' sums are sums of rows.
#pragma once

#include "norm.h"

namespace san {

// A channel of a padded layout seen through some of its offsets: [first, first + count) of the footprint.
struct Window {
    int64_t channel, first, count;
};

// Sums of each padded row, from each of the K columns on: `sums` [groups, H + K - 1, K].
inline void row_sums(const Maps& maps, int64_t all, const Real* padded, int64_t channel, Real centre,
                     Moments* sums) {
    int64_t lanes = maps.lanes;
    for (int64_t group = 0; group < maps.groups; group++)
        for (int64_t y = 0; y < maps.padded_height(); y++) {
            const Real* x = padded + (group * all + channel) * maps.padded() + y * maps.padded_row();
            Moments slide = moments(maps, group, x, maps.width, centre);
            for (int64_t j = 0; j < maps.kernel; j++) {
                *sums++ = slide;
                if (j + 1 == maps.kernel) break;
                for (int64_t n = 0; n < maps.used_lanes(group); n++) {
                    double gone = x[j * lanes + n] - centre, come = x[(j + maps.width) * lanes + n] - centre;
                    slide.add({come - gone, come * come - gone * gone});
                }
            }
        }
}

// Mean and biased variance of the copies that `window` names; `sums` as in row_sums.
inline void window_statistics(const Maps& maps, int64_t all, const Real* padded, Window window, Moments* sums,
                              Real* mean, Real* var) {
    const Real* first_row = padded + window.channel * maps.padded() + maps.reach * maps.padded_row();
    double count = double(maps.images) * maps.height * maps.width;
    Moments line = moments(maps, 0, first_row, maps.width, 0);
    Real centre = Real(line.first / double(maps.width * maps.used_lanes(0)));
    row_sums(maps, all, padded, window.channel, centre, sums);
    for (int64_t o = 0; o < window.count; o++) {
        int64_t i = (window.first + o) / maps.kernel, j = (window.first + o) % maps.kernel;
        Moments copy;
        for (int64_t group = 0; group < maps.groups; group++)
            for (int64_t y = i; y < i + maps.height; y++)
                copy.add(sums[(group * maps.padded_height() + y) * maps.kernel + j]);
        double distance = copy.first / count, square = copy.second / count - distance * distance;
        mean[o] = Real(centre + distance);
        var[o] = square < 0 ? Real(0) : Real(square);
    }
}

// Adds to the padded gradient of a channel what reaches it through mean and variance of its copies.
// Pixel q gets, from each copy that shows it, (grad_mean + 2 grad_var (x_q - mean)) / count.
// `slope` and `constant` have K * (W + K - 1) numbers each.
inline void window_statistics_backward(const Maps& maps, int64_t all, const Real* padded, Window window,
                                       const Real* mean, const Real* grad_mean, const Real* grad_var, Real* slope,
                                       Real* constant, Real* grad_padded) {
    int64_t k = maps.kernel, columns = maps.width + k - 1, lanes = maps.lanes;
    double count = double(maps.images) * maps.height * maps.width;
    Real centre = mean[window.count / 2];
    for (int64_t i = 0; i < k; i++)  // of the copies from row i on, what column x gets
        for (int64_t x = 0; x < columns; x++) {
            double along = 0, fixed = 0;
            for (int64_t j = 0; j < k; j++) {
                int64_t o = i * k + j - window.first;
                if (o < 0 || o >= window.count || x < j || x >= j + maps.width) continue;
                along += 2 * grad_var[o];
                fixed += grad_mean[o] - 2 * grad_var[o] * (mean[o] - centre);
            }
            slope[i * columns + x] = Real(along / count);
            constant[i * columns + x] = Real(fixed / count);
        }
    for (int64_t y = 0; y < maps.padded_height(); y++)
        for (int64_t x = 0; x < columns; x++) {
            Real along = 0, fixed = 0;
            for (int64_t i = 0; i < k; i++)
                if (y >= i && y < i + maps.height) {
                    along += slope[i * columns + x];
                    fixed += constant[i * columns + x];
                }
            for (int64_t group = 0; group < maps.groups; group++) {
                int64_t at = (group * all + window.channel) * maps.padded() + (y * columns + x) * lanes;
                for (int64_t n = 0; n < lanes; n++)
                    grad_padded[at + n] += fixed + along * (padded[at + n] - centre);
            }
        }
}

}  // namespace san
