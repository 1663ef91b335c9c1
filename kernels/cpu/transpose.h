// Square blocks of numbers turned over inside the registers: how maps change between channels last and rows.
#pragma once

#include <utility>

#include "interface.h"

namespace san {

template <class Indices> struct Shuffle;
template <int... INDEX> struct Shuffle<std::integer_sequence<int, INDEX...>> {
    // Lanes of a and, from LANES on, of b: those whose bit WIDTH is not set in a, and what stands there in b.
    template <int WIDTH> static Vec low(Vec a, Vec b) { return mix<(INDEX & WIDTH ? LANES + INDEX - WIDTH : INDEX)...>(a, b); }
    template <int WIDTH> static Vec high(Vec a, Vec b) { return mix<(INDEX & WIDTH ? LANES + INDEX : INDEX + WIDTH)...>(a, b); }

    template <int... FROM> static Vec mix(Vec a, Vec b) {
#if defined(__clang__)
        return __builtin_shufflevector(a, b, FROM...);
#else
        typedef decltype(a > b) Mask;
        return __builtin_shuffle(a, b, Mask{FROM...});
#endif
    }
};

// Turns block[i][j] into block[j][i], by exchanges of halves, of quarters, and so on (Eklundh, 1972).
template <int WIDTH = 1> __attribute__((always_inline)) inline void transpose(Vec (&block)[LANES]) {
    if constexpr (WIDTH < LANES) {
        using Lanes = Shuffle<std::make_integer_sequence<int, LANES>>;
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++)
            if (!(i & WIDTH)) {
                Vec a = block[i], b = block[i + WIDTH];
                block[i] = Lanes::template low<WIDTH>(a, b);
                block[i + WIDTH] = Lanes::template high<WIDTH>(a, b);
            }
        transpose<WIDTH * 2>(block);
    }
}

// The sum of each vector of a block, one a lane; within a vector lanes are added pairwise, as `sum` does.
template <int WIDTH = LANES / 2> __attribute__((always_inline)) inline Vec sums(Vec (&block)[LANES]) {
    using Lanes = Shuffle<std::make_integer_sequence<int, LANES>>;
    if constexpr (WIDTH == 0) {
        return block[0];
    } else {
#pragma GCC unroll 16
        for (int i = 0; i < WIDTH; i++)
            block[i] = Lanes::template low<WIDTH>(block[i], block[i + WIDTH]) +
                       Lanes::template high<WIDTH>(block[i], block[i + WIDTH]);
        return sums<WIDTH / 2>(block);
    }
}

// The first `count` numbers from memory, converted; 0 in the other lanes.
template <class Stored> inline Vec load_first(const Stored* from, int64_t count) {
    Real lanes[LANES] = {};
    for (int64_t i = 0; i < smaller(count, LANES); i++) lanes[i] = to_real(from[i]);
    return load(lanes);
}
template <> inline Vec load_first<Real>(const Real* from, int64_t count) {
    if (count >= LANES) return load(from);
    Real lanes[LANES] = {};
    std::memcpy(lanes, from, count * sizeof(Real));
    return load(lanes);
}

// The opposite.
template <class Stored> inline void store_first_as(Stored* to, Vec x, int64_t count) {
    Real lanes[LANES];
    store(lanes, x);
    for (int64_t i = 0; i < smaller(count, LANES); i++) to[i] = to_stored<Stored>(lanes[i]);
}
template <> inline void store_first_as<Real>(Real* to, Vec x, int64_t count) { store_first(to, x, count); }

}  // namespace san
