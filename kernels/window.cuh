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

// A block has TILE_ROWS x TILE_COLUMNS pixels and TILE_PLANES of the G weight channels, with the SHARE channels of
// each; a thread has PIXELS_ pixels in a row and V_ weight channels. Neighbouring threads have neighbouring weight
// channels, then pixels, then rows. In shared memory it is PIXEL_STEP vectors of V from pixel to pixel and ROW_STEP
// from row to row, a little more than they need: so that the lanes of a warp meet in no bank.
template <typename T, int K_, int G_, int TILE_ROWS, int TILE_COLUMNS, int TILE_PLANES, int PIXELS_, int V_,
          int PIXEL_STEP, int ROW_STEP>
struct Window {
  using Type = T;
  using Sum = typename Accumulator<T>::type;
  using Cell = Vector<T, V_>;
  static constexpr int K = K_, G = G_, PIXELS = PIXELS_, V = V_, REACH = K / 2;
  static constexpr int LANES = TILE_PLANES / V, ACROSS = TILE_COLUMNS / PIXELS;
  static constexpr int THREADS = LANES * ACROSS * TILE_ROWS;
  static constexpr int ROWS = TILE_ROWS + K - 1, COLUMNS = TILE_COLUMNS + K - 1;
  static_assert(K % 2 == 1 && G % TILE_PLANES == 0 && TILE_PLANES % V == 0 && TILE_COLUMNS % PIXELS == 0, "no tile");
  static_assert(PIXEL_STEP >= SHARE * LANES && ROW_STEP >= COLUMNS * PIXEL_STEP, "cells would lie on each other");

  // Blocks: chunks of weight channels, then tiles along a row, then rows, then images.
  static __device__ __forceinline__ Place place(int height, int width) {
    constexpr int CHUNKS = G / TILE_PLANES;
    const int across = (width + TILE_COLUMNS - 1) / TILE_COLUMNS, down = (height + TILE_ROWS - 1) / TILE_ROWS;
    const int tile = blockIdx.x / CHUNKS, thread = threadIdx.x;
    Place at;
    at.image = tile / across / down;
    at.top = tile / across % down * TILE_ROWS;
    at.left = tile % across * TILE_COLUMNS;
    at.first_plane = blockIdx.x % CHUNKS * TILE_PLANES;
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
    map += at.image * height * width * stride + at.first_plane;
    for (int i = threadIdx.x; i < ROWS * COLUMNS * SHARE * LANES; i += THREADS) {
      const int lane = i % LANES, h = i / LANES % SHARE, pixel = i / LANES / SHARE;
      const int row = pixel / COLUMNS, column = pixel % COLUMNS;
      int y = at.top + row - REACH, x = at.left + column - REACH;
      Cell& cell = cells[row * ROW_STEP + column * PIXEL_STEP + h * LANES + lane];
      if (!REFLECTED && (y < 0 || y >= height || x < 0 || x >= width)) {
        cell = Cell{};
        continue;
      }
      if (REFLECTED) y = reflect(y, height), x = reflect(x, width);
      cell = load_vector<V>(map + (y * width + x) * stride + h * G + lane * V);
    }
  }

  // Cell `i` from the left of what the thread's first pixel sees, in a row of its window.
  static __device__ __forceinline__ void read(const Cell* cells, const Place& at, int row, int i, int h,
                                              Sum (&out)[V]) {
    const Cell& cell = cells[(at.y - at.top + row) * ROW_STEP + (at.x - at.left + i) * PIXEL_STEP + h * LANES + at.lane];
#pragma unroll
    for (int v = 0; v < V; ++v) out[v] = to_accumulator(cell.value[v]);
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

  // Adds to pixel p what it gives in the places of one row that show it again: few lanes at a border have any.
  static __device__ __forceinline__ void mirrored(const Cell* cells, const T* line, int stride, const Place& at,
                                                  int row, int p, int width, Sum (&sum)[SHARE][PIXELS][V]) {
    const int own = at.x + p;
    for (int x = first_preimage(own, width, REACH); x < width + REACH; x = next_preimage(x, own, width)) {
      if (x == own) continue;
      for (int o = 0; o < K; ++o) {
        const int from_x = x + REACH - o;
        if (from_x < 0 || from_x >= width) continue;
        Sum factor[V], seen[V];
        load<V>(line + from_x * stride + o * G, factor);
#pragma unroll
        for (int h = 0; h < SHARE; ++h) {
          read(cells, at, row, from_x + REACH - at.x, h, seen);
#pragma unroll
          for (int v = 0; v < V; ++v) sum[h][p][v] += factor[v] * seen[v];
        }
      }
    }
  }
};
