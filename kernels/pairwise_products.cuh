// Small matrix products by a block of WARPS warps, on rows that lie in shared memory: for 16-bit types on the tensor
// cores, for float by FFMA on small tiles of registers.
//
// Rows are PAD numbers longer than what is in them, which keeps ldmatrix and vector loads free of bank conflicts.
#pragma once
#include "common.cuh"

__device__ constexpr int round_up(int x, int step) { return (x + step - 1) / step * step; }

// How a type is multiplied: inner dimensions are multiples of STEP.
template <typename T>
struct Multiplier {
  static constexpr int STEP = 16, PAD = 8;  // 16 bytes more: rows start at odd multiples of 16 bytes
};
template <>
struct Multiplier<float> {
  static constexpr int STEP = 8, PAD = 4;
};

// A template, so that a card which cannot do it refuses the kernels that use it, and no others.
template <typename T>
__device__ __forceinline__ void multiply(float d[4], const unsigned a[4], const unsigned b[2], T type) {
  mma_m16n8k16(d, a, b, type);
}
#if __CUDA_ARCH__ < 800  // sm_75 takes half of the inner dimension at a time
template <>
__device__ __forceinline__ void multiply(float d[4], const unsigned a[4], const unsigned b[2], __half type) {
  mma_m16n8k8(d, a, b[0], type);
  mma_m16n8k8(d, a + 2, b[1], type);
}
#endif

// Two neighbours of a row, as one.
template <typename T>
__device__ __forceinline__ void store_pair(T* address, float x, float y) {
  const float pair[2] = {x, y};
  store<2>(address, pair);
}

// The gradients of two neighbours, through a ReLU that made them.
template <typename T>
__device__ __forceinline__ void relu_backward(const T* made, float& x, float& y) {
  float pair[2];
  load<2>(made, pair);
  x = pair[0] <= 0 ? 0 : x;
  y = pair[1] <= 0 ? 0 : y;
}

// A matrix [ROWS, N] that the block holds in registers: rows in shared memory times a packed matrix (pair_pack).
// `each` visits what a thread has of it, two neighbours of a row at a time: f(row, column, x, y).
template <typename T, int ROWS, int N, int WARPS>
struct Tile {
  static constexpr int DOWN = ROWS / 16, ACROSS = WARPS / DOWN, EACH = (N / 8 + ACROSS - 1) / ACROSS;
  static_assert(ROWS % 16 == 0 && WARPS % DOWN == 0 && N % 8 == 0, "tiles of 16 x 8");
  float x[EACH][4];

  template <typename F>
  __device__ __forceinline__ void each(F f) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, row = warp % DOWN * 16 + lane / 4;
#pragma unroll
    for (int e = 0; e < EACH; ++e) {
      const int n = warp / DOWN + e * ACROSS, column = n * 8 + lane % 4 * 2;
      if (n >= N / 8) break;
      f(row, column, x[e][0], x[e][1]);
      f(row + 8, column, x[e][2], x[e][3]);
    }
  }
  template <int K>
  __device__ __forceinline__ void add_product(const T* rows, const T* __restrict__ packed) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const T* row = rows + (warp % DOWN * 16 + lane % 16) * (K + Multiplier<T>::PAD) + lane / 16 * 8;
#pragma unroll 2
    for (int k = 0; k < K / 16; ++k) {
      unsigned a[4];
      ldmatrix_x4(a, row + k * 16);
#pragma unroll
      for (int e = 0; e < EACH; ++e) {
        const int n = warp / DOWN + e * ACROSS;
        if (n >= N / 8) break;
        const T* fragment = packed + ((n * (K / 16) + k) * WARP + lane) * 4;
        const Vector<unsigned, 2> b = load_vector<2>(reinterpret_cast<const unsigned*>(fragment));
        multiply(x[e], a, b.value, T());
      }
    }
  }
  __device__ __forceinline__ void clear() {
    each([](int, int, float& x, float& y) { x = y = 0; });
  }
  __device__ __forceinline__ void add(const Tile& other) {
#pragma unroll
    for (int e = 0; e < EACH; ++e)
#pragma unroll
      for (int i = 0; i < 4; ++i) x[e][i] += other.x[e][i];
  }
};

template <int ROWS, int N, int WARPS>
struct Tile<float, ROWS, N, WARPS> {
  static constexpr int THREADS = WARPS * WARP;
  static constexpr int TALL = N >= 64 ? 4 : N >= 24 ? 2 : 1, QUADS = N / 4;
  static constexpr int UNITS = ROWS / TALL * QUADS, EACH = (UNITS + THREADS - 1) / THREADS;
  static_assert(ROWS % TALL == 0 && N % 4 == 0, "tiles of TALL x 4");
  float x[EACH][TALL][4];

  template <typename F>
  __device__ __forceinline__ void each(F f) {
#pragma unroll
    for (int e = 0; e < EACH; ++e) {
      const int unit = threadIdx.x + e * THREADS, row = unit / QUADS * TALL, column = unit % QUADS * 4;
      if (unit >= UNITS) break;
#pragma unroll
      for (int i = 0; i < TALL; ++i) {
        f(row + i, column, x[e][i][0], x[e][i][1]);
        f(row + i, column + 2, x[e][i][2], x[e][i][3]);
      }
    }
  }
  template <int K>
  __device__ __forceinline__ void add_product(const float* rows, const float* __restrict__ packed) {
#pragma unroll
    for (int e = 0; e < EACH; ++e) {
      const int unit = threadIdx.x + e * THREADS;
      if (unit >= UNITS) break;
      const float* row = rows + unit / QUADS * TALL * (K + Multiplier<float>::PAD);
      const float* column = packed + unit % QUADS * 4;
#pragma unroll 1
      for (int k = 0; k < K; k += 4) {
        float a[TALL][4];
#pragma unroll
        for (int i = 0; i < TALL; ++i) load<4>(row + i * (K + Multiplier<float>::PAD) + k, a[i]);
#pragma unroll
        for (int m = 0; m < 4; ++m) {
          float b[4];
          load<4>(column + (k + m) * N, b);
#pragma unroll
          for (int i = 0; i < TALL; ++i)
#pragma unroll
            for (int c = 0; c < 4; ++c) x[e][i][c] += a[i][m] * b[c];
        }
      }
    }
  }
  __device__ __forceinline__ void clear() {
    each([](int, int, float& x, float& y) { x = y = 0; });
  }
  __device__ __forceinline__ void add(const Tile& other) {
#pragma unroll
    for (int e = 0; e < EACH; ++e)
#pragma unroll
      for (int i = 0; i < TALL; ++i)
#pragma unroll
        for (int c = 0; c < 4; ++c) x[e][i][c] += other.x[e][i][c];
  }
};

// The greatest power of two that is not above x.
__device__ constexpr int power_below(int x) { return x < 2 ? 1 : 2 * power_below(x / 2); }
__device__ constexpr int smaller(int x, int y) { return x < y ? x : y; }

// Sums over rows of left[row] x right[row], a matrix [M, N] that the block holds in registers. Where it is small, SPLIT
// parts of the block take a part of the rows each; `write` adds them in their order.
template <typename T, int ROWS, int M, int N, int WARPS>
struct Outer {
  static constexpr int DOWN = M / 16, UNITS = DOWN * (N / 16), STEPS = ROWS / 16;
  static constexpr int SPLIT = power_below(smaller(STEPS, WARPS / UNITS)), EACH = (UNITS * SPLIT + WARPS - 1) / WARPS;
  static constexpr int LEFT = M + Multiplier<T>::PAD, RIGHT = N + Multiplier<T>::PAD;
  static_assert(M % 16 == 0 && N % 16 == 0 && ROWS % 16 == 0, "units of 16 x 16");
  float x[EACH][8];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int e = 0; e < EACH; ++e)
#pragma unroll
      for (int i = 0; i < 8; ++i) x[e][i] = 0;
  }
  __device__ __forceinline__ void add(const T* left, const T* right) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    left += (lane % 8 + lane / 16 * 8) * LEFT + lane / 8 % 2 * 8;
    right += (lane % 8 + lane / 8 % 2 * 8) * RIGHT + lane / 16 * 8;
#pragma unroll
    for (int e = 0; e < EACH; ++e) {
      const int unit = warp + e * WARPS, tile = SPLIT == 1 ? unit : unit % UNITS;
      if (unit >= UNITS * SPLIT) break;
#pragma unroll 1  // or the fragments of all units would be loaded ahead, into registers that are not there
      for (int step = SPLIT == 1 ? 0 : unit / UNITS; step < STEPS; step += SPLIT) {
        unsigned a[4], b[4];
        ldmatrix_x4_trans(a, left + step * 16 * LEFT + tile % DOWN * 16);
        ldmatrix_x4_trans(b, right + step * 16 * RIGHT + tile / DOWN * 16);
        multiply(x[e], a, b, T());
        multiply(x[e] + 4, a, b + 2, T());
      }
    }
  }
  // f(split, row, column, x) for each number that a thread has.
  template <typename F>
  __device__ __forceinline__ void each(F f) const {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
#pragma unroll
    for (int e = 0; e < EACH; ++e) {
      const int unit = warp + e * WARPS, tile = SPLIT == 1 ? unit : unit % UNITS;
      if (unit >= UNITS * SPLIT) break;
      const int row = tile % DOWN * 16 + lane / 4, column = tile / DOWN * 16 + lane % 4 * 2;
#pragma unroll
      for (int i = 0; i < 8; ++i)
        f(SPLIT == 1 ? 0 : unit / UNITS, row + i / 2 % 2 * 8, column + i % 2 + i / 4 * 8, x[e][i]);
    }
  }
};

template <int ROWS, int M, int N, int WARPS>
struct Outer<float, ROWS, M, N, WARPS> {
  static constexpr int THREADS = WARPS * WARP;
  static constexpr int ACROSS = N / 4, UNITS = M / 4 * ACROSS;
  static constexpr int SPLIT = power_below(smaller(ROWS / 4, THREADS / UNITS));
  static constexpr int EACH = (UNITS * SPLIT + THREADS - 1) / THREADS;
  static constexpr int LEFT = M + Multiplier<float>::PAD, RIGHT = N + Multiplier<float>::PAD;
  static_assert(M % 4 == 0 && N % 4 == 0 && ROWS % 4 == 0, "units of 4 x 4");
  float x[EACH][4][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int e = 0; e < EACH; ++e)
#pragma unroll
      for (int i = 0; i < 16; ++i) x[e][i / 4][i % 4] = 0;
  }
  __device__ __forceinline__ void add(const float* left, const float* right) {
#pragma unroll
    for (int e = 0; e < EACH; ++e) {
      const int unit = threadIdx.x + e * THREADS, tile = SPLIT == 1 ? unit : unit % UNITS;
      if (unit >= UNITS * SPLIT) break;
#pragma unroll 1
      for (int row = SPLIT == 1 ? 0 : unit / UNITS; row < ROWS; row += SPLIT) {
        float a[4], b[4];
        load<4>(left + row * LEFT + tile / ACROSS * 4, a);
        load<4>(right + row * RIGHT + tile % ACROSS * 4, b);
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
          for (int c = 0; c < 4; ++c) x[e][i][c] += a[i] * b[c];
      }
    }
  }
  template <typename F>
  __device__ __forceinline__ void each(F f) const {
#pragma unroll
    for (int e = 0; e < EACH; ++e) {
      const int unit = threadIdx.x + e * THREADS, tile = SPLIT == 1 ? unit : unit % UNITS;
      if (unit >= UNITS * SPLIT) break;
#pragma unroll
      for (int i = 0; i < 16; ++i)
        f(SPLIT == 1 ? 0 : unit / UNITS, tile / ACROSS * 4 + i / 4, tile % ACROSS * 4 + i % 4, x[e][i / 4][i % 4]);
    }
  }
};

// Writes sums [M, N]; `room` is shared memory of BYTES, for as many where the block has them in parts.
template <int BYTES, typename T, int ROWS, int M, int N, int WARPS>
__device__ void write(const Outer<T, ROWS, M, N, WARPS>& sums, float* room, float* __restrict__ to) {
  constexpr int SPLIT = Outer<T, ROWS, M, N, WARPS>::SPLIT;
  static_assert(SPLIT == 1 || M * N * sizeof(float) <= BYTES, "no room for the sum of the parts");
  if constexpr (SPLIT == 1) {
    sums.each([=](int, int row, int column, float x) { to[row * N + column] = x; });
  } else {
    for (int part = 0; part < SPLIT; ++part) {
      __syncthreads();
      sums.each([=](int split, int row, int column, float x) {
        if (split == part) room[row * N + column] = part ? room[row * N + column] + x : x;
      });
    }
    __syncthreads();
    for (int at = threadIdx.x; at < M * N; at += WARPS * WARP) to[at] = room[at];
    __syncthreads();
  }
}
