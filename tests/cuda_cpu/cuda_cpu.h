// Runs the unmodified kernels of kernels/*.cu on the CPU, for tests: what CUDA's language and headers give them.
//
// tests/emulator.py puts this in front of a source, adds SAN_KERNEL(one instantiation) behind it, and compiles.
// Not seen here: bank conflicts, registers, caches, memory order between blocks, asynchronous copies.
#pragma once
#include "entry.h"
#include "math_functions.h"
#include "warp.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __constant__ static const
#define __CUDA_ARCH__ 900

#define threadIdx (cpu::machine->now->thread)
#define blockIdx (cpu::machine->block)
#define blockDim (cpu::machine->block_size)
#define gridDim (cpu::machine->grid_size)
#define SHARED(name) unsigned char* const name = cpu::machine->shared
#define CHECK_ALIGNED(address, bytes) \
  if (reinterpret_cast<uintptr_t>(address) % (bytes)) cpu::fail("misaligned vector")

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

inline float2 __half22float2(__half2 a) { return {__half2float(a.x), __half2float(a.y)}; }
inline float2 __bfloat1622float2(__nv_bfloat162 a) { return {__bfloat162float(a.x), __bfloat162float(a.y)}; }
inline __half2 __float22half2_rn(float2 a) { return __floats2half2_rn(a.x, a.y); }
inline __nv_bfloat162 __float22bfloat162_rn(float2 a) { return __floats2bfloat162_rn(a.x, a.y); }

template <typename T>
inline T __ldg(const T* address) {
  CHECK_ALIGNED(address, alignof(T));
  return *address;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
