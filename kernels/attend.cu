// The last convolution of the weights and the aggregation in one, for 16-bit types: the weights exist in registers
// only, and are made again in the backward passes.
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
#pragma unroll
      for (int j = 0; j < QUAD; ++j)
#pragma unroll
        for (int along = 0; along < K; ++along) {
          const float* w = weight[along][j / 2] + j % 2 * 2;
          sums[share][j][0] += w[0] * window[j + along].x;
          sums[share][j][1] += w[1] * window[j + along].y;
        }
    }
  }
#pragma unroll
  for (int j = 0; j < QUAD; ++j) {
    const int y = at.top + mine.y, x = at.left + mine.x + j;
    if (y >= height || x >= width) continue;
    T* to = out + (pixels + y * width + x) * (SHARES * GROUPS) + blockIdx.y * SLICE + lane % 4 * 2;
#pragma unroll
    for (int share = 0; share < SHARES; ++share) store_all(to + share * GROUPS, sums[share][j]);
  }
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
#pragma unroll
    for (int j = 0; j < QUAD; ++j)
#pragma unroll
      for (int e = 0; e < COUNT; ++e) {
        const float* w = weight[e][j / 2] + j % 2 * 2;
        sums[share][j][0] += w[0] * window[j + e].x;
        sums[share][j][1] += w[1] * window[j + e].y;
      }
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
#pragma unroll
  for (int j = 0; j < QUAD; ++j) {
    const int y = at.top + mine.y, x = at.left + mine.x + j;
    if (y >= height || x >= width) continue;
    T* to = grad_value + (pixels + y * width + x) * (SHARES * GROUPS) + blockIdx.y * SLICE + lane % 4 * 2;
#pragma unroll
    for (int share = 0; share < SHARES; ++share) store_all(to + share * GROUPS, sums[share][j]);
  }
}

// The gradients of hidden, last and bias, from those of the weights, which are made for one line of offsets at a time.
// Through shared memory, two offsets of 8 groups become the inner dimension of the product that gives the gradient of
// hidden, and the rows of the one that gives those of last and bias. A block has every gridDim.x-th square. Each line
// of offsets has one more, whose gradients are 0: an even number.
//
//   last [G / 8, K, (K + 1) / 2, G / 8]: fragments of 16 x 8     grad_hidden [G / 8, N, H * W, G], to be added
//   grad_last [gridDim.x, G / 8, K, K + 1, 8, G], grad_bias [gridDim.x, G / 8, K, K + 1, 8], to be added
template <typename T, int K, int GROUPS>
__global__ void __launch_bounds__(THREADS, 1)
    attend_backward_hidden(const T* __restrict__ grad, int grad_stride, const T* __restrict__ hidden,
                           int hidden_stride, const T* __restrict__ value, int value_stride,
                           const T* __restrict__ last, float* __restrict__ grad_hidden, float* __restrict__ grad_last,
                           float* __restrict__ grad_bias, int squares, long long total_pixels, int height, int width) {
  constexpr int SLICES = GROUPS / SLICE, SEEN = QUAD + K - 1, PAIRS = (K + 1) / 2, ROW = (K + 1) * SLICE;
  constexpr int MADE_PITCH = ROW + APART;
  SHARED(shared);
  T* values = reinterpret_cast<T*>(shared);
  T* hiddens = values + SHARES * SHARE<K>;
  T* made = hiddens + PIXELS * PITCH<GROUPS>;  // [64, ROW]: rows of products, of both warps
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, channel = blockIdx.y * SLICE + lane % 4 * 2;
  const Place mine = place(warp, 0, lane / 4);
  T* const stored = made + (warp * 32 + lane / 4) * MADE_PITCH + lane % 4 * 2;
  const T* const turned = made + (lane / 16 * 8 + lane % 8) * MADE_PITCH + lane / 8 % 2 * SLICE;
#pragma unroll
  for (int j = 0; j < QUAD; ++j)
    store_pair(stored + (j / 2 * 16 + j % 2 * 8) * MADE_PITCH + K * SLICE, 0);
  for (int s = blockIdx.x; s < squares; s += gridDim.x) {
    const Square at = square<SIDE>(s, height, width);
    const long long pixels = at.image * height * width;
    __syncthreads();
    load_shares<T, K, GROUPS, REFLECTED>(values, value + pixels * value_stride, value_stride, at, height, width);
    load_hidden<T, GROUPS, SIDE, SIDE>(hiddens, hidden + pixels * hidden_stride, hidden_stride, at.top, at.left,
                                       height, width);
    unsigned given[SHARES][QUAD];
    bool inside[QUAD];
#pragma unroll
    for (int j = 0; j < QUAD; ++j) {
      const int y = at.top + mine.y, x = at.left + mine.x + j;
      inside[j] = y < height && x < width;
      const T* from = grad + (pixels + y * width + x) * grad_stride + channel;
#pragma unroll
      for (int share = 0; share < SHARES; ++share) given[share][j] = inside[j] ? load_pair(from + share * GROUPS) : 0u;
    }
    __syncthreads();
    const T* seen = values + (mine.y * LINE<K> + mine.x) * SLICE + lane % 4 * 2;
    float through[2][SLICES][4] = {};
    for (int up = 0; up < K; ++up) {
      float sums[K][QUAD][2] = {};
#pragma unroll
      for (int share = 0; share < SHARES; ++share) {
        float2 window[SEEN];
#pragma unroll
        for (int i = 0; i < SEEN; ++i)
          window[i] = unpack<T>(load_pair(seen + share * SHARE<K> + (up * LINE<K> + i) * SLICE));
#pragma unroll
        for (int j = 0; j < QUAD; ++j) {
          const float2 g = unpack<T>(given[share][j]);
#pragma unroll
          for (int along = 0; along < K; ++along) {
            sums[along][j][0] += g.x * window[j + along].x;
            sums[along][j][1] += g.y * window[j + along].y;
          }
        }
      }
      __syncthreads();  // the other warp has read what stood in `made`
#pragma unroll
      for (int j = 0; j < QUAD; ++j)
#pragma unroll
        for (int along = 0; along < K; ++along)
          store_pair(stored + (j / 2 * 16 + j % 2 * 8) * MADE_PITCH + along * SLICE,
                     pack<T>(sums[along][j][0], sums[along][j][1]));
      __syncthreads();
#pragma unroll
      for (int pair = 0; pair < PAIRS; ++pair) {
        unsigned a[2][4];
#pragma unroll
        for (int m = 0; m < 2; ++m)
          ldmatrix_x4(a[m], made + (warp * 32 + m * 16 + lane % 16) * MADE_PITCH + pair * 16 + lane / 16 * 8);
#pragma unroll
        for (int n = 0; n < SLICES; ++n) {
          unsigned b[2];
          load_fragment(b, last, ((blockIdx.y * K + up) * PAIRS + pair) * SLICES + n);
          multiply<T>(through[0][n], a[0], b);
          multiply<T>(through[1][n], a[1], b);
        }
      }
      for (int pair = warp; pair < PAIRS; pair += 2) {
        float products[SLICES + 1][4] = {};
#pragma unroll
        for (int m = 0; m < 4; ++m) {
          const unsigned ones[2] = {ONES<T>, ONES<T>};
          const Place row = place(m / 2, m % 2, lane % 16);
          unsigned a[4];
          ldmatrix_x4_trans(a, turned + m * 16 * MADE_PITCH + pair * 2 * SLICE);
#pragma unroll
          for (int n = 0; n < SLICES; n += 2) {
            unsigned two[4];
            const int column = n + (SLICES > 1 ? lane / 16 : 0);
            ldmatrix_x4_trans(two, hiddens + (row.y * SIDE + row.x) * PITCH<GROUPS> + column * 8);
            const unsigned b[2] = {two[0], two[1]}, next[2] = {two[2], two[3]};
            multiply<T>(products[n], a, b);
            if (n + 1 < SLICES) multiply<T>(products[n + 1], a, next);
          }
          multiply<T>(products[SLICES], a, ones);
        }
        const bool is_first = s < static_cast<int>(gridDim.x);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int set = blockIdx.x * SLICES + blockIdx.y;
          const long long line = ((static_cast<long long>(set) * K + up) * (K + 1) + 2 * pair + i) * SLICE + lane / 4;
          float* to = grad_last + line * GROUPS + lane % 4 * 2;
#pragma unroll
          for (int n = 0; n < SLICES; ++n) {
            Vector<float, 2> sum = {products[n][2 * i], products[n][2 * i + 1]};
            if (!is_first) {
              const Vector<float, 2> before = load_vector<2>(to + n * 8);
              sum.value[0] += before.value[0], sum.value[1] += before.value[1];
            }
            store_vector<2>(to + n * 8, sum);
          }
          if (lane % 4 == 0) grad_bias[line] = products[SLICES][2 * i] + (is_first ? 0.0f : grad_bias[line]);
        }
      }
    }
#pragma unroll
    for (int j = 0; j < QUAD; ++j) {
      if (!inside[j]) continue;
      const long long pixel = pixels + (at.top + mine.y) * width + at.left + mine.x + j;
      float* to = grad_hidden + (blockIdx.y * total_pixels + pixel) * GROUPS + lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < SLICES; ++n) {
        const float sum[2] = {through[j / 2][n][j % 2 * 2], through[j / 2][n][j % 2 * 2 + 1]};
        store_all(to + n * 8, sum);
      }
    }
  }
}
