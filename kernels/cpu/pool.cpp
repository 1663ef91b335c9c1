// BatchNorm and ReLU in front of a 2x2 max-pool, in one pass that keeps no indices.
//
//     y = max_pool2(relu(norm(x)))        x [N, H, W, C], y [N, H / 2, W / 2, C]
//
// Backward finds the largest of each window again, from x. A last odd row or column is in no window: its gradient
// comes through the statistics alone.
#include "normalise.h"
#include "pooling.h"

namespace san {
namespace {

// The largest normalised value of a window, and how far its x lies from the mean.
struct Normalised {
    Vec distance;
    Largest largest;

    template <class Stored, class Lanes>
    Normalised(const Pooling& pooling, const NormaliseAt& at, const Stored* x, Lanes lanes)
        : distance(load_as(x, lanes) - at.mean), largest(at(distance)) {
        for (int k = 1; k < 4; k++) {
            Vec next = load_as(x + pooling.step(k), lanes) - at.mean;
            distance = largest.compare(at(next), k) ? next : distance;
        }
    }
};

template <class Stored>
void norm_relu_pool(const Pooling& pooling, const Stored* x, const Normalise& norm, Stored* y, int64_t threads) {
    share(pooling.bands(), threads, [&](int64_t first, int64_t last) {
        for (int64_t band = first; band < last; band++)
            pooling.each_window(band, 0, pooling.channels, [&](int64_t c, auto lanes, int64_t pixel, int64_t window) {
                Normalised found(pooling, NormaliseAt(norm, c), x + pixel, lanes);
                store_as(y + window, relu(found.largest.value), lanes);
            });
    });
}

template <class Stored>
void sum_gradients(const Pooling& pooling, const Stored* grad, const Stored* x, const Normalise& norm,
                   const Sums<2>& sums, int64_t threads) {
    sums.run(threads, [&](Sums<2>::Chunk& chunk, int64_t begin, int64_t channels, int64_t band, int64_t) {
        pooling.each_window(band, begin, channels, [&](int64_t c, auto lanes, int64_t pixel, int64_t window) {
            Normalised found(pooling, NormaliseAt(norm, c), x + pixel, lanes);
            Vec g = relu_backward(found.largest.value, load_as(grad + window, lanes));
            Real *sum = chunk[0] + c - begin, *product = chunk[1] + c - begin;
            store(sum, load(sum) + g);
            store(product, load(product) + g * found.distance);
        });
    });
}

template <class Stored>
void norm_relu_pool_backward(const Pooling& pooling, const Stored* grad, const Stored* x, const Normalise& norm,
                             const NormGradients& gradients, Stored* grad_x, int64_t threads) {
    auto pixel_backward = [&](int64_t c, auto lanes, int64_t pixel, Vec g) {
        NormaliseAt at(norm, c);
        store_as(grad_x + pixel, gradients.of_x(c, at, g, load_as(x + pixel, lanes) - at.mean), lanes);
    };
    share(pooling.bands(), threads, [&](int64_t first, int64_t last) {
        for (int64_t band = first; band < last; band++) {
            pooling.each_window(band, 0, pooling.channels, [&](int64_t c, auto lanes, int64_t pixel, int64_t window) {
                Normalised found(pooling, NormaliseAt(norm, c), x + pixel, lanes);
                Vec g = relu_backward(found.largest.value, load_as(grad + window, lanes));
                for (int k = 0; k < 4; k++)
                    pixel_backward(c, lanes, pixel + pooling.step(k), found.largest.which == k ? g : Vec{});
            });
            pooling.each_left_out(band, [&](int64_t c, auto lanes, int64_t pixel) {
                pixel_backward(c, lanes, pixel, Vec{});
            });
        }
    });
}

}  // namespace
}  // namespace san

using namespace san;

// y of x [images, height, width, channels], at least 2 x 2; where batch is set, mean and var are written first.
extern "C" int64_t san_norm_relu_pool(char* memory, int64_t threads, int64_t storage, int64_t images, int64_t height,
                                      int64_t width, int64_t channels, int64_t batch, const void* x,
                                      const Real* gamma, const Real* beta, Real* mean, Real* var, double eps,
                                      void* y) {
    Scratch scratch(memory);
    Pooling pooling{images, height, width, channels};
    Split pixels(pooling.pixels(), channels, CHUNK);
    Norm norm{gamma, beta, mean, var, eps, bool(batch)};
    Normalise normalise(scratch, channels);
    Spread spread(scratch, batch ? pixels.sums() : 0);
    if (scratch.counting()) return scratch.used();
    with_storage(storage, [&](auto stored) {
        using Stored = decltype(stored);
        auto from = static_cast<const Stored*>(x);
        if (batch) statistics(pixels, from, spread, norm, threads);
        normalise.fold(norm, channels);
        norm_relu_pool(pooling, from, normalise, static_cast<Stored*>(y), threads);
    });
    return 0;
}

// Gradients of x, gamma and beta from that of y.
extern "C" int64_t san_norm_relu_pool_backward(char* memory, int64_t threads, int64_t storage, int64_t images,
                                               int64_t height, int64_t width, int64_t channels, int64_t batch,
                                               const void* grad, const void* x, const Real* gamma, const Real* beta,
                                               Real* mean, Real* var, double eps, void* grad_x, Real* grad_gamma,
                                               Real* grad_beta) {
    Scratch scratch(memory);
    Pooling pooling{images, height, width, channels};
    Normalise normalise(scratch, channels);
    Sums<2> sums(scratch, pooling.split());
    NormGradients gradients(scratch, channels, batch);
    if (scratch.counting()) return scratch.used();
    normalise.fold({gamma, beta, mean, var, eps, bool(batch)}, channels);
    with_storage(storage, [&](auto stored) {
        using Stored = decltype(stored);
        auto from = static_cast<const Stored*>(x), front = static_cast<const Stored*>(grad);
        sum_gradients(pooling, front, from, normalise, sums, threads);
        gradients.finish(sums, normalise, channels, pooling.pixels(), grad_gamma, grad_beta);
        norm_relu_pool_backward(pooling, front, from, normalise, gradients, static_cast<Stored*>(grad_x), threads);
    });
    return 0;
}
