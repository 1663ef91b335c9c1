// Maps as torch holds them, channels last: vectors along the channels of a pixel, sums over the pixels.
#pragma once

#include <algorithm>

#include "interface.h"

namespace san {

typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef uint32_t Words __attribute__((vector_size(LANES * 4)));
typedef uint16_t Halves __attribute__((vector_size(LANES * 2)));

inline Vec widened(Halves x) { return __builtin_convertvector((Floats)(__builtin_convertvector(x, Words) << 16), Vec); }
inline Halves narrowed(Vec x) {  // as to_stored
    Floats value = __builtin_convertvector(x, Floats);
    Words wide = (Words)value, nearest = (wide + 0x7fff + ((wide >> 16) & 1)) >> 16;
    return __builtin_convertvector(value != value ? (wide >> 16) | 0x40 : nearest, Halves);
}

inline Vec load_as(const Real* from, Whole) { return load(from); }
inline Vec load_as(const Real* from, First lanes) {
    Vec x = {};
    std::memcpy(&x, from, lanes.count * sizeof(Real));
    return x;
}
inline Vec load_as(const BFloat16* from, Whole) {
    Halves x;
    std::memcpy(&x, from, sizeof x);
    return widened(x);
}
inline Vec load_as(const BFloat16* from, First lanes) {
    Halves x = {};
    std::memcpy(&x, from, lanes.count * sizeof(BFloat16));
    return widened(x);
}

inline void store_as(Real* to, Vec x, Whole) { store(to, x); }
inline void store_as(Real* to, Vec x, First lanes) { std::memcpy(to, &x, lanes.count * sizeof(Real)); }
inline void store_as(BFloat16* to, Vec x, Whole) {
    Halves stored = narrowed(x);
    std::memcpy(to, &stored, sizeof stored);
}
inline void store_as(BFloat16* to, Vec x, First lanes) {
    Halves stored = narrowed(x);
    std::memcpy(to, &stored, lanes.count * sizeof(BFloat16));
}

// Calls work with a value of the type that maps have in memory.
template <class Work> inline void with_storage(int64_t storage, Work work) {
    if constexpr (sizeof(Real) == sizeof(float))
        if (storage == BFLOAT16) return work(BFloat16{});
    work(Real{});
}

// The gradient behind relu, of its input and the gradient in front. Through NaN it passes, as in torch.
inline Vec relu_backward(Vec x, Vec grad) { return x <= Vec{} ? Vec{} : grad; }

// Of a sum of squares that rounding has made negative; NaN stays NaN.
inline double at_least_0(double x) { return x < 0 ? 0 : x; }

// Calls work(first, last) for runs of things that together are [0, count), on many threads.
template <class Work> void share(int64_t count, int64_t threads, Work work) {
    constexpr int64_t RUNS = 64;  // a multiple of all usual numbers of threads
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t run = 0; run < RUNS; run++) work(run * count / RUNS, (run + 1) * count / RUNS);
}

// How a sum over `count` things (pixels, rows of them) for each channel is shared: channels in slices, whose sums
// stay in the nearest cache, things in parts of whole chunks. A chunk is summed in Real, chunks in double.
struct Split {
    static constexpr int64_t SLICE = 512;  // channels
    static constexpr int64_t TASKS = 32;   // enough for 16 cores

    int64_t count, channels, chunk, slices, parts;

    Split(int64_t count, int64_t channels, int64_t chunk) : count(count), channels(channels), chunk(chunk) {
        slices = (channels + SLICE - 1) / SLICE;
        parts = larger(1, smaller(chunks(), (TASKS + slices - 1) / slices));
    }
    int64_t chunks() const { return (count + chunk - 1) / chunk; }
    int64_t sums() const { return parts * channels; }  // of one kind, part by part

    int64_t first(int64_t part) const { return smaller(count, part * chunks() / parts * chunk); }

    // Calls work(part, c, channels, first, last), on many threads, for channels from c on and things [first, last).
    template <class Work> void each(int64_t threads, Work work) const {
#pragma omp parallel for num_threads(threads) schedule(static)
        for (int64_t task = 0; task < parts * slices; task++) {
            int64_t part = task / slices, c = task % slices * SLICE;
            work(part, c, smaller(SLICE, channels - c), first(part), first(part + 1));
        }
    }
    // Calls work(first, last) for each chunk of those things.
    template <class Work> void each_chunk(int64_t first, int64_t last, Work work) const {
        for (int64_t i = first; i < last; i += chunk) work(i, smaller(i + chunk, last));
    }
};

// KINDS sums over all things for each channel.
template <int KINDS> class Sums {
  public:
    typedef Real Chunk[KINDS][Split::SLICE];  // those of some channels over a chunk

    Sums(Scratch& scratch, const Split& split) : split_(split) {
        for (double*& kind : kinds_) kind = scratch.take<double>(split.sums());
    }
    double operator()(int kind, int64_t c) const { return kinds_[kind][c]; }

    // Calls add(chunk, c, channels, first, last): to add up things [first, last) for channels from c on.
    template <class Add> void run(int64_t threads, Add add) const {
        split_.each(threads, [&](int64_t part, int64_t begin, int64_t channels, int64_t first, int64_t last) {
            int64_t at = part * split_.channels + begin;
            for (double* kind : kinds_) std::fill_n(kind + at, channels, 0.);
            split_.each_chunk(first, last, [&](int64_t from, int64_t to) {
                alignas(64) Chunk chunk = {};
                add(chunk, begin, channels, from, to);
                for (int kind = 0; kind < KINDS; kind++)
                    for (int64_t c = 0; c < channels; c++) kinds_[kind][at + c] += chunk[kind][c];
            });
        });
        for (int64_t part = 1; part < split_.parts; part++)
            for (double* kind : kinds_)
                for (int64_t c = 0; c < split_.channels; c++) kind[c] += kind[part * split_.channels + c];
    }

  private:
    Split split_;
    double* kinds_[KINDS];
};

}  // namespace san
