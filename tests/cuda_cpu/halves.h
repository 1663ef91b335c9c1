// half and bfloat16 with the rounding of the hardware (to nearest, ties to even), and the usual intrinsics.
#pragma once
#include <cstdint>
#include <cstring>

struct __half {
  uint16_t bits;
};
struct __nv_bfloat16 {
  uint16_t bits;
};
struct alignas(4) __half2 {
  __half x, y;
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};

inline float __uint_as_float(unsigned bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}
inline unsigned __float_as_uint(float x) {
  unsigned bits;
  memcpy(&bits, &x, 4);
  return bits;
}
inline float __int_as_float(int bits) { return __uint_as_float(static_cast<unsigned>(bits)); }
inline int __float_as_int(float x) { return static_cast<int>(__float_as_uint(x)); }

inline float __bfloat162float(__nv_bfloat16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }

inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  const unsigned bits = __float_as_uint(x);
  if (x != x) return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

inline float __half2float(__half x) {
  const unsigned sign = (x.bits & 0x8000u) << 16, exponent = x.bits >> 10 & 31, fraction = x.bits & 0x3ffu;
  if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | fraction << 13);
  if (exponent) return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
  const float small = static_cast<float>(fraction) * 0x1p-24f;  // zero and subnormal numbers
  return sign ? -small : small;
}

inline __half __float2half_rn(float x) {
  const unsigned bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
  if (x != x) return {0x7fff};
  if (size >= 0x47800000u) return {static_cast<uint16_t>(sign | 0x7c00u)};  // 65536 and more
  if (size < 0x38800000u) {  // subnormal: a float rounds at the same place beside 0.5
    const float aligned = __uint_as_float(size) + 0.5f;
    return {static_cast<uint16_t>(sign | (__float_as_uint(aligned) - 0x3f000000u))};
  }
  const unsigned rounded = size + 0xfff + (size >> 13 & 1);
  return {static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13))};
}

// double to float, to odd where it is not exact: rounded a second time to 16 bits, it is rounded right.
inline float __to_odd(double x) {
  float y = static_cast<float>(x);
  unsigned bits = __float_as_uint(y);
  if (x != x || static_cast<double>(y) == x || bits & 1) return y;
  const double size = x < 0 ? -x : x, made = y < 0 ? -static_cast<double>(y) : static_cast<double>(y);
  return __uint_as_float(made < size ? bits + 1 : bits - 1);
}

#define SAN_HALVES(T, T2, NAME, FROM, TO)                                                                     \
  inline T __##FROM(float x) { return __##FROM##_rn(x); }                                                     \
  inline T __hadd(T a, T b) { return __##FROM(__to_odd(static_cast<double>(__##TO(a)) + __##TO(b))); }        \
  inline T __hsub(T a, T b) { return __##FROM(__to_odd(static_cast<double>(__##TO(a)) - __##TO(b))); }        \
  inline T __hmul(T a, T b) { return __##FROM(__to_odd(static_cast<double>(__##TO(a)) * __##TO(b))); }        \
  inline T __hfma(T a, T b, T c) {                                                                            \
    return __##FROM(__to_odd(static_cast<double>(__##TO(a)) * __##TO(b) + __##TO(c)));                        \
  }                                                                                                           \
  inline T __hneg(T a) { return {static_cast<uint16_t>(a.bits ^ 0x8000)}; }                                   \
  inline T __hmax(T a, T b) { return __##TO(a) != __##TO(a) || __##TO(a) < __##TO(b) ? b : a; }               \
  inline T __hmin(T a, T b) { return __##TO(a) != __##TO(a) || __##TO(b) < __##TO(a) ? b : a; }               \
  inline bool __hgt(T a, T b) { return __##TO(a) > __##TO(b); }                                               \
  inline bool __hlt(T a, T b) { return __##TO(a) < __##TO(b); }                                               \
  inline T2 __hadd2(T2 a, T2 b) { return {__hadd(a.x, b.x), __hadd(a.y, b.y)}; }                              \
  inline T2 __hsub2(T2 a, T2 b) { return {__hsub(a.x, b.x), __hsub(a.y, b.y)}; }                              \
  inline T2 __hmul2(T2 a, T2 b) { return {__hmul(a.x, b.x), __hmul(a.y, b.y)}; }                              \
  inline T2 __hfma2(T2 a, T2 b, T2 c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }              \
  inline T2 __hmax2(T2 a, T2 b) { return {__hmax(a.x, b.x), __hmax(a.y, b.y)}; }                              \
  inline T2 __hmin2(T2 a, T2 b) { return {__hmin(a.x, b.x), __hmin(a.y, b.y)}; }                              \
  inline T2 __halves2##NAME##2(T a, T b) { return {a, b}; }                                                   \
  inline T2 __##NAME##2##NAME##2(T a) { return {a, a}; }                                                      \
  inline T2 __float2##NAME##2_rn(float a) { return {__##FROM(a), __##FROM(a)}; }                              \
  inline T2 __floats2##NAME##2_rn(float a, float b) { return {__##FROM(a), __##FROM(b)}; }                    \
  inline T __low2##NAME(T2 a) { return a.x; }                                                                 \
  inline T __high2##NAME(T2 a) { return a.y; }                                                                \
  inline float __low2float(T2 a) { return __##TO(a.x); }                                                      \
  inline float __high2float(T2 a) { return __##TO(a.y); }                                                     \
  inline T __ushort_as_##NAME(unsigned short a) { return {a}; }                                               \
  inline unsigned short __##NAME##_as_ushort(T a) { return a.bits; }

SAN_HALVES(__half, __half2, half, float2half, half2float)
SAN_HALVES(__nv_bfloat16, __nv_bfloat162, bfloat16, float2bfloat16, bfloat162float)
#undef SAN_HALVES
