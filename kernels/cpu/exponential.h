// exp and log of vectors, for softmax. Good to about 1e-7 (double: 2e-16) of the result.
//
// They need no tables and no library, and are the same on every processor. NaN stays NaN.
#pragma once

#include <type_traits>

#include "vector.h"

namespace san {

using Int = std::conditional_t<sizeof(Real) == 8, int64_t, int32_t>;
typedef Int IntVec __attribute__((vector_size(VECTOR_BYTES)));

struct Format {  // of Real: IEEE 754
    static constexpr bool wide = sizeof(Real) == 8;
    static constexpr int fraction_bits = wide ? 52 : 23, bias = wide ? 1023 : 127;
    // exp is 0 below the one, infinite above the other: between them 2^n is a normal number.
    static constexpr Real lowest = wide ? Real(-708.3) : Real(-87.3), highest = wide ? Real(709.0) : Real(88.3);
    // log(2) in two parts, of which the first times any exponent is exact (Cody and Waite).
    static constexpr Real log2_head = wide ? Real(6.93147180369123816490e-01) : Real(0.693145752);
    static constexpr Real log2_tail = wide ? Real(1.90821492927058770002e-10) : Real(1.42860677e-6);
    static constexpr Real to_nearest = wide ? Real(6755399441055744.0) : Real(12582912.0);  // 1.5 * 2^fraction_bits
    static constexpr int degree = wide ? 13 : 7;  // of Taylor's series on [-log(2)/2, log(2)/2]
};

template <int N> constexpr double factorial() {
    if constexpr (N > 1)
        return N * factorial<N - 1>();
    else
        return 1;
}

template <int N = 0> inline Vec exponential_series(Vec x) {
    if constexpr (N == Format::degree)
        return broadcast(Real(1 / factorial<N>()));
    else
        return exponential_series<N + 1>(x) * x + Real(1 / factorial<N>());
}

inline Vec exponential(Vec x) {
    Vec lowest = broadcast(Format::lowest), highest = broadcast(Format::highest);
    Vec inside = x < lowest ? lowest : x > highest ? highest : x;
    Vec shifted = inside * Real(1.44269504088896340736) + Format::to_nearest;
    Vec n = shifted - Format::to_nearest;
    IntVec exponent = (IntVec)shifted - (IntVec)broadcast(Format::to_nearest);
    Vec rest = (inside - n * Format::log2_head) - n * Format::log2_tail;
    Vec power = (Vec)((exponent + Format::bias) << Format::fraction_bits);
    Vec result = exponential_series(rest) * power;
    return x < lowest ? Vec{} : x > highest ? broadcast(Real(INFINITY)) : result;
}

// log of numbers from 1 up, far below the largest: a guess from the exponent, and two steps of Halley's method
// on exp, each of which cubes the error: 0.03, 2e-6, below the last bit.
inline Vec logarithm(Vec x) {
    constexpr Real unit = Real(1) / Real(Int(1) << Format::fraction_bits);
    Vec guess = __builtin_convertvector((IntVec)x, Vec) * unit - Real(Format::bias - 0.043);
    guess *= Real(0.69314718055994530942);
    for (int step = 0; step < 2; step++) {
        Vec ratio = x * exponential(-guess);
        guess += 2 * (ratio - 1) / (ratio + 1);
    }
    return guess;
}

}  // namespace san
