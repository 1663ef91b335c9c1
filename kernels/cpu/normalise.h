// BatchNorm with ReLU over pixels: its statistics, how it is applied, and what its backward sums.
//
//     y = relu((x - mean) / sqrt(var + eps) * gamma + beta)        x [pixels, C]
//
// Backward keeps nothing but x. With g the gradient of y where y > 0, d = x - mean and s = 1 / sqrt(var + eps)
//
//     grad_beta = sum g     grad_gamma = s sum g d     grad_x = gamma s (g - mean of g - d s^2 mean of (g d))
//
// with the two means only where the statistics are those of x itself.
#pragma once

#include "norm.h"
#include "pixels.h"

namespace san {

// A BatchNorm ready to be applied, in rows that may be read to the end of their last vector.
struct Normalise {
    Real *mean, *scale, *beta, *invstd;

    Normalise(Scratch& scratch, int64_t channels)
        : mean(scratch.take<Real>(channels)),
          scale(scratch.take<Real>(channels)),
          beta(scratch.take<Real>(channels)),
          invstd(scratch.take<Real>(channels)) {}

    void fold(const Norm& norm, int64_t channels) const {
        for (int64_t c = 0; c < channels; c++) {
            double inverse = 1 / std::sqrt(double(norm.var[c]) + norm.eps);
            mean[c] = norm.mean[c];
            scale[c] = Real(norm.gamma[c] * inverse);
            beta[c] = norm.beta[c];
            invstd[c] = Real(inverse);
        }
    }
};

// Three rows of it at channel c.
struct NormaliseAt {
    Vec mean, scale, beta;
    NormaliseAt(const Normalise& norm, int64_t c)
        : mean(load(norm.mean + c)), scale(load(norm.scale + c)), beta(load(norm.beta + c)) {}
    Vec operator()(Vec distance) const { return distance * scale + beta; }  // of x from the mean
};

// Mean of some numbers, and the sum of their squared distances from it.
struct Spread {
    double *mean, *squares;

    Spread(Scratch& scratch, int64_t count) : mean(scratch.take<double>(count)), squares(scratch.take<double>(count)) {}

    // Joins `more` others to the `count` that are in place i (Chan, Golub and LeVeque 1979).
    void join(int64_t i, double count, double other_mean, double other_squares, double more) const {
        double apart = other_mean - mean[i], share = more / (count + more);
        mean[i] += apart * share;
        squares[i] += other_squares + apart * apart * count * share;
    }
};

constexpr int64_t CHUNK = 64;  // pixels summed in Real before the sums are added up in double

// Adds a chunk of pixels to the `count` that `spread` has at `at`. Distances are taken from the mean so far, that of
// the first chunk itself at first: neither a large mean nor a pixel far outside costs digits.
template <class Stored>
void add_chunk(const Stored* x, int64_t apart, int64_t pixels, int64_t channels, const Spread& spread, int64_t at,
               int64_t count) {
    alignas(64) Real centre[Split::SLICE] = {}, first[Split::SLICE] = {}, second[Split::SLICE] = {};
    for (int64_t i = 0; i < pixels && count == 0; i++)
        each_vector(channels, [&](int64_t c, auto lanes) {
            store(centre + c, load(centre + c) + load_as(x + i * apart + c, lanes) / Real(pixels));
        });
    for (int64_t c = 0; c < channels && count > 0; c++) centre[c] = Real(spread.mean[at + c]);
    for (int64_t i = 0; i < pixels; i++)  // one after the other, as they lie in memory: blocks of them halved the speed
        each_vector(channels, [&](int64_t c, auto lanes) {
            Vec distance = load_as(x + i * apart + c, lanes) - load(centre + c);
            store(first + c, load(first + c) + distance);
            store(second + c, load(second + c) + distance * distance);
        });
    for (int64_t c = 0; c < channels; c++) {
        double sum = first[c], mean = sum / pixels;
        spread.join(at + c, count, centre[c] + mean, at_least_0(second[c] - sum * mean), pixels);
    }
}

// Mean and biased variance of each channel, into norm.
template <class Stored>
void statistics(const Split& split, const Stored* x, const Spread& spread, const Norm& norm, int64_t threads) {
    std::fill_n(spread.mean, split.sums(), 0.);
    std::fill_n(spread.squares, split.sums(), 0.);
    split.each(threads, [&](int64_t part, int64_t c, int64_t channels, int64_t first, int64_t last) {
        split.each_chunk(first, last, [&](int64_t from, int64_t to) {
            add_chunk(x + from * split.channels + c, split.channels, to - from, channels, spread,
                      part * split.channels + c, from - first);
        });
    });
    for (int64_t part = 1; part < split.parts; part++)
        for (int64_t c = 0; c < split.channels; c++) {
            int64_t other = part * split.channels + c, begin = split.first(part);
            spread.join(c, begin, spread.mean[other], spread.squares[other], split.first(part + 1) - begin);
        }
    for (int64_t c = 0; c < split.channels; c++) {
        norm.mean[c] = Real(spread.mean[c]);
        norm.var[c] = Real(spread.squares[c] / split.count);
    }
}

// Gradients of gamma and beta, and what the gradient of x takes from them: all from the sums of g and of g d.
struct NormGradients {
    Real *of_mean, *of_distance;
    bool batch;

    NormGradients(Scratch& scratch, int64_t channels, bool batch)
        : of_mean(scratch.take<Real>(channels)), of_distance(scratch.take<Real>(channels)), batch(batch) {}

    void finish(const Sums<2>& sums, const Normalise& norm, int64_t channels, int64_t pixels, Real* grad_gamma,
                Real* grad_beta) const {
        for (int64_t c = 0; c < channels; c++) {
            double scale = norm.scale[c], invstd = norm.invstd[c], sum = sums(0, c), product = sums(1, c);
            grad_gamma[c] = Real(product * invstd);
            grad_beta[c] = Real(sum);
            of_mean[c] = Real(-scale * sum / pixels);
            of_distance[c] = Real(-scale * invstd * invstd * product / pixels);
        }
    }
    // The gradient of x at channel c, `distance` from the mean, behind g.
    Vec of_x(int64_t c, const NormaliseAt& at, Vec g, Vec distance) const {
        if (!batch) return g * at.scale;
        return g * at.scale + (load(of_mean + c) + load(of_distance + c) * distance);
    }
};

}  // namespace san
