// The formulas of attend.cu for few groups and a small footprint, as in the first layer, for every type: one thread a
// pixel, all its channels and what it adds to the gradients of the parameters in registers.
//
//   last [K * K, G, G]: from hidden to groups; bias [K * K, G]; both of the type of sums
//
// A block has a square of 16 x 16 pixels. A map has to be wider than the reach; vectors of 16 bytes, or of all
// channels of a pixel if these are less, are aligned in all maps.
#include "patches.cuh"

constexpr int SIDE = 16, THREADS = SIDE * SIDE, SHARES = 8;

template <int K>
constexpr int WIDE = SIDE + K - 1;

template <typename T>
using Sum = typename Accumulator<T>::type;

// The weights of one offset.
template <typename A, int GROUPS>
__device__ __forceinline__ void weigh(A (&weight)[GROUPS], const A (&hidden)[GROUPS], const A* __restrict__ last,
                                      const A* __restrict__ bias, int o) {
#pragma unroll
  for (int g = 0; g < GROUPS; ++g) {
    weight[g] = bias[o * GROUPS + g];
#pragma unroll
    for (int h = 0; h < GROUPS; ++h) weight[g] += last[(o * GROUPS + h) * GROUPS + g] * hidden[h];
  }
}

template <typename T, int K, int GROUPS>
__global__ void __launch_bounds__(THREADS, 1)
    attend_small_forward(const T* __restrict__ hidden, int hidden_stride, const T* __restrict__ value,
                         int value_stride, const Sum<T>* __restrict__ last, const Sum<T>* __restrict__ bias,
                         T* __restrict__ out, int height, int width) {
  constexpr int REACH = K / 2, CHANNELS = SHARES * GROUPS, STEP = ODD_PITCH<T, CHANNELS>;
  SHARED(shared);
  T* values = reinterpret_cast<T*>(shared);
  const Square at = square<SIDE>(blockIdx.x, height, width);
  const long long pixels = at.image * height * width;
  load_tile<T, T, WIDE<K>, WIDE<K>, CHANNELS, STEP, REACH, REFLECTED>(
      values, value + pixels * value_stride, value_stride, at.top - REACH, at.left - REACH, height, width);
  __syncthreads();
  const int row = threadIdx.x / SIDE, column = threadIdx.x % SIDE, y = at.top + row, x = at.left + column;
  if (y >= height || x >= width) return;
  Sum<T> given[GROUPS], sums[CHANNELS] = {};
  load_all(hidden + (pixels + y * width + x) * hidden_stride, given);
#pragma unroll
  for (int o = 0; o < K * K; ++o) {
    Sum<T> weight[GROUPS], seen[CHANNELS];
    weigh(weight, given, last, bias, o);
    load_all(values + ((row + o / K) * WIDE<K> + column + o % K) * STEP, seen);
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c) sums[c] += weight[c % GROUPS] * seen[c];
  }
  store_all(out + (pixels + y * width + x) * CHANNELS, sums);
}

template <typename T, int K, int GROUPS>
__global__ void __launch_bounds__(THREADS, 1)
    attend_small_backward_value(const T* __restrict__ grad, int grad_stride, const T* __restrict__ hidden,
                                int hidden_stride, const Sum<T>* __restrict__ last, const Sum<T>* __restrict__ bias,
                                T* __restrict__ grad_value, int height, int width) {
  constexpr int REACH = K / 2, CHANNELS = SHARES * GROUPS, STEP = ODD_PITCH<T, CHANNELS>;
  SHARED(shared);
  T* grads = reinterpret_cast<T*>(shared);
  T* hiddens = grads + WIDE<K> * WIDE<K> * STEP;
  const Square at = square<SIDE>(blockIdx.x, height, width);
  const long long pixels = at.image * height * width;
  const int top = at.top - REACH, left = at.left - REACH;
  load_tile<T, T, WIDE<K>, WIDE<K>, CHANNELS, STEP, REACH, ZERO>(grads, grad + pixels * grad_stride, grad_stride, top,
                                                                 left, height, width);
  load_tile<T, T, WIDE<K>, WIDE<K>, GROUPS, GROUPS, REACH, ZERO>(hiddens, hidden + pixels * hidden_stride,
                                                                 hidden_stride, top, left, height, width);
  __syncthreads();
  const int y = at.top + threadIdx.x / SIDE, x = at.left + threadIdx.x % SIDE;
  if (y >= height || x >= width) return;
  Sum<T> sums[CHANNELS] = {};
  for (int o = 0; o < K * K; ++o) {
    const int up = o / K, along = o % K;
    const bool from_row = can_mirror<REACH>(y, y, up, height), from_column = can_mirror<REACH>(x, x, along, width);
    for (int i = 0; i < 4; ++i) {  // straight, mirrored by row, by column, by both
      if ((i & 1 && !from_row) || (i & 2 && !from_column)) continue;
      const int row = i & 1 ? mirrored<REACH>(y, up, height) : straight<REACH>(y, up);
      const int column = i & 2 ? mirrored<REACH>(x, along, width) : straight<REACH>(x, along);
      if (row == OUTSIDE || column == OUTSIDE) continue;
      const int cell = (row - top) * WIDE<K> + column - left;
      Sum<T> given[GROUPS], weight[GROUPS], seen[CHANNELS];
      load_all(hiddens + cell * GROUPS, given);
      load_all(grads + cell * STEP, seen);
      weigh(weight, given, last, bias, o);
#pragma unroll
      for (int c = 0; c < CHANNELS; ++c) sums[c] += weight[c % GROUPS] * seen[c];
    }
  }
  store_all(grad_value + (pixels + y * width + x) * CHANNELS, sums);
}

// The gradients of hidden, last and bias. A block has every gridDim.x-th square; its sums of the last two, which are
// to be added, stand in parameters [gridDim.x, K * K, G + 1, G]: those of last, then of bias, for each offset.
template <typename T, int K, int GROUPS>
__global__ void __launch_bounds__(THREADS, 1)
    attend_small_backward_hidden(const T* __restrict__ grad, int grad_stride, const T* __restrict__ hidden,
                                 int hidden_stride, const T* __restrict__ value, int value_stride,
                                 const Sum<T>* __restrict__ last, T* __restrict__ grad_hidden,
                                 Sum<T>* __restrict__ parameters, int squares, int height, int width) {
  constexpr int REACH = K / 2, CHANNELS = SHARES * GROUPS, STEP = ODD_PITCH<T, CHANNELS>;
  constexpr int COUNT = K * K * (GROUPS + 1) * GROUPS;
  SHARED(shared);
  T* values = reinterpret_cast<T*>(shared);
  Sum<T> made[COUNT] = {};
  for (int s = blockIdx.x; s < squares; s += gridDim.x) {
    const Square at = square<SIDE>(s, height, width);
    const long long pixels = at.image * height * width;
    __syncthreads();
    load_tile<T, T, WIDE<K>, WIDE<K>, CHANNELS, STEP, REACH, REFLECTED>(
        values, value + pixels * value_stride, value_stride, at.top - REACH, at.left - REACH, height, width);
    __syncthreads();
    const int row = threadIdx.x / SIDE, column = threadIdx.x % SIDE, y = at.top + row, x = at.left + column;
    if (y >= height || x >= width) continue;
    Sum<T> from[GROUPS], given[CHANNELS], through[GROUPS] = {};
    load_all(hidden + (pixels + y * width + x) * hidden_stride, from);
    load_all(grad + (pixels + y * width + x) * grad_stride, given);
#pragma unroll
    for (int o = 0; o < K * K; ++o) {
      Sum<T> seen[CHANNELS], weight[GROUPS] = {};  // their gradients
      load_all(values + ((row + o / K) * WIDE<K> + column + o % K) * STEP, seen);
#pragma unroll
      for (int c = 0; c < CHANNELS; ++c) weight[c % GROUPS] += given[c] * seen[c];
#pragma unroll
      for (int g = 0; g < GROUPS; ++g) {
#pragma unroll
        for (int h = 0; h < GROUPS; ++h) {
          through[h] += last[(o * GROUPS + h) * GROUPS + g] * weight[g];
          made[(o * (GROUPS + 1) + h) * GROUPS + g] += weight[g] * from[h];
        }
        made[(o * (GROUPS + 1) + GROUPS) * GROUPS + g] += weight[g];
      }
    }
    store_all(grad_hidden + (pixels + y * width + x) * GROUPS, through);
  }
  Sum<T>* gathered = reinterpret_cast<Sum<T>*>(shared);  // [THREADS / WARP, COUNT]
  __syncthreads();
#pragma unroll
  for (int i = 0; i < COUNT; ++i) {
    const Sum<T> sum = warp_sum(made[i]);
    if (threadIdx.x % WARP == 0) gathered[threadIdx.x / WARP * COUNT + i] = sum;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < COUNT; i += THREADS) {
    Sum<T> sum = 0;
    for (int w = 0; w < THREADS / WARP; ++w) sum += gathered[w * COUNT + i];
    parameters[static_cast<long long>(blockIdx.x) * COUNT + i] = sum;
  }
}
