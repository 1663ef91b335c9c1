// What attend.cu and attend_hidden.cu share: the last convolution of the weights and the aggregation in one, for 16-bit
// types. The weights exist in registers only, and are made again in the backward passes.
//
//   weight[i, o, g] = bias[o, g] + sum over h of last[o, h, g] * hidden[i, h]
//   out[i, s * G + g] = sum over o of weight[i, o, g] * value[i + o, s * G + g]      s < 8: channels that share a weight
//
//   hidden [N, H * W, G]      value, out [N, H * W, 8 G]      channels last, with a stride from pixel to pixel
//
// A block has a square of 8 x 8 pixels and a slice of 8 groups: blockIdx.y. A warp has four lines of the square, as
// eight quads of four pixels side by side; pixel j of quad q is row q + 8 (j % 2) of product j / 2. So a lane of the
// product (pixels x hidden) (hidden x groups) ends up with the weights of 2 groups for one quad, and what it reads of
// value for one offset serves the next offset too. Sums are in float. GROUPS is G: 8, 16, 32 or 64; a map has to be
// wider than the reach; 16 bytes are aligned in all maps.
#pragma once
#include "fragments.cuh"
#include "patches.cuh"

constexpr int SIDE = 8, PIXELS = SIDE * SIDE, SHARES = 8, SLICE = 8, QUAD = 4, THREADS = 2 * WARP;
constexpr int APART = 8;  // numbers between the pixels of a tile of hidden: no two of eight neighbours share a bank

// hidden in shared memory: 8 channels are filled up to 16 with zeros.
template <int GROUPS>
constexpr int INNER = GROUPS < 16 ? 16 : GROUPS;
template <int GROUPS>
constexpr int PITCH = INNER<GROUPS> + APART;

template <typename T, int GROUPS, int HEIGHT, int WIDTH>
__device__ __forceinline__ void load_hidden(T* tile, const T* __restrict__ hidden, int stride, int top, int left,
                                            int height, int width) {
  constexpr int EMPTY = INNER<GROUPS> - GROUPS;
  load_tile<T, T, HEIGHT, WIDTH, GROUPS, PITCH<GROUPS>, 0, ZERO>(tile, hidden, stride, top, left, height, width);
  if constexpr (EMPTY > 0)
    for (int i = threadIdx.x; i < HEIGHT * WIDTH * EMPTY; i += THREADS)
      tile[i / EMPTY * PITCH<GROUPS> + GROUPS + i % EMPTY] = from_accumulator<T>(0);
}

// Maps with 8 G channels in shared memory: [SHARES, WIDE, LINE, SLICE], with WIDE pixels in a line and an odd LINE, so
// that the eight quads of a warp lie in different banks.
template <int K>
constexpr int WIDE = SIDE + K - 1;
template <int K>
constexpr int LINE = WIDE<K> + 1;
template <int K>
constexpr int SHARE = WIDE<K> * LINE<K> * SLICE;

template <typename T, int K, int GROUPS, Border BORDER>
__device__ __forceinline__ void load_shares(T* tile, const T* __restrict__ map, int stride, const Square& at,
                                            int height, int width) {
  constexpr int REACH = K / 2;
  for (int i = threadIdx.x; i < WIDE<K> * WIDE<K> * SHARES; i += THREADS) {
    const int share = i % SHARES, pixel = i / SHARES;
    int y = at.top + pixel / WIDE<K> - REACH, x = at.left + pixel % WIDE<K> - REACH;
    bool inside = y >= 0 && y < height && x >= 0 && x < width;
    if (BORDER == REFLECTED && !inside) {
      inside = y < height + REACH && x < width + REACH;
      y = reflect(y, height), x = reflect(x, width);
    }
    Vector<unsigned, 4> from = {};
    if (inside)
      from = load_vector<4>(
          reinterpret_cast<const unsigned*>(map + (y * width + x) * stride + share * GROUPS + blockIdx.y * SLICE));
    T* to = tile + share * SHARE<K> + (pixel / WIDE<K> * LINE<K> + pixel % WIDE<K>) * SLICE;
    store_vector<4>(reinterpret_cast<unsigned*>(to), from);
  }
}

// Two channels of a cell.
template <typename T>
__device__ __forceinline__ unsigned load_pair(const T* address) {
  return load_vector<1>(reinterpret_cast<const unsigned*>(address)).value[0];
}

template <typename T>
__device__ __forceinline__ void store_pair(T* address, unsigned pair) {
  store_vector<1>(reinterpret_cast<unsigned*>(address), Vector<unsigned, 1>{pair});
}

// Where row `row` of product m of warp `warp` stands in the square.
struct Place {
  int y, x;
};
__device__ __forceinline__ Place place(int warp, int m, int row) {
  const int quad = row % 8;
  return {warp * QUAD + quad / 2, quad % 2 * QUAD + 2 * m + row / 8};
}
