// Squares of a map in shared memory, with the border that footprints reach into, for the tiled patchwise kernels.
#pragma once
#include "common.cuh"

// The step from pixel to pixel of a tile of N numbers each: an odd number of 16 bytes, so that no two of eight
// neighbours share a bank.
template <typename T, int N>
constexpr int ODD_PITCH = ((N * sizeof(T) + 15) / 16 | 1) * 16 / sizeof(T);

// A square of SIDE x SIDE pixels of an image: the one of this block, counted along the image's lines.
struct Square {
  long long image;
  int top, left;
};

template <int SIDE>
__device__ __forceinline__ Square square(int index, int height, int width) {
  const int across = (width + SIDE - 1) / SIDE, count = across * ((height + SIDE - 1) / SIDE);
  return {index / count, index % count / across * SIDE, index % count % across * SIDE};
}

// Never swallows what is not a number.
template <typename A>
__device__ __forceinline__ A relu(A x) {
  return x < 0 ? A(0) : x;
}

// N numbers that lie together, aligned as one or to 16 bytes, in as few moves as there can be.
template <typename T, int N>
constexpr int AT_ONCE = N * sizeof(T) <= 16 ? N : 16 / sizeof(T);

template <int N, typename T>
__device__ __forceinline__ void load_all(const T* address, typename Accumulator<T>::type (&out)[N]) {
  constexpr int V = AT_ONCE<T, N>;
#pragma unroll
  for (int i = 0; i < N; i += V) {
    const Vector<T, V> x = load_vector<V>(address + i);
#pragma unroll
    for (int j = 0; j < V; ++j) out[i + j] = to_accumulator(x.value[j]);
  }
}
template <int N, typename T>
__device__ __forceinline__ void store_all(T* address, const typename Accumulator<T>::type (&x)[N]) {
  constexpr int V = AT_ONCE<T, N>;
#pragma unroll
  for (int i = 0; i < N; i += V) {
    Vector<T, V> out;
#pragma unroll
    for (int j = 0; j < V; ++j) out.value[j] = from_accumulator<T>(x[i + j]);
    store_vector<V>(address + i, out);
  }
}

// What lies outside of a map: its reflection, or nothing, 0.
enum Border { REFLECTED, ZERO };

// CHANNELS channels of HEIGHT x WIDTH pixels, from (top, left) on, which may lie outside, into `tile`
// [HEIGHT * WIDTH, PITCH], of the type of sums or as they are. `map` is the first of these channels of the image.
// Behind the reach of the last footprint nothing is read: 0.
template <typename T, typename S, int HEIGHT, int WIDTH, int CHANNELS, int PITCH, int REACH, Border BORDER>
__device__ __forceinline__ void load_tile(S* tile, const T* __restrict__ map, int stride, int top, int left,
                                          int height, int width) {
  constexpr int V = AT_ONCE<T, CHANNELS>, PARTS = CHANNELS / V;
  for (int i = threadIdx.x; i < HEIGHT * WIDTH * PARTS; i += blockDim.x) {
    const int part = i % PARTS, pixel = i / PARTS;
    int y = top + pixel / WIDTH, x = left + pixel % WIDTH;
    bool inside = y >= 0 && y < height && x >= 0 && x < width;
    if (BORDER == REFLECTED && !inside) {
      inside = y < height + REACH && x < width + REACH;
      y = reflect(y, height), x = reflect(x, width);
    }
    Vector<T, V> from;
    if (inside) {
      from = load_vector<V>(map + (y * width + x) * stride + part * V);
    } else {
#pragma unroll
      for (int j = 0; j < V; ++j) from.value[j] = from_accumulator<T>(0);
    }
    S* to = tile + pixel * PITCH + part * V;
    if constexpr (sizeof(S) == sizeof(T)) {
      store_vector<V>(to, from);
    } else {
#pragma unroll
      for (int j = 0; j < V; ++j) to[j] = to_accumulator(from.value[j]);
    }
  }
}

// Where along one axis the pixel lies that sees position i at offset o (0 to K - 1), in a map wider than the reach:
// straight through, or in the border's reflection, which is the near one's before the middle offset and the far one's
// behind it. OUTSIDE: nowhere.
constexpr int OUTSIDE = -0x10000;

template <int REACH>
__device__ __forceinline__ int straight(int i, int o) {
  return i - o + REACH;  // what lies outside of the map is 0 in its tile
}
template <int REACH>
__device__ __forceinline__ int mirrored(int i, int o, int size) {
  const bool is_near = o < REACH;
  const int place = (is_near ? -i : 2 * (size - 1) - i) - o + REACH;
  return (is_near ? i >= 1 : i <= size - 2) && place >= 0 && place < size ? place : OUTSIDE;
}

// Whether any of the positions from `first` to `last` can have a mirrored place at offset o.
template <int REACH>
__device__ __forceinline__ bool can_mirror(int first, int last, int o, int size) {
  return o < REACH ? first <= REACH : o > REACH && last >= size - 1 - REACH;
}
