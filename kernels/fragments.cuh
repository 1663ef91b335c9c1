// 16-bit numbers in pairs, and products on the tensor cores, as the patchwise kernels need them.
#pragma once
#include "common.cuh"

// The two numbers of a register, the first in its lower half.
template <typename T>
__device__ __forceinline__ float2 unpack(unsigned pair);
template <>
__device__ __forceinline__ float2 unpack<__half>(unsigned pair) {
  return __half22float2(*reinterpret_cast<const __half2*>(&pair));
}
template <>
__device__ __forceinline__ float2 unpack<__nv_bfloat16>(unsigned pair) {
  return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}

template <typename T>
__device__ __forceinline__ unsigned pack(float first, float second);
template <>
__device__ __forceinline__ unsigned pack<__half>(float first, float second) {
  const __half2 pair = __floats2half2_rn(first, second);
  return *reinterpret_cast<const unsigned*>(&pair);
}
template <>
__device__ __forceinline__ unsigned pack<__nv_bfloat16>(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return *reinterpret_cast<const unsigned*>(&pair);
}

// 1 and 1.
template <typename T>
constexpr unsigned ONES = 0x3c003c00u;
template <>
constexpr unsigned ONES<__nv_bfloat16> = 0x3f803f80u;

// All bits of those numbers of a pair that are wanted.
__device__ __forceinline__ unsigned pair_mask(bool first, bool second) {
  return (first ? 0xffffu : 0u) | (second ? 0xffff0000u : 0u);
}

#if !defined(SAN_CPU) && __CUDA_ARCH__ >= 800
__device__ __forceinline__ unsigned packed_max(unsigned pair, __half) {
  const __half2 open = __hmax2_nan(*reinterpret_cast<const __half2*>(&pair), __float2half2_rn(0));
  return *reinterpret_cast<const unsigned*>(&open);
}
__device__ __forceinline__ unsigned packed_max(unsigned pair, __nv_bfloat16) {
  const __nv_bfloat162 open = __hmax2_nan(*reinterpret_cast<const __nv_bfloat162*>(&pair), __float2bfloat162_rn(0));
  return *reinterpret_cast<const unsigned*>(&open);
}
#endif

// relu of both; never swallows what is not a number.
template <typename T>
__device__ __forceinline__ unsigned packed_relu(float first, float second) {
#if defined(SAN_CPU) || __CUDA_ARCH__ < 800
  return pack<T>(first < 0 ? 0.0f : first, second < 0 ? 0.0f : second);
#else
  return packed_max(pack<T>(first, second), T());
#endif
}

// d += a b, [16, 16] times [16, 8], laid out as common.cuh says.
template <typename T>
__device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  mma_m16n8k16(d, a, b, T());
}
#if __CUDA_ARCH__ < 800
template <>
__device__ __forceinline__ void multiply<__half>(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  mma_m16n8k8(d, a, b[0], __half());
  mma_m16n8k8(d, a + 2, b[1], __half());
}
#endif

// b out of a matrix that the host laid out for it: sancli/ops/cuda/fragments.py.
template <typename T>
__device__ __forceinline__ void load_fragment(unsigned (&b)[2], const T* __restrict__ fragments, int index) {
  const Vector<unsigned, 2> x = load_vector<2>(reinterpret_cast<const unsigned*>(fragments) +
                                               (index * WARP + threadIdx.x % WARP) * 2);
  b[0] = x.value[0], b[1] = x.value[1];
}
