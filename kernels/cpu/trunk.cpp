// BatchNorm and ReLU in front of a 1x1 convolution, which is torch's.
#include "normalise.h"

namespace san {
namespace {

template <class Stored>
void norm_relu(int64_t pixels, int64_t channels, const Stored* x, const Normalise& norm, Stored* y, int64_t threads) {
    share(pixels, threads, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; i++)
            each_vector(channels, [&](int64_t c, auto lanes) {
                NormaliseAt at(norm, c);
                store_as(y + i * channels + c, relu(at(load_as(x + i * channels + c, lanes) - at.mean)), lanes);
            });
    });
}

template <class Stored>
void sum_gradients(int64_t channels, const Stored* grad, const Stored* x, const Normalise& norm, const Sums<2>& sums,
                   int64_t threads) {
    sums.run(threads, [&](Sums<2>::Chunk& chunk, int64_t begin, int64_t count, int64_t from, int64_t to) {
        for (int64_t i = from; i < to; i++)
            each_vector(count, [&](int64_t c, auto lanes) {
                NormaliseAt at(norm, begin + c);
                int64_t place = i * channels + begin + c;
                Vec distance = load_as(x + place, lanes) - at.mean;
                Vec g = relu_backward(at(distance), load_as(grad + place, lanes));
                store(chunk[0] + c, load(chunk[0] + c) + g);
                store(chunk[1] + c, load(chunk[1] + c) + g * distance);
            });
    });
}

template <class Stored>
void norm_relu_backward(int64_t pixels, int64_t channels, const Stored* grad, const Stored* x, const Normalise& norm,
                        const NormGradients& gradients, Stored* grad_x, int64_t threads) {
    share(pixels, threads, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; i++)
            each_vector(channels, [&](int64_t c, auto lanes) {
                NormaliseAt at(norm, c);
                int64_t place = i * channels + c;
                Vec distance = load_as(x + place, lanes) - at.mean;
                Vec g = relu_backward(at(distance), load_as(grad + place, lanes));
                store_as(grad_x + place, gradients.of_x(c, at, g, distance), lanes);
            });
    });
}

}  // namespace
}  // namespace san

using namespace san;

// y = relu(norm(x)) of x [pixels, channels]; where batch is set, mean and var are written first.
extern "C" int64_t san_norm_relu(char* memory, int64_t threads, int64_t storage, int64_t pixels, int64_t channels,
                                 int64_t batch, const void* x, const Real* gamma, const Real* beta, Real* mean,
                                 Real* var, double eps, void* y) {
    Scratch scratch(memory);
    Split split(pixels, channels, CHUNK);
    Norm norm{gamma, beta, mean, var, eps, bool(batch)};
    Normalise normalise(scratch, channels);
    Spread spread(scratch, batch ? split.sums() : 0);
    if (scratch.counting()) return scratch.used();
    with_storage(storage, [&](auto stored) {
        auto from = static_cast<const decltype(stored)*>(x);
        if (batch) statistics(split, from, spread, norm, threads);
        normalise.fold(norm, channels);
        norm_relu(pixels, channels, from, normalise, static_cast<decltype(stored)*>(y), threads);
    });
    return 0;
}

// NormGradients of x, gamma and beta from that of y, all but the last two [pixels, channels]; grad_x may be grad.
extern "C" int64_t san_norm_relu_backward(char* memory, int64_t threads, int64_t storage, int64_t pixels,
                                          int64_t channels, int64_t batch, const void* grad, const void* x,
                                          const Real* gamma, const Real* beta, Real* mean, Real* var, double eps,
                                          void* grad_x, Real* grad_gamma, Real* grad_beta) {
    Scratch scratch(memory);
    Split split(pixels, channels, CHUNK);
    Normalise normalise(scratch, channels);
    Sums<2> sums(scratch, split);
    NormGradients gradients(scratch, channels, batch);
    if (scratch.counting()) return scratch.used();
    normalise.fold({gamma, beta, mean, var, eps, bool(batch)}, channels);
    with_storage(storage, [&](auto stored) {
        using Stored = decltype(stored);
        auto from = static_cast<const Stored*>(x), front = static_cast<const Stored*>(grad);
        sum_gradients(channels, front, from, normalise, sums, threads);
        gradients.finish(sums, normalise, channels, pixels, grad_gamma, grad_beta);
        norm_relu_backward(pixels, channels, front, from, normalise, gradients, static_cast<Stored*>(grad_x), threads);
    });
    return 0;
}
