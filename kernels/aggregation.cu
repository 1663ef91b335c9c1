// Aggregation: the weighted sum over a footprint that every relation of the paper ends in.
//
//   out[n, i, c] = sum over o of weight[n, i, o, c % G] * value[n, reflect(i + o), c]
//
//   value, out  [N, H * W, M]      weight  [N, H * W, K * K, G]      channels last, with a stride from pixel to pixel
//
// Sums are in float for 16- and 32-bit types, in double for double. Backward gathers, with no atomics: a pixel of
// value is seen from every place where the reflected border shows it.
#include "common.cuh"
#include "window.cuh"

// One thread an element of out: any K, M, G and map; the fallback, and the check for the tiled kernels.
template <typename T>
__global__ void aggregation_forward_naive(const T* __restrict__ value, int value_stride, const T* __restrict__ weight,
                                          int weight_stride, T* __restrict__ out, int out_stride, int height,
                                          int width, int kernel_size, int groups, int channels, long long total) {
  const long long i = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
  if (i >= total) return;
  const int c = i % channels, x = i / channels % width, y = i / channels / width % height;
  const long long pixel = i / channels, image = pixel / width / height;
  const T* seen = value + image * height * width * value_stride + c;
  const T* w = weight + pixel * weight_stride + c % groups;
  typename Accumulator<T>::type sum = 0;
  for (int o = 0; o < kernel_size * kernel_size; ++o) {
    const int row = reflect(y + o / kernel_size - kernel_size / 2, height);
    const int column = reflect(x + o % kernel_size - kernel_size / 2, width);
    sum += to_accumulator(w[o * groups]) * to_accumulator(seen[(row * width + column) * value_stride]);
  }
  out[pixel * out_stride + c] = from_accumulator<T>(sum);
}

// One thread an element of the gradient of weight: the channels that share it, in their order.
template <typename T>
__global__ void aggregation_backward_weight_naive(const T* __restrict__ grad, int grad_stride,
                                                  const T* __restrict__ value, int value_stride,
                                                  T* __restrict__ grad_weight, int weight_stride, int height,
                                                  int width, int kernel_size, int groups, int channels,
                                                  long long total) {
  const long long i = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
  if (i >= total) return;
  const int offsets = kernel_size * kernel_size, g = i % groups, o = i / groups % offsets;
  const long long pixel = i / groups / offsets, image = pixel / width / height;
  const int x = pixel % width, y = pixel / width % height;
  const int row = reflect(y + o / kernel_size - kernel_size / 2, height);
  const int column = reflect(x + o % kernel_size - kernel_size / 2, width);
  const T* seen = value + image * height * width * value_stride + (row * width + column) * value_stride;
  const T* given = grad + pixel * grad_stride;
  typename Accumulator<T>::type sum = 0;
  for (int c = g; c < channels; c += groups) sum += to_accumulator(given[c]) * to_accumulator(seen[c]);
  grad_weight[pixel * weight_stride + o * groups + g] = from_accumulator<T>(sum);
}

// One thread an element of the gradient of value: each place where the border shows its pixel, and from there every
// pixel whose footprint reaches that place.
template <typename T>
__global__ void aggregation_backward_value_naive(const T* __restrict__ grad, int grad_stride,
                                                 const T* __restrict__ weight, int weight_stride,
                                                 T* __restrict__ grad_value, int value_stride, int height, int width,
                                                 int kernel_size, int groups, int channels, long long total) {
  const long long i = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
  if (i >= total) return;
  const int c = i % channels, x = i / channels % width, y = i / channels / width % height;
  const int reach = kernel_size / 2;
  const long long first = i / channels / width / height * height * width;
  const T* given = grad + first * grad_stride + c;
  const T* w = weight + first * weight_stride + c % groups;
  typename Accumulator<T>::type sum = 0;
  for (int row = first_preimage(y, height, reach); row < height + reach; row = next_preimage(row, y, height))
    for (int column = first_preimage(x, width, reach); column < width + reach; column = next_preimage(column, x, width))
      for (int o = 0; o < kernel_size * kernel_size; ++o) {
        const int from_y = row - o / kernel_size + reach, from_x = column - o % kernel_size + reach;
        if (from_y < 0 || from_y >= height || from_x < 0 || from_x >= width) continue;
        const int pixel = from_y * width + from_x;
        sum += to_accumulator(w[pixel * weight_stride + o * groups]) * to_accumulator(given[pixel * grad_stride]);
      }
  grad_value[i / channels * value_stride + c] = from_accumulator<T>(sum);
}

// The tiled forward: the window of value in shared memory, weights read once, straight into registers.
template <typename Tile>
__global__ void __launch_bounds__(Tile::THREADS)
    aggregation_forward(const typename Tile::Type* __restrict__ value, int value_stride,
                        const typename Tile::Type* __restrict__ weight, int weight_stride,
                        typename Tile::Type* __restrict__ out, int out_stride, int height, int width) {
  using T = typename Tile::Type;
  using Sum = typename Tile::Sum;
  constexpr int K = Tile::K, V = Tile::V, PIXELS = Tile::PIXELS, SEEN = Tile::SEEN;
  SHARED(bytes);
  typename Tile::Cell* cells = reinterpret_cast<typename Tile::Cell*>(bytes);
  const Place at = Tile::place(height, width);
  Tile::template fill<true>(cells, value, value_stride, at, height, width);
  __syncthreads();
  if (at.y >= height || at.x >= width) return;

  const long long pixel = (at.image * height + at.y) * width + at.x;
  const T* w = weight + pixel * weight_stride + at.plane;
  Sum sum[SHARE][PIXELS][V] = {};
#pragma unroll 1
  for (int row = 0; row < K; ++row) {
    Sum factor[PIXELS][K][V];
#pragma unroll
    for (int p = 0; p < PIXELS; ++p)
#pragma unroll
      for (int o = 0; o < K; ++o)  // a pixel behind the edge has its left neighbour's weights, and no result
        load<V>(w + (at.x + p < width ? p : 0) * weight_stride + (row * K + o) * Tile::G, factor[p][o]);
#pragma unroll
    for (int h = 0; h < SHARE; ++h) {
      Sum seen[SEEN][V];
      Tile::read_row(cells, at, row, h, seen);
#pragma unroll
      for (int p = 0; p < PIXELS; ++p)
#pragma unroll
        for (int o = 0; o < K; ++o)
#pragma unroll
          for (int v = 0; v < V; ++v) sum[h][p][v] += factor[p][o][v] * seen[p + o][v];
    }
  }
  Tile::write(out, out_stride, at, height, width, sum);
}

// The tiled gradient of weight: the same window of value, the gradient in registers. With `1`, the compiler does not
// keep to 64 registers, for which it spilled on sm_120; shared memory is what limits the blocks of an SM.
template <typename Tile>
__global__ void __launch_bounds__(Tile::THREADS, 1)
    aggregation_backward_weight(const typename Tile::Type* __restrict__ grad, int grad_stride,
                                const typename Tile::Type* __restrict__ value, int value_stride,
                                typename Tile::Type* __restrict__ grad_weight, int weight_stride, int height,
                                int width) {
  using T = typename Tile::Type;
  using Sum = typename Tile::Sum;
  constexpr int K = Tile::K, V = Tile::V, PIXELS = Tile::PIXELS, SEEN = Tile::SEEN;
  SHARED(bytes);
  typename Tile::Cell* cells = reinterpret_cast<typename Tile::Cell*>(bytes);
  const Place at = Tile::place(height, width);
  Tile::template fill<true>(cells, value, value_stride, at, height, width);
  __syncthreads();
  if (at.y >= height || at.x >= width) return;

  const long long pixel = (at.image * height + at.y) * width + at.x;
  const T* given = grad + pixel * grad_stride + at.plane;
  T* w = grad_weight + pixel * weight_stride + at.plane;
  typename Tile::Cell factor[SHARE][PIXELS];  // in their own type: half the registers for 16 bits
#pragma unroll
  for (int h = 0; h < SHARE; ++h)
#pragma unroll
    for (int p = 0; p < PIXELS; ++p)
      factor[h][p] = load_vector<V>(given + (at.x + p < width ? p : 0) * grad_stride + h * Tile::G);
#pragma unroll 1
  for (int row = 0; row < K; ++row) {
    Sum sum[PIXELS][K][V] = {};
#pragma unroll
    for (int h = 0; h < SHARE; ++h) {
      Sum seen[SEEN][V];
      Tile::read_row(cells, at, row, h, seen);
#pragma unroll
      for (int p = 0; p < PIXELS; ++p)
#pragma unroll
        for (int v = 0; v < V; ++v) {
          const Sum by = to_accumulator(factor[h][p].value[v]);
#pragma unroll
          for (int o = 0; o < K; ++o) sum[p][o][v] += by * seen[p + o][v];
        }
    }
#pragma unroll
    for (int p = 0; p < PIXELS; ++p)
      if (at.x + p < width)
#pragma unroll
        for (int o = 0; o < K; ++o) store<V>(w + p * weight_stride + (row * K + o) * Tile::G, sum[p][o]);
  }
}

// The tiled gradient of value: the window of the gradient, 0 outside of the map; each weight is read once, at the
// pixel whose footprint reaches this one. Near a border a pixel is seen in mirrored places too.
template <typename Tile>
__global__ void __launch_bounds__(Tile::THREADS, 1)
    aggregation_backward_value(const typename Tile::Type* __restrict__ grad, int grad_stride,
                               const typename Tile::Type* __restrict__ weight, int weight_stride,
                               typename Tile::Type* __restrict__ grad_value, int value_stride, int height,
                               int width) {
  using T = typename Tile::Type;
  using Sum = typename Tile::Sum;
  SHARED(bytes);
  typename Tile::Cell* cells = reinterpret_cast<typename Tile::Cell*>(bytes);
  const Place at = Tile::place(height, width);
  Tile::template fill<false>(cells, grad, grad_stride, at, height, width);
  __syncthreads();
  if (at.y >= height || at.x >= width) return;

  const T* w = weight + at.image * height * width * weight_stride + at.plane;
  Sum sum[SHARE][Tile::PIXELS][Tile::V] = {};
  Tile::template gather_rows<false>(cells, w, weight_stride, at, height, width, sum);
  if (Tile::is_near_border(at, width)) Tile::template gather_rows<true>(cells, w, weight_stride, at, height, width, sum);
  Tile::write(grad_value, value_stride, at, height, width, sum);
}
