// The last convolution of the weights and the aggregation in one, for 16-bit types: forward, and back to value. quads.cuh
// has the formulas and says which thread has what.
#include "quads.cuh"

// Adds to the pixels of a quad what they see through COUNT offsets of a line: pixel j at offset o in window[j + o].
template <int COUNT>
__device__ __forceinline__ void weigh(float (&sums)[QUAD][2], const float (&weight)[COUNT][2][4],
                                      const float2 (&window)[QUAD + COUNT - 1]) {
#pragma unroll
  for (int j = 0; j < QUAD; ++j)
#pragma unroll
    for (int o = 0; o < COUNT; ++o) {
      const float* w = weight[o][j / 2] + j % 2 * 2;
      sums[j][0] += w[0] * window[j + o].x;
      sums[j][1] += w[1] * window[j + o].y;
    }
}

// Of this lane's quad, into the map of one image.
template <int GROUPS, typename T>
__device__ __forceinline__ void write(T* map, const float (&sums)[SHARES][QUAD][2], const Square& at,
                                      const Place& mine, int height, int width) {
#pragma unroll
  for (int j = 0; j < QUAD; ++j) {
    const int y = at.top + mine.y, x = at.left + mine.x + j;
    if (y >= height || x >= width) continue;
    T* to = map + (y * width + x) * (SHARES * GROUPS) + blockIdx.y * SLICE + threadIdx.x % 4 * 2;
#pragma unroll
    for (int share = 0; share < SHARES; ++share) store_all(to + share * GROUPS, sums[share][j]);
  }
}

template <typename T, int K, int GROUPS>
__global__ void __launch_bounds__(THREADS, 1)
    attend_forward(const T* __restrict__ hidden, int hidden_stride, const T* __restrict__ value, int value_stride,
                   const T* __restrict__ last, const float* __restrict__ bias, T* __restrict__ out, int height,
                   int width) {
  constexpr int STEPS = INNER<GROUPS> / 16, SLICES = GROUPS / SLICE, SEEN = QUAD + K - 1;
  SHARED(shared);
  T* values = reinterpret_cast<T*>(shared);
  T* hiddens = values + SHARES * SHARE<K>;
  const Square at = square<SIDE>(blockIdx.x, height, width);
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const long long pixels = at.image * height * width;
  load_shares<T, K, GROUPS, REFLECTED>(values, value + pixels * value_stride, value_stride, at, height, width);
  load_hidden<T, GROUPS, SIDE, SIDE>(hiddens, hidden + pixels * hidden_stride, hidden_stride, at.top, at.left,
                                     height, width);
  __syncthreads();
  const Place mine = place(warp, 0, lane / 4), rows = place(warp, 0, lane % 16);
  const T* row = hiddens + (rows.y * SIDE + rows.x) * PITCH<GROUPS> + lane / 16 * 8;
  const T* seen = values + (mine.y * LINE<K> + mine.x) * SLICE + lane % 4 * 2;
  float sums[SHARES][QUAD][2] = {};
  for (int up = 0; up < K; ++up) {
    float weight[K][2][4];
#pragma unroll
    for (int along = 0; along < K; ++along) {
      const Vector<float, 2> b = load_vector<2>(bias + (up * K + along) * GROUPS + blockIdx.y * SLICE + lane % 4 * 2);
#pragma unroll
      for (int i = 0; i < 8; ++i) weight[along][i / 4][i % 4] = b.value[i % 2];
    }
#pragma unroll
    for (int s = 0; s < STEPS; ++s) {
      unsigned a[2][4];
      ldmatrix_x4(a[0], row + s * 16);
      ldmatrix_x4(a[1], row + s * 16 + 2 * PITCH<GROUPS>);
#pragma unroll
      for (int along = 0; along < K; ++along) {
        unsigned b[2];
        load_fragment(b, last, ((up * K + along) * STEPS + s) * SLICES + blockIdx.y);
        multiply<T>(weight[along][0], a[0], b);
        multiply<T>(weight[along][1], a[1], b);
      }
    }
#pragma unroll
    for (int share = 0; share < SHARES; ++share) {
      float2 window[SEEN];
#pragma unroll
      for (int i = 0; i < SEEN; ++i)
        window[i] = unpack<T>(load_pair(seen + share * SHARE<K> + (up * LINE<K> + i) * SLICE));
      weigh<K>(sums[share], weight, window);
    }
  }
  write<GROUPS>(out + pixels * (SHARES * GROUPS), sums, at, mine, height, width);
}

// How a line of pixels is seen from through COUNT offsets of one line: pixel j of a quad at offset e from place j + e.
struct Line {
  int row;           // in the tiles; OUTSIDE: nowhere
  int first, step;   // the column of place 0 in the tiles, and from place to place
};

// Adds to the gradients of a quad what comes through COUNT offsets. `line` is that of this lane's quad, `from` that
// of the quad whose hidden pixels this lane names to ldmatrix; `open` says which pixels of the quad are seen so at all.
template <typename T, int K, int GROUPS, int COUNT>
__device__ __forceinline__ void sweep(float (&sums)[SHARES][QUAD][2], const T* grads, const T* hiddens,
                                      const T* __restrict__ last, const float* __restrict__ bias, int first_offset,
                                      int offset_step, Line line, Line from, const bool (&open)[QUAD]) {
  constexpr int STEPS = INNER<GROUPS> / 16, SLICES = GROUPS / SLICE, SEEN = QUAD + COUNT - 1;
  const int lane = threadIdx.x % WARP;
  float weight[COUNT][2][4];
#pragma unroll
  for (int e = 0; e < COUNT; ++e) {
    const int o = first_offset + e * offset_step;
    const Vector<float, 2> b = load_vector<2>(bias + o * GROUPS + blockIdx.y * SLICE + lane % 4 * 2);
#pragma unroll
    for (int i = 0; i < 8; ++i) weight[e][i / 4][i % 4] = b.value[i % 2];
#pragma unroll
    for (int s = 0; s < STEPS; ++s) {
      unsigned b[2];
      load_fragment(b, last, (o * STEPS + s) * SLICES + blockIdx.y);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        const int column = from.first + from.step * (2 * m + lane % 16 / 8 + e);
        const bool there = from.row != OUTSIDE && column >= 0 && column < WIDE<K>;  // elsewhere: any number, times 0
        unsigned a[4];
        ldmatrix_x4(a, hiddens + (there ? from.row * WIDE<K> + column : 0) * PITCH<GROUPS> + s * 16 + lane / 16 * 8);
        multiply<T>(weight[e][m], a, b);
      }
    }
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (!open[i / 2]) weight[e][i / 4][i % 4] = 0;
  }
#pragma unroll
  for (int share = 0; share < SHARES; ++share) {
    float2 window[SEEN];
#pragma unroll
    for (int i = 0; i < SEEN; ++i) {
      const int column = line.first + line.step * i;
      const bool there = line.row != OUTSIDE && column >= 0 && column < WIDE<K>;
      const T* cell = grads + share * SHARE<K> + (line.row * LINE<K> + column) * SLICE + lane % 4 * 2;
      window[i] = unpack<T>(there ? load_pair(cell) : 0u);
    }
    weigh<COUNT>(sums[share], weight, window);
  }
}

// The gradient of value: each of its pixels from the pixels that see it, straight and through the border.
template <typename T, int K, int GROUPS>
__global__ void __launch_bounds__(THREADS, 1)
    attend_backward_value(const T* __restrict__ grad, int grad_stride, const T* __restrict__ hidden,
                          int hidden_stride, const T* __restrict__ last, const float* __restrict__ bias,
                          T* __restrict__ grad_value, int height, int width) {
  constexpr int REACH = K / 2;
  SHARED(shared);
  T* grads = reinterpret_cast<T*>(shared);
  T* hiddens = grads + SHARES * SHARE<K>;
  const Square at = square<SIDE>(blockIdx.x, height, width);
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, top = at.top - REACH, left = at.left - REACH;
  const long long pixels = at.image * height * width;
  load_shares<T, K, GROUPS, ZERO>(grads, grad + pixels * grad_stride, grad_stride, at, height, width);
  load_hidden<T, GROUPS, WIDE<K>, WIDE<K>>(hiddens, hidden + pixels * hidden_stride, hidden_stride, top, left, height,
                                           width);
  __syncthreads();
  const Place mine = place(warp, 0, lane / 4), named = place(warp, 0, lane % 8);
  const bool all[QUAD] = {true, true, true, true};
  float sums[SHARES][QUAD][2] = {};
  for (int i = 0; i < 2 * K; ++i) {
    const int up = i / 2;
    if (i % 2 && !can_mirror<REACH>(at.top, at.top + SIDE - 1, up, height)) continue;
    const auto row_of = [&](int y) {
      const int row = i % 2 ? mirrored<REACH>(at.top + y, up, height) : straight<REACH>(at.top + y, up);
      return row == OUTSIDE ? OUTSIDE : row - top;
    };
    Line line = {row_of(mine.y), mine.x, 1}, from = {row_of(named.y), named.x, 1};
    sweep<T, K, GROUPS, K>(sums, grads, hiddens, last, bias, up * K + K - 1, -1, line, from, all);
    if constexpr (REACH > 0) {
#pragma unroll 1
      for (int far = 0; far < 2; ++far) {
        const int first_along = far ? REACH + 1 : 0;
        if (!can_mirror<REACH>(at.left, at.left + SIDE - 1, first_along, width)) continue;
        // The first offset's place for the first pixel of the square, from where the quads count backwards.
        const int start = (far ? 2 * (width - 1) - at.left : -at.left) - first_along + REACH - left;
        line.first = start - mine.x, from.first = start - named.x, line.step = from.step = -1;
        bool open[QUAD];
#pragma unroll
        for (int j = 0; j < QUAD; ++j)
          open[j] = far ? at.left + mine.x + j <= width - 2 : at.left + mine.x + j >= 1;
        sweep<T, K, GROUPS, REACH>(sums, grads, hiddens, last, bias, up * K + first_along, 1, line, from, open);
      }
    }
  }
  write<GROUPS>(grad_value + pixels * (SHARES * GROUPS), sums, at, mine, height, width);
}
