// A tile of pixels with all that its footprints see, in shared memory: what the tiled aggregations stand on.
#pragma once
#include "common.cuh"

constexpr int SHARE = 8;  // channels that share a weight, in every network: channel h * G + g has weight g

// What a thread is to do: PIXELS pixels from (y, x) on, V weight channels from `plane` on.
struct Place {
  long long image;
  int y, x, plane;
  int top, left, first_plane;  // of its block
  int lane;
};

// A block has TILE_ROWS x TILE_COLUMNS pixels and PLANES of the G weight channels, with the SHARE channels of each;
// a thread has PIXELS_ pixels in a row and V_ weight channels. Neighbouring threads have neighbouring weight channels,
// then pixels, then rows. Shared memory is filled FILL numbers at a time; it is PIXEL_STEP vectors of V from pixel to
// pixel and ROW_STEP from row to row, a little more than they need: so that the lanes of a warp meet in no bank.
template <typename T, int K_, int G_, int TILE_ROWS, int TILE_COLUMNS, int PLANES, int PIXELS_, int V_, int FILL,
          int PIXEL_STEP, int ROW_STEP>
struct Window {
  using Type = T;
  using Sum = typename Accumulator<T>::type;
  using Cell = Vector<T, V_>;
  static constexpr int K = K_, G = G_, PIXELS = PIXELS_, V = V_, REACH = K / 2, SEEN = PIXELS + K - 1;
  static constexpr int LANES = PLANES / V, ACROSS = TILE_COLUMNS / PIXELS;
  static constexpr int THREADS = LANES * ACROSS * TILE_ROWS;
  static constexpr int ROWS = TILE_ROWS + K - 1, COLUMNS = TILE_COLUMNS + K - 1;
  static_assert(K % 2 == 1 && G % PLANES == 0 && PLANES % V == 0 && TILE_COLUMNS % PIXELS == 0, "no tile");
  static_assert(PLANES % FILL == 0 && PIXEL_STEP * V % FILL == 0 && ROW_STEP * V % FILL == 0, "misaligned cells");
  static_assert(PIXEL_STEP >= SHARE * LANES && ROW_STEP >= COLUMNS * PIXEL_STEP, "cells would lie on each other");

  // Blocks: chunks of weight channels, then tiles along a row, then rows, then images.
  static __device__ __forceinline__ Place place(int height, int width) {
    constexpr int CHUNKS = G / PLANES;
    const int across = (width + TILE_COLUMNS - 1) / TILE_COLUMNS, down = (height + TILE_ROWS - 1) / TILE_ROWS;
    const int tile = blockIdx.x / CHUNKS, thread = threadIdx.x;
    Place at;
    at.image = tile / across / down;
    at.top = tile / across % down * TILE_ROWS;
    at.left = tile % across * TILE_COLUMNS;
    at.first_plane = blockIdx.x % CHUNKS * PLANES;
    at.lane = thread % LANES;
    at.y = at.top + thread / LANES / ACROSS;
    at.x = at.left + thread / LANES % ACROSS * PIXELS;
    at.plane = at.first_plane + at.lane * V;
    return at;
  }

  // The block's window of `map`: behind the border its reflection, or 0.
  template <bool REFLECTED>
  static __device__ __forceinline__ void fill(Cell* cells, const T* map, int stride, const Place& at, int height,
                                              int width) {
    constexpr int PARTS = PLANES / FILL;
    map += at.image * height * width * stride + at.first_plane;
    for (int i = threadIdx.x; i < ROWS * COLUMNS * SHARE * PARTS; i += THREADS) {
      const int part = i % PARTS * FILL, h = i / PARTS % SHARE, pixel = i / PARTS / SHARE;
      const int row = pixel / COLUMNS, column = pixel % COLUMNS;
      int y = at.top + row - REACH, x = at.left + column - REACH;
      T* cell = reinterpret_cast<T*>(cells + row * ROW_STEP + column * PIXEL_STEP) + h * PLANES + part;
      if (!REFLECTED && (y < 0 || y >= height || x < 0 || x >= width)) {
        store_vector<FILL>(cell, Vector<T, FILL>{});
        continue;
      }
      if (REFLECTED) y = reflect(y, height), x = reflect(x, width);
      store_vector<FILL>(cell, load_vector<FILL>(map + (y * width + x) * stride + h * G + part));
    }
  }

  // Cell `i` from the left of what the thread's first pixel sees, in a row of its window.
  static __device__ __forceinline__ void read(const Cell* cells, const Place& at, int row, int i, int h,
                                              Sum (&out)[V]) {
    const Cell& cell = cells[(at.y - at.top + row) * ROW_STEP + (at.x - at.left + i) * PIXEL_STEP + h * LANES + at.lane];
#pragma unroll
    for (int v = 0; v < V; ++v) out[v] = to_accumulator(cell.value[v]);
  }

  // All of a row that the thread's pixels see.
  static __device__ __forceinline__ void read_row(const Cell* cells, const Place& at, int row, int h,
                                                  Sum (&seen)[SEEN][V]) {
#pragma unroll
    for (int i = 0; i < SEEN; ++i) read(cells, at, row, i, h, seen[i]);
  }

  static __device__ __forceinline__ void write(T* map, int stride, const Place& at, int height, int width,
                                               const Sum (&sum)[SHARE][PIXELS][V]) {
    T* pixel = map + ((at.image * height + at.y) * width + at.x) * stride + at.plane;
#pragma unroll
    for (int p = 0; p < PIXELS; ++p)
      if (at.x + p < width)
#pragma unroll
        for (int h = 0; h < SHARE; ++h) store<V>(pixel + p * stride + h * G, sum[h][p]);
  }

  // Adds what reaches the thread's pixels from each pixel whose footprint sees them, in one of the places where the
  // border shows their row: the gradient there times its weight for them.
  template <bool MIRRORED>
  static __device__ __forceinline__ void gather_rows(const Cell* cells, const T* weight, int stride, const Place& at,
                                                     int height, int width, Sum (&sum)[SHARE][PIXELS][V]) {
    for (int y = first_preimage(at.y, height, REACH); y < height + REACH; y = next_preimage(y, at.y, height))
#pragma unroll 1
      for (int row = 0; row < K; ++row) {
        const int from = y + REACH - row;
        if (from < 0 || from >= height) continue;
        const T* line = weight + from * width * stride + row * K * G;
        if (MIRRORED)
          gather_mirrored(cells, line, stride, at, from + REACH - at.y, width, sum);
        else
          gather(cells, line, stride, at, from + REACH - at.y, width, sum);
      }
  }

  // Whether the border can show one of the thread's pixels elsewhere in their row.
  static __device__ __forceinline__ bool is_near_border(const Place& at, int width) {
    return at.x <= REACH || at.x + PIXELS - 1 >= width - 1 - REACH;
  }

 private:
  // From one row of the window, where the pixels stand themselves.
  static __device__ __forceinline__ void gather(const Cell* cells, const T* line, int stride, const Place& at, int row,
                                                int width, Sum (&sum)[SHARE][PIXELS][V]) {
    Sum factor[PIXELS][K][V] = {};
#pragma unroll
    for (int p = 0; p < PIXELS; ++p)
#pragma unroll
      for (int o = 0; o < K; ++o) {
        const int from = at.x + p + REACH - o;
        if (from >= 0 && from < width) load<V>(line + from * stride + o * G, factor[p][o]);
      }
#pragma unroll
    for (int h = 0; h < SHARE; ++h) {
      Sum seen[SEEN][V];
      read_row(cells, at, row, h, seen);
#pragma unroll
      for (int p = 0; p < PIXELS; ++p)
#pragma unroll
        for (int o = 0; o < K; ++o)
#pragma unroll
          for (int v = 0; v < V; ++v) sum[h][p][v] += factor[p][o][v] * seen[p + K - 1 - o][v];
    }
  }

  // From one row, in the other places that show the pixels: few threads have any. Places are a period apart; where
  // they are `turned`, x stands for shift - x, and the edge itself is no other place.
  static __device__ __forceinline__ void gather_mirrored(const Cell* cells, const T* line, int stride, const Place& at,
                                                         int row, int width, Sum (&sum)[SHARE][PIXELS][V]) {
    const int period = width > 1 ? 2 * (width - 1) : 1;
    const int first = -(REACH + width + period - 2) / period * period;
#pragma unroll 1
    for (int shift = first; shift <= 2 * (width - 1) + REACH; shift += period)
#pragma unroll 1
      for (int turned = shift == 0; turned < 2 && (width > 1 || !turned); ++turned)
#pragma unroll 1
        for (int o = 0; o < K; ++o)
#pragma unroll
          for (int p = 0; p < PIXELS; ++p) {
            const int own = at.x + p, from = (turned ? shift - own : shift + own) + REACH - o;
            const bool is_edge = turned && (own == 0 || own == width - 1);
            if (own < width && !is_edge && from >= 0 && from < width)
              add(cells, line + from * stride + o * G, at, row, from, sum, p);
          }
  }

  // Adds to pixel p what it gets from the one at `from`.
  static __device__ __forceinline__ void add(const Cell* cells, const T* weight, const Place& at, int row, int from,
                                             Sum (&sum)[SHARE][PIXELS][V], int p) {
    Sum factor[V], seen[V];
    load<V>(weight, factor);
#pragma unroll
    for (int h = 0; h < SHARE; ++h) {
      read(cells, at, row, from + REACH - at.x, h, seen);
#pragma unroll
      for (int v = 0; v < V; ++v) sum[h][p][v] += factor[v] * seen[v];
    }
  }
};
