// Vectors as wide as the compiler's flags allow: one source for AVX-512, AVX2 and every other processor.
//
// Real is what is computed in, float or (-DSAN_REAL=double) double. Maps in memory are Real or BFloat16.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#ifndef SAN_REAL
#define SAN_REAL float
#endif

namespace san {

using Real = SAN_REAL;

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
constexpr bool MANY_REGISTERS = true;  // 32 of them
#elif defined(__AVX2__)
constexpr int VECTOR_BYTES = 32;
constexpr bool MANY_REGISTERS = false;  // 16
#else
constexpr int VECTOR_BYTES = 16;
constexpr bool MANY_REGISTERS = false;
#endif

constexpr int LANES = VECTOR_BYTES / sizeof(Real);

typedef Real Vec __attribute__((vector_size(VECTOR_BYTES)));
typedef Real VecAnywhere __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(Real)), may_alias));

inline Vec load(const Real* from) { return *reinterpret_cast<const VecAnywhere*>(from); }
inline void store(Real* to, Vec x) { *reinterpret_cast<VecAnywhere*>(to) = x; }
inline Vec broadcast(Real x) { return x - Vec{}; }
inline Vec relu(Vec x) { return Vec{} > x ? Vec{} : x; }  // in this order NaN stays NaN

template <int BYTES> struct VecOf {
    typedef Real Type __attribute__((vector_size(BYTES)));
};

// The two halves are added until one number is left: half the error of one after the other, and the same for every
// compiler.
template <class V> inline Real sum(V x) {
    if constexpr (sizeof(V) == 2 * sizeof(Real)) {
        return x[0] + x[1];
    } else {
        typename VecOf<sizeof(V) / 2>::Type halves[2];
        std::memcpy(halves, &x, sizeof x);
        return sum(halves[0] + halves[1]);
    }
}

// x, which the compiler then keeps in a register: otherwise it reads a vector again for each product with it, and
// reading is what a core does least of.
inline Vec in_register(Vec x) {
#if defined(__x86_64__)
    asm("" : "+v"(x));
#endif
    return x;
}

// The first `count` lanes of x, 0 in the others.
inline Vec first_lanes(Vec x, int64_t count) {
    if (count >= LANES) return x;
    Real lanes[LANES] = {};
    std::memcpy(lanes, &x, count * sizeof(Real));
    return load(lanes);
}

inline void store_first(Real* to, Vec x, int64_t count) {
    if (count >= LANES)
        store(to, x);
    else
        std::memcpy(to, &x, count * sizeof(Real));
}

// How many lanes of a vector count: all of them, which the compiler then knows, or the first few.
struct Whole {};
struct First {
    int64_t count;
};
inline Vec first_lanes(Vec x, Whole) { return x; }
inline Vec first_lanes(Vec x, First lanes) { return first_lanes(x, lanes.count); }
inline void store_first(Real* to, Vec x, Whole) { store(to, x); }
inline void store_first(Real* to, Vec x, First lanes) { std::memcpy(to, &x, lanes.count * sizeof(Real)); }

// Calls work(p, lanes) for each vector of `count` numbers.
template <class Work> inline void each_vector(int64_t count, Work work) {
    int64_t p = 0;
    for (; p + LANES <= count; p += LANES) work(p, Whole{});
    if (p < count) work(p, First{count - p});
}

struct BFloat16 {
    uint16_t bits;
};

inline Real to_real(Real x) { return x; }
inline Real to_real(BFloat16 x) {
    uint32_t wide = uint32_t(x.bits) << 16;
    float value;
    std::memcpy(&value, &wide, sizeof value);
    return value;
}

template <class Stored> Stored to_stored(Real x);
template <> inline Real to_stored<Real>(Real x) { return x; }
template <> inline BFloat16 to_stored<BFloat16>(Real x) {
    float value = float(x);
    uint32_t wide;
    std::memcpy(&wide, &value, sizeof wide);
    if (value != value) return {uint16_t((wide >> 16) | 0x40)};        // NaN stays NaN
    return {uint16_t((wide + 0x7fff + ((wide >> 16) & 1)) >> 16)};  // to nearest, ties to even
}

}  // namespace san
