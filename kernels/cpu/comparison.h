// What pairwise attention compares: a_i + b_{i+o}, a from query and place, b from key and place, and the
// BatchNorm over it, whose statistics need no footprint (sancli/ops/statistics.py, sum_statistics).
#pragma once

#include "footprints.h"
#include "norm.h"

namespace san {

// The maps whose sums are compared, channel by channel; the last two channels are the place.
struct Comparison {
    const Maps& maps;
    int64_t planes, channels, sign;  // R, R + 2; b is sign * key
    Real *a, *b;                     // compact, padded

    static Comparison take(Scratch& scratch, const Maps& maps, int64_t planes, int64_t sign) {
        int64_t channels = planes + 2, all = maps.groups * channels;
        Real *a = scratch.take<Real>(all * maps.compact()), *b = scratch.take<Real>(all * maps.padded());
        return {maps, planes, channels, sign, a, b};
    }
    Real* a_of(int64_t group, int64_t c) const { return a + (group * channels + c) * maps.compact(); }
    Real* b_of(int64_t group, int64_t c) const { return b + (group * channels + c) * maps.padded(); }
    double count() const { return double(maps.images) * maps.height * maps.width * maps.offsets(); }
};

inline void rescale(Real* x, int64_t size, Real scale) {
    for (int64_t i = 0; i < size; i++) x[i] *= scale;
}

// place [2, H, W], the same for all images: as it is into a, negative into b.
inline void write_place(const Comparison& of, const Real* place, int64_t group, int64_t axis) {
    const Maps& maps = of.maps;
    int64_t lanes = maps.lanes, used = maps.used_lanes(group), channel = of.planes + axis;
    auto fill = [&](Real* to, Real x) {
        for (int64_t n = 0; n < lanes; n++) to[n] = n < used ? x : 0;
    };
    const Real* map = place + axis * maps.height * maps.width;
    Real *a = of.a_of(group, channel), *b = of.b_of(group, channel);
    for (int64_t i = 0; i < maps.height * maps.width; i++) fill(a + i * lanes, map[i]);
    for (int64_t y = 0; y < maps.padded_height(); y++)
        for (int64_t x = 0; x < maps.width + maps.kernel - 1; x++, b += lanes)
            fill(b, -map[reflect(y - maps.reach, maps.height) * maps.width + reflect(x - maps.reach, maps.width)]);
}

template <class Stored>
void write_operands(const Comparison& of, ChannelsLast<const Stored> query, ChannelsLast<const Stored> key,
                    const Real* place, int64_t threads) {
    const Maps& maps = of.maps;
#pragma omp parallel for num_threads(threads)
    for (int64_t row = 0; row < maps.groups * maps.height; row++) {
        int64_t group = row / maps.height, y = row % maps.height;
        Rows to{of.a_of(group, 0) + y * maps.width * maps.lanes, maps.compact()};
        gather(maps, {group, y, 0, maps.width}, of.planes, query, to);
    }
    pad(maps, of.planes, of.channels, key, of.b, threads);
#pragma omp parallel for num_threads(threads)
    for (int64_t task = 0; task < 2 * maps.groups; task++) write_place(of, place, task / 2, task % 2);
}

// x - centre in the lanes that have an image, sign * x before.
inline void centre(const Maps& maps, int64_t group, Real* x, int64_t count, Real sign, Real centre) {
    int64_t lanes = maps.lanes, used = maps.used_lanes(group);
    for (int64_t i = 0; i < count; i += lanes)
        for (int64_t n = 0; n < used; n++) x[i + n] = sign * x[i + n] - centre;
}

// Around what a channel of a and of b are taken: about their means, for precision.
struct Centres {
    Real a, b;
};

inline Centres find_centres(const Comparison& of, int64_t c) {
    const Maps& maps = of.maps;
    double a = 0, b = 0, count = double(maps.images) * maps.height;
    for (int64_t group = 0; group < maps.groups; group++)
        for (int64_t y = 0; y < maps.height; y++) {
            int64_t inner = (y + maps.reach) * maps.padded_row() + maps.reach * maps.lanes;
            const Real *row_a = of.a_of(group, c) + y * maps.width * maps.lanes, *row_b = of.b_of(group, c) + inner;
            a += moments(maps, group, row_a, maps.width, 0).first / maps.width;
            b += moments(maps, group, row_b, maps.width, 0).first / maps.width;
        }
    int64_t sign = c < of.planes ? of.sign : 1;
    return {Real(a / count), Real(double(sign) * b / count)};
}

inline void centre_channel(const Comparison& of, int64_t c, Centres centres) {
    const Maps& maps = of.maps;
    Real sign = c < of.planes ? Real(of.sign) : Real(1);
    for (int64_t group = 0; group < maps.groups; group++) {
        centre(maps, group, of.a_of(group, c), maps.positions(), 1, centres.a);
        centre(maps, group, of.b_of(group, c), maps.padded_height() * maps.padded_row(), sign, centres.b);
        clear_gap(maps, of.b_of(group, c));
    }
}

// Sums over the footprints of a row of pixels; `rows` has room for box_room numbers.
inline int64_t box_room(const Maps& maps) { return round_up(maps.padded_row() + 2 * LANES, 16); }

template <class Function>
inline void box_row(const Maps& maps, const Real* padded, int64_t y, Function function, Real* columns, Real* box) {
    int64_t row = maps.padded_row(), size = maps.width * maps.lanes, k = maps.kernel;
    const Real* top = padded + y * row;
    for (int64_t i = 0; i < row; i++) columns[i] = function(top[i]);
    for (int64_t j = 1; j < k; j++)
        for (int64_t i = 0; i < row; i++) columns[i] += function(top[j * row + i]);
    for (int64_t i = 0; i < size; i++) box[i] = columns[i];
    for (int64_t j = 1; j < k; j++)
        for (int64_t i = 0; i < size; i++) box[i] += columns[j * maps.lanes + i];
}

// Sums of a_i + b_{i+o} and of its square over all pixels and offsets, for centred a and b;
// E[(a + b)^2] = E[a^2] + 2 E[a box(b)] + E[box(b^2)].
inline Moments compared_moments(const Comparison& of, int64_t c, Real* room) {
    const Maps& maps = of.maps;
    Real *columns = room, *box = room + box_room(maps), *squares = box + box_room(maps);
    int64_t size = maps.width * maps.lanes;
    Vec visits = broadcast(Real(maps.offsets()));
    Moments sums;
    for (int64_t group = 0; group < maps.groups; group++)
        for (int64_t y = 0; y < maps.height; y++) {
            const Real *a = of.a_of(group, c) + y * size, *b = of.b_of(group, c);
            box_row(maps, b, y, [](Real x) { return x * x; }, columns, squares);
            box_row(maps, b, y, [](Real x) { return x; }, columns, box);
            Vec first = {}, second = {};
            for (int64_t i = 0; i < size; i += LANES) {
                Vec x = load(a + i), seen = load(box + i);
                first += first_lanes(visits * x + seen, size - i);
                second += first_lanes(x * (visits * x + 2 * seen) + load(squares + i), size - i);
            }
            sums.add({double(sum(first)), double(sum(second))});
        }
    return sums;
}

// Centres a and b around the mean of the sum, with its statistics where the batch's are wanted, and folds the norm
// into b; `shift` is what a wants added: norm(a + b) = scale * a + shift + b.
inline void normalise_comparison(const Comparison& of, const Norm& norm, Affine& affine, Real* rooms,
                                 int64_t threads) {
    const Maps& maps = of.maps;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t c = 0; c < of.channels; c++) {
        Centres centres{norm.batch ? Real(0) : norm.mean[c], 0};
        if (norm.batch) centres = find_centres(of, c);
        centre_channel(of, c, centres);
        double rest = 0;
        if (norm.batch) {
            Moments sums = compared_moments(of, c, rooms + thread() * 3 * box_room(maps));
            rest = sums.first / of.count();
            double square = sums.second / of.count() - rest * rest;
            norm.mean[c] = Real(double(centres.a) + centres.b + rest);
            norm.var[c] = square < 0 ? Real(0) : Real(square);
        }
        double invstd = 1 / std::sqrt(double(norm.var[c]) + norm.eps);
        affine.invstd[c] = Real(invstd);
        affine.scale[c] = Real(norm.gamma[c] * invstd);
        affine.shift[c] = Real(norm.beta[c] - affine.scale[c] * rest);
        for (int64_t group = 0; group < maps.groups; group++) rescale(of.b_of(group, c), maps.padded(), affine.scale[c]);
    }
}

// The same with all statistics known, and the normalised b apart from the centred one.
inline void normalise_again(const Comparison& of, const Norm& norm, Affine& affine, Real* normalised_b,
                            int64_t threads) {
    const Maps& maps = of.maps;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t c = 0; c < of.channels; c++) {
        Centres centres{norm.mean[c], 0};
        if (norm.batch) {
            Real a = find_centres(of, c).a;
            centres = {a, norm.mean[c] - a};
        }
        centre_channel(of, c, centres);
        affine.scale[c] = Real(norm.gamma[c] / std::sqrt(double(norm.var[c]) + norm.eps));
        affine.shift[c] = norm.beta[c];
        for (int64_t group = 0; group < maps.groups; group++) {
            Real* to = normalised_b + (group * of.channels + c) * maps.padded();
            for (int64_t i = 0; i < maps.padded(); i++) to[i] = affine.scale[c] * of.b_of(group, c)[i];
        }
    }
}

// Takes the gradients of a channel of the normalised a and b, in place, to those of a and b before the norm, and
// gives those of gamma and beta. `original` is centred, and not normalised.
struct NormGradient {
    const Comparison &original, &grad;
    const Norm& norm;

    void run(int64_t c, Real* grad_gamma, Real* grad_beta, Real* room) const {
        const Maps& maps = original.maps;
        double invstd = 1 / std::sqrt(double(norm.var[c]) + norm.eps), scale = norm.gamma[c] * invstd;
        Moments sums;  // of the gradient, and of its product with what is normalised
        for (int64_t group = 0; group < maps.groups; group++) {
            Moments a = products(grad.a_of(group, c), original.a_of(group, c), maps.positions());
            sums.add({a.first, a.second});
            int64_t size = maps.padded_height() * maps.padded_row();
            sums.add({0, products(grad.b_of(group, c), original.b_of(group, c), size).second});
        }
        grad_gamma[c] = Real(sums.second * invstd);
        grad_beta[c] = Real(sums.first);
        Real linear = Real(-scale * sums.first / original.count());
        Real square = Real(-scale * invstd * invstd * sums.second / original.count());
        for (int64_t group = 0; group < maps.groups; group++) {
            rescale(grad.a_of(group, c), maps.positions(), Real(scale));
            rescale(grad.b_of(group, c), maps.padded_height() * maps.padded_row(), Real(scale));
            if (norm.batch) through_statistics(group, c, linear, square, room);
        }
    }

  private:
    static Moments products(const Real* grad, const Real* x, int64_t size) {
        constexpr int64_t RUN = 64 * LANES;  // summed before they join the sum in double precision
        Moments sums;
        for (int64_t first = 0; first < size; first += RUN) {
            Vec plain = {}, product = {};
            for (int64_t i = first; i < smaller(first + RUN, size); i += LANES) {
                Vec d = first_lanes(load(grad + i), size - i);
                plain += d;
                product += first_lanes(d * load(x + i), size - i);
            }
            sums.add({double(sum(plain)), double(sum(product))});
        }
        return sums;
    }
    // Each sum a_i + b_{i+o} gets linear + square * (a_i + b_{i+o}), and hands it to both.
    void through_statistics(int64_t group, int64_t c, Real linear, Real square, Real* room) const {
        const Maps& maps = original.maps;
        int64_t size = maps.width * maps.lanes, row = maps.padded_row(), k = maps.kernel;
        Real *columns = room, *box = room + box_room(maps), visits = Real(maps.offsets());
        const Real *a = original.a_of(group, c), *b = original.b_of(group, c);
        Real *grad_a = grad.a_of(group, c), *grad_b = grad.b_of(group, c);
        for (int64_t y = 0; y < maps.height; y++) {
            box_row(maps, b, y, [](Real x) { return x; }, columns, box);
            const Real* x = a + y * size;
            for (int64_t i = 0; i < size; i++)
                grad_a[y * size + i] += visits * (linear + square * x[i]) + square * box[i];
            std::memset(columns, 0, row * sizeof(Real));
            for (int64_t j = 0; j < k; j++)
                for (int64_t i = 0; i < size; i++) columns[j * maps.lanes + i] += linear + square * x[i];
            for (int64_t j = 0; j < k; j++)
                for (int64_t i = 0; i < row; i++) grad_b[(y + j) * row + i] += columns[i];
        }
        for (int64_t y = 0; y < maps.padded_height(); y++)
            for (int64_t x = 0; x < maps.width + k - 1; x++) {
                Real weight = square * Real(seen(y, maps.height, k) * seen(x, maps.width, k));
                int64_t at = y * row + x * maps.lanes;
                for (int64_t n = 0; n < maps.lanes; n++) grad_b[at + n] += weight * b[at + n];
            }
    }
    // How many windows of K show line `index` of a padded side.
    static int64_t seen(int64_t index, int64_t size, int64_t kernel) {
        return smaller(index, size - 1) - larger(0, index - kernel + 1) + 1;
    }
};

}  // namespace san
