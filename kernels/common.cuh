// What every CUDA kernel here is made of: types, loads and stores, reflection, sums over a warp, tensor cores.
//
// The same text compiles for a GPU (NVRTC) and, with SAN_CPU, for the CPU of the tests (tests/cuda_cpu/).
// Inline PTX stands here and nowhere else; each piece has a CPU body there.
#pragma once
#ifdef SAN_CPU
#include "cuda_cpu.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>

// The block's dynamic shared memory, as bytes.
#define SHARED(name) extern __shared__ __align__(16) unsigned char name[]
// A GPU stops at a misaligned vector by itself; the CPU has to be told to.
#define CHECK_ALIGNED(address, bytes)

// Four 8x8 matrices of 16-bit numbers out of shared memory. Lane 8 m + r names row r of matrix m, 16 bytes,
// aligned; out[m] holds numbers 2 (lane % 4) and the next of row lane / 4.
__device__ __forceinline__ void ldmatrix_x4(unsigned out[4], const void* row) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(address)
               : "memory");
}

// The same with each matrix transposed: out[m] holds numbers lane / 4 of rows 2 (lane % 4) and the next.
__device__ __forceinline__ void ldmatrix_x4_trans(unsigned out[4], const void* row) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(address)
               : "memory");
}

// d += a b, for a [16, 16] and b [16, 8] of 16-bit numbers that the lanes of a warp hold together, with
// g = lane / 4 and t = 2 (lane % 4), two numbers a register:
//   a: (g, t), (g + 8, t), (g, t + 8), (g + 8, t + 8) along a row    b: (t, g), (t + 8, g) down a column
//   d: (g, t), (g, t + 1), (g + 8, t), (g + 8, t + 1)
// Templates, so that a card which cannot do it refuses the kernels that use it, and no others.
template <int Architecture = __CUDA_ARCH__>
__device__ __forceinline__ void mma_m16n8k16(float d[4], const unsigned a[4], const unsigned b[2], __half) {
  static_assert(Architecture >= 800, "mma.m16n8k16 needs sm_80");
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

template <int Architecture = __CUDA_ARCH__>
__device__ __forceinline__ void mma_m16n8k16(float d[4], const unsigned a[4], const unsigned b[2], __nv_bfloat16) {
  static_assert(Architecture >= 800, "bfloat16 mma.m16n8k16 needs sm_80");
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// d += a b, for a [16, 8] and b [8, 8]: the halves above with no + 8 along the inner dimension. From sm_75 on.
__device__ __forceinline__ void mma_m16n8k8(float d[4], const unsigned a[2], unsigned b, __half) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b));
}
#endif

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

// The type that sums are kept in.
template <typename T>
struct Accumulator {
  using type = float;
};
template <>
struct Accumulator<double> {
  using type = double;
};

__device__ __forceinline__ float to_accumulator(float x) { return x; }
__device__ __forceinline__ double to_accumulator(double x) { return x; }
__device__ __forceinline__ float to_accumulator(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_accumulator(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T>
__device__ __forceinline__ T from_accumulator(typename Accumulator<T>::type x);
template <>
__device__ __forceinline__ float from_accumulator<float>(float x) { return x; }
template <>
__device__ __forceinline__ double from_accumulator<double>(double x) { return x; }
template <>
__device__ __forceinline__ __half from_accumulator<__half>(float x) { return __float2half_rn(x); }
template <>
__device__ __forceinline__ __nv_bfloat16 from_accumulator<__nv_bfloat16>(float x) { return __float2bfloat16_rn(x); }

// V numbers that are moved as one; a GPU moves up to 16 bytes so.
template <typename T, int V>
struct alignas(sizeof(T) * V) Vector {
  static_assert(sizeof(T) * V <= 16 && (V & (V - 1)) == 0, "1, 2, 4 or 8 numbers in up to 16 bytes");
  T value[V];
};

// V numbers from `address`, which lies at a multiple of their size.
template <int V, typename T>
__device__ __forceinline__ Vector<T, V> load_vector(const T* address) {
  CHECK_ALIGNED(address, sizeof(T) * V);
  return *reinterpret_cast<const Vector<T, V>*>(address);
}

template <int V, typename T>
__device__ __forceinline__ void store_vector(T* address, const Vector<T, V>& x) {
  CHECK_ALIGNED(address, sizeof(T) * V);
  *reinterpret_cast<Vector<T, V>*>(address) = x;
}

// The same in the type of sums.
template <int V, typename T>
__device__ __forceinline__ void load(const T* address, typename Accumulator<T>::type (&out)[V]) {
  const Vector<T, V> x = load_vector<V>(address);
#pragma unroll
  for (int i = 0; i < V; ++i) out[i] = to_accumulator(x.value[i]);
}

template <int V, typename T>
__device__ __forceinline__ void store(T* address, const typename Accumulator<T>::type (&x)[V]) {
  Vector<T, V> out;
#pragma unroll
  for (int i = 0; i < V; ++i) out.value[i] = from_accumulator<T>(x[i]);
  store_vector<V>(address, out);
}

// The index inside [0, size) that a reflected border shows, however far outside i lies.
__device__ __forceinline__ int reflect(int i, int size) {
  i = i < 0 ? -i : i;
  if (i < size) return i;
  i = 2 * (size - 1) - i;
  if (i >= 0) return i;  // most often: one bounce costs no division
  if (size == 1) return 0;
  i = -i % (2 * (size - 1));
  return i < size ? i : 2 * (size - 1) - i;
}

// The places where a reflected border shows index i are i and -i, plus multiples of the period: a backward pass
// gathers from them. This is the first from -reach on; size - 1 + reach is the last that a footprint reaches.
__device__ __forceinline__ int first_preimage(int i, int size, int reach) {
  if (size == 1) return -reach;
  const int period = 2 * (size - 1);
  const int to_copy = (i + reach) % period, to_mirrored = ((reach - i) % period + period) % period;
  return (to_copy < to_mirrored ? to_copy : to_mirrored) - reach;
}

// The one behind `place`, which is one.
__device__ __forceinline__ int next_preimage(int place, int i, int size) {
  if (size == 1) return place + 1;
  const int period = 2 * (size - 1);
  const bool is_copy = (place - i) % period == 0;
  const int step = is_copy ? period - 2 * i : 2 * i;
  return place + (step ? step : period);
}

// The sum over a warp, in every lane, always in the same order.
template <typename T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
  for (int distance = WARP / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(ALL_LANES, x, distance);
  return x;
}

template <typename T>
__device__ __forceinline__ T warp_max(T x) {
#pragma unroll
  for (int distance = WARP / 2; distance > 0; distance /= 2) {
    const T other = __shfl_xor_sync(ALL_LANES, x, distance);
    x = other > x ? other : x;
  }
  return x;
}
