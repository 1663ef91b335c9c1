// The stem in one pass over the image: 1x1 convolution from 3 channels, BatchNorm, ReLU and 2x2 max-pool.
//
//     y = max_pool2(relu(norm(weight image)))        image [N, H, W, 3], weight [C, 3], y [N, H / 2, W / 2, C]
//
// The convolution's output is never in memory. With mu the mean of the image and V its covariance, the mean of that
// output is weight mu and its variance diag(weight V weight^T), so that norm and convolution are one: kernel times
// the distance of the image from a centre, and bias. The centre is mu, or 0 where the statistics are given.
#include "norm.h"
#include "pooling.h"

namespace san {
namespace {

constexpr int64_t COLOURS = 3;
constexpr int64_t CHUNK_OF_IMAGE = 1024;  // pixels; sums are in double anyway

struct ImageMoments {
    double mean[COLOURS] = {}, covariance[COLOURS][COLOURS] = {};
};

typedef double Colours __attribute__((vector_size(32)));  // the fourth is 0

// Sums of distances from a pixel of the image, and of their products.
struct ImageSums {
    Colours first = {}, second[COLOURS] = {};

    template <class Stored> void add(const Stored* pixel, const Colours& centre) {
        Colours colour = {to_real(pixel[0]), to_real(pixel[1]), to_real(pixel[2]), 0}, distance = colour - centre;
        first += distance;
        for (int i = 0; i < COLOURS; i++) second[i] += distance * distance[i];
    }
    void add(const ImageSums& other) {
        first += other.first;
        for (int i = 0; i < COLOURS; i++) second[i] += other.second[i];
    }
};

// `partial` has Split::TASKS.
template <class Stored> ImageMoments moments(const Stored* image, int64_t pixels, ImageSums* partial, int64_t threads) {
    Split split(pixels, 1, CHUNK_OF_IMAGE);
    Colours centre = {to_real(image[0]), to_real(image[1]), to_real(image[2]), 0};
    split.each(threads, [&](int64_t part, int64_t, int64_t, int64_t first, int64_t last) {
        ImageSums sums;
        for (int64_t p = first; p < last; p++) sums.add(image + p * COLOURS, centre);
        partial[part] = sums;
    });
    for (int64_t part = 1; part < split.parts; part++) partial[0].add(partial[part]);
    ImageMoments all;
    Colours mean = partial[0].first / double(pixels);
    for (int i = 0; i < COLOURS; i++) {
        all.mean[i] = centre[i] + mean[i];
        for (int j = 0; j < COLOURS; j++) all.covariance[i][j] = partial[0].second[i][j] / pixels - mean[i] * mean[j];
    }
    return all;
}

double dot(const Real* weight, const double* colour) {
    double sum = 0;
    for (int i = 0; i < COLOURS; i++) sum += weight[i] * colour[i];
    return sum;
}

// Mean and biased variance of the convolution's output, into norm.
void statistics(const ImageMoments& image, const Real* weight, int64_t channels, const Norm& norm) {
    for (int64_t c = 0; c < channels; c++) {
        double var = 0;
        for (int i = 0; i < COLOURS; i++) var += weight[c * COLOURS + i] * dot(weight + c * COLOURS, image.covariance[i]);
        norm.mean[c] = Real(dot(weight + c * COLOURS, image.mean));
        norm.var[c] = Real(at_least_0(var));
    }
}

// Convolution and BatchNorm as one, in rows along the channels that may be read to the end of their last vector.
struct Kernel {
    Real *colours[COLOURS], *bias;
    Real centre[COLOURS];

    Kernel(Scratch& scratch, int64_t channels) {
        for (Real*& row : colours) row = scratch.take<Real>(channels);
        bias = scratch.take<Real>(channels);
    }
    void fold(const double* mean_of_image, const Real* weight, const Norm& norm, int64_t channels) {
        double about[COLOURS];
        for (int i = 0; i < COLOURS; i++) about[i] = centre[i] = Real(mean_of_image[i]);
        for (Real* row : colours) std::fill_n(row, round_up(channels, LANES), Real(0));
        for (int64_t c = 0; c < channels; c++) {
            double scale = norm.gamma[c] / std::sqrt(double(norm.var[c]) + norm.eps);
            for (int i = 0; i < COLOURS; i++) colours[i][c] = Real(weight[c * COLOURS + i] * scale);
            bias[c] = Real(norm.beta[c] + (dot(weight + c * COLOURS, about) - norm.mean[c]) * scale);
        }
    }
};

struct KernelAt {
    Vec colours[COLOURS], bias;

    KernelAt(const Kernel& kernel, int64_t c) : bias(load(kernel.bias + c)) {
        for (int i = 0; i < COLOURS; i++) colours[i] = load(kernel.colours[i] + c);
    }
    Vec operator()(const Real* pixel) const {
        Vec y = bias;
        for (int i = 0; i < COLOURS; i++) y += colours[i] * pixel[i];
        return y;
    }
};

// A band of the image, two rows of it, as distances from the centre.
struct Band {
    const Pooling& pooling;
    Real* distances;

    Band(const Pooling& pooling, Real* memory)
        : pooling(pooling), distances(memory + thread() * size(pooling)) {}

    static int64_t size(const Pooling& pooling) { return round_up(2 * pooling.width * COLOURS, Maps::LINE); }

    template <class Stored> void read(const Stored* image, int64_t band, const Real* centre) const {
        const Stored* from = image + pooling.first_pixel(band) * COLOURS;
        for (int64_t p = 0; p < 2 * pooling.width; p++)
            for (int64_t i = p * COLOURS, colour = 0; colour < COLOURS; i++, colour++)
                distances[i] = to_real(from[i]) - centre[colour];
    }
    const Real* pixel(int64_t column, int k) const {
        return distances + (k / 2 * pooling.width + 2 * column + k % 2) * COLOURS;
    }
    Largest largest(const KernelAt& kernel, int64_t column) const {
        Largest found(kernel(pixel(column, 0)));
        for (int k = 1; k < 4; k++) found.compare(kernel(pixel(column, k)), k);
        return found;
    }
};

template <class Stored>
void stem(const Pooling& pooling, const Stored* image, const Kernel& kernel, Real* memory, Stored* y,
          int64_t threads) {
    share(pooling.bands(), threads, [&](int64_t first, int64_t last) {
        Band rows(pooling, memory);
        for (int64_t band = first; band < last; band++) {
            rows.read(image, band, kernel.centre);
            Stored* to = y + band * pooling.columns() * pooling.channels;
            each_vector(pooling.channels, [&](int64_t c, auto lanes) {
                KernelAt at(kernel, c);
                for (int64_t j = 0; j < pooling.columns(); j++)
                    store_as(to + j * pooling.channels + c, relu(rows.largest(at, j).value), lanes);
            });
        }
    });
}

// For each channel the sums of g times the colours of the pixel that it goes to, and of g itself.
template <class Stored>
void sum_gradients(const Pooling& pooling, const Stored* grad, const Stored* image, const Kernel& kernel,
                   Real* memory, const Sums<COLOURS + 1>& sums, int64_t threads) {
    sums.run(threads, [&](auto& chunk, int64_t begin, int64_t channels, int64_t band, int64_t) {
        Band rows(pooling, memory);
        rows.read(image, band, kernel.centre);
        const Stored* from = grad + band * pooling.columns() * pooling.channels + begin;
        each_vector(channels, [&](int64_t c, auto lanes) {
            KernelAt at(kernel, begin + c);
            Vec total[COLOURS + 1] = {};
            for (int64_t j = 0; j < pooling.columns(); j++) {
                Largest found(at(rows.pixel(j, 0)));
                Vec colours[COLOURS];
                for (int i = 0; i < COLOURS; i++) colours[i] = broadcast(rows.pixel(j, 0)[i]);
                for (int k = 1; k < 4; k++) {
                    Mask larger = found.compare(at(rows.pixel(j, k)), k);
                    for (int i = 0; i < COLOURS; i++) colours[i] = larger ? broadcast(rows.pixel(j, k)[i]) : colours[i];
                }
                Vec g = relu_backward(found.value, load_as(from + j * pooling.channels + c, lanes));
                for (int i = 0; i < COLOURS; i++) total[i] += g * colours[i];
                total[COLOURS] += g;
            }
            for (int kind = 0; kind <= COLOURS; kind++) store(chunk[kind] + c, total[kind]);
        });
    });
}

// What every pixel's gradient is besides that of its windows: it is part of the mean and of the covariance.
struct ThroughStatistics {
    double linear[COLOURS] = {}, spread[COLOURS][COLOURS] = {};
    bool any = false;

    void add(const Real* weight, double of_mean, double of_var) {
        any = true;
        for (int i = 0; i < COLOURS; i++) {
            linear[i] += weight[i] * of_mean;
            for (int j = 0; j < COLOURS; j++) spread[i][j] += 2 * of_var * weight[i] * weight[j];
        }
    }
    double at(const double* distance, int colour, int64_t pixels) const {
        if (!any) return 0;  // also of a pixel that is infinite
        double sum = linear[colour];
        for (int j = 0; j < COLOURS; j++) sum += spread[colour][j] * distance[j];
        return sum / pixels;
    }
};

struct ParameterGradients {
    Real *weight, *gamma, *beta;
};

// Gradients of the parameters from the sums, and what the image takes from its statistics, if they are its own.
ThroughStatistics finish(const Sums<COLOURS + 1>& sums, const ImageMoments* image, const Real* centre,
                         const Real* weight, const Norm& norm, int64_t channels, const ParameterGradients& grads) {
    ThroughStatistics through;
    for (int64_t c = 0; c < channels; c++) {
        const Real* w = weight + c * COLOURS;
        double invstd = 1 / std::sqrt(double(norm.var[c]) + norm.eps), scale = norm.gamma[c] * invstd;
        double of_shift = sums(COLOURS, c), about[COLOURS], of_kernel[COLOURS];
        for (int i = 0; i < COLOURS; i++) about[i] = centre[i], of_kernel[i] = sums(i, c);
        double of_scale = dot(w, of_kernel) + (dot(w, about) - norm.mean[c]) * of_shift;
        double of_mean = -scale * of_shift, of_var = -0.5 * of_scale * scale * invstd * invstd;
        grads.gamma[c] = Real(of_scale * invstd);
        grads.beta[c] = Real(of_shift);
        for (int i = 0; i < COLOURS; i++) {
            double of_weight = (of_kernel[i] + about[i] * of_shift) * scale;
            if (image) of_weight += of_mean * image->mean[i] + 2 * of_var * dot(w, image->covariance[i]);
            grads.weight[c * COLOURS + i] = Real(of_weight);
        }
        if (image) through.add(w, of_mean, of_var);
    }
    return through;
}

// Adds to each pixel of a band, in `onto`, what its windows give it.
template <class Stored>
void add_windows(const Band& rows, const Stored* grad, const Kernel& kernel, Real* onto) {
    int64_t channels = rows.pooling.channels;
    for (int64_t j = 0; j < rows.pooling.columns(); j++) {
        Vec total[4][COLOURS] = {};
        each_vector(channels, [&](int64_t c, auto lanes) {
            KernelAt at(kernel, c);
            Largest found = rows.largest(at, j);
            Vec g = relu_backward(found.value, load_as(grad + j * channels + c, lanes));
            for (int k = 0; k < 4; k++)
                for (int i = 0; i < COLOURS; i++)
                    total[k][i] += found.which == k ? g * at.colours[i] : Vec{};
        });
        for (int k = 0; k < 4; k++)
            for (int i = 0; i < COLOURS; i++) onto[rows.pixel(j, k) - rows.distances + i] += sum(total[k][i]);
    }
}

template <class Stored>
void image_backward(const Pooling& pooling, const Stored* grad, const Stored* image, const Kernel& kernel,
                    const ImageMoments& moments, const ThroughStatistics& through, Real* memory, Stored* grad_image,
                    int64_t threads) {
    share(pooling.bands(), threads, [&](int64_t first, int64_t last) {
        Band rows(pooling, memory);
        Real* of_windows = memory + (threads + thread()) * Band::size(pooling);
        for (int64_t band = first; band < last; band++) {
            rows.read(image, band, kernel.centre);
            std::fill_n(of_windows, Band::size(pooling), Real(0));
            add_windows(rows, grad + band * pooling.columns() * pooling.channels, kernel, of_windows);
            for (int64_t p = 0; p < pooling.height_of(band) * pooling.width; p++) {
                int64_t at = (pooling.first_pixel(band) + p) * COLOURS;
                double distance[COLOURS];
                for (int i = 0; i < COLOURS; i++) distance[i] = to_real(image[at + i]) - moments.mean[i];
                for (int i = 0; i < COLOURS; i++) {
                    double of_window = p < 2 * pooling.width ? of_windows[p * COLOURS + i] : 0;
                    grad_image[at + i] = to_stored<Stored>(Real(of_window + through.at(distance, i, pooling.pixels())));
                }
            }
        }
    });
}

}  // namespace
}  // namespace san

using namespace san;

// y of image [images, height, width, 3], at least 2 x 2; where batch is set, mean and var are written first.
extern "C" int64_t san_stem(char* memory, int64_t threads, int64_t storage, int64_t images, int64_t height,
                            int64_t width, int64_t channels, int64_t batch, const void* image, const Real* weight,
                            const Real* gamma, const Real* beta, Real* mean, Real* var, double eps, void* y) {
    Scratch scratch(memory);
    Pooling pooling{images, height, width, channels};
    Norm norm{gamma, beta, mean, var, eps, bool(batch)};
    Kernel kernel(scratch, channels);
    ImageSums* partial = scratch.take<ImageSums>(Split::TASKS);
    Real* rows = scratch.take<Real>(threads * Band::size(pooling));
    if (scratch.counting()) return scratch.used();
    with_storage(storage, [&](auto stored) {
        using Stored = decltype(stored);
        auto from = static_cast<const Stored*>(image);
        ImageMoments of_image;
        if (batch) of_image = moments(from, pooling.pixels(), partial, threads);
        if (batch) statistics(of_image, weight, channels, norm);
        kernel.fold(of_image.mean, weight, norm, channels);
        stem(pooling, from, kernel, rows, static_cast<Stored*>(y), threads);
    });
    return 0;
}

// Gradients of image (if grad_image is not null), weight, gamma and beta from that of y.
extern "C" int64_t san_stem_backward(char* memory, int64_t threads, int64_t storage, int64_t images, int64_t height,
                                     int64_t width, int64_t channels, int64_t batch, const void* grad,
                                     const void* image, const Real* weight, const Real* gamma, const Real* beta,
                                     Real* mean, Real* var, double eps, void* grad_image, Real* grad_weight,
                                     Real* grad_gamma, Real* grad_beta) {
    Scratch scratch(memory);
    Pooling pooling{images, height, width, channels};
    Norm norm{gamma, beta, mean, var, eps, bool(batch)};
    Kernel kernel(scratch, channels);
    ImageSums* partial = scratch.take<ImageSums>(Split::TASKS);
    Sums<COLOURS + 1> sums(scratch, pooling.split());
    Real* rows = scratch.take<Real>(2 * threads * Band::size(pooling));
    if (scratch.counting()) return scratch.used();
    with_storage(storage, [&](auto stored) {
        using Stored = decltype(stored);
        auto from = static_cast<const Stored*>(image), front = static_cast<const Stored*>(grad);
        ImageMoments of_image;
        if (batch) of_image = moments(from, pooling.pixels(), partial, threads);
        kernel.fold(of_image.mean, weight, norm, channels);
        sum_gradients(pooling, front, from, kernel, rows, sums, threads);
        ThroughStatistics through = finish(sums, batch ? &of_image : nullptr, kernel.centre, weight, norm,
                                           channels, {grad_weight, grad_gamma, grad_beta});
        if (grad_image)
            image_backward(pooling, front, from, kernel, of_image, through, rows, static_cast<Stored*>(grad_image),
                           threads);
    });
    return 0;
}
