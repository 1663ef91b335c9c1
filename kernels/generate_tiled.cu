// Weight generation (generate.cu has the formulas) with squares of the maps in shared memory, for every type:
// products of the type of sums on the ordinary units. Two pixels a thread, so that what is read of the parameters
// serves both.
//
// A map has to be wider than the reach; R is a multiple of CHANNELS, G of OUTPUTS, and vectors of 16 bytes, or
// of CHANNELS or OUTPUTS numbers if these are less, are aligned in all maps.
#include "patches.cuh"

// sums[p][j] += weight[c][j] * relu(scale[c] * seen[p][c] + shift[c]), over the channels of the tile.
template <typename A, int CHANNELS, int OUTPUTS>
__device__ __forceinline__ void add_relation(A (&sums)[2][OUTPUTS], const A* seen0, const A* seen1,
                                             const A* __restrict__ norm, const A* __restrict__ weight, int groups) {
#pragma unroll
  for (int c = 0; c < CHANNELS; c += 4) {
    A x[2][4], affine[8];
    load_all(seen0 + c, x[0]);
    load_all(seen1 + c, x[1]);
    load_all(norm + 2 * c, affine);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      A w[OUTPUTS];
      load_all(weight + (c + i) * groups, w);
#pragma unroll
      for (int p = 0; p < 2; ++p) {
        const A related = relu(affine[2 * i] * x[p][i] + affine[2 * i + 1]);
#pragma unroll
        for (int j = 0; j < OUTPUTS; ++j) sums[p][j] += w[j] * related;
      }
    }
  }
}

// A thread makes OUTPUTS numbers of z at pixels (y, x) and (y + SIDE / 2, x) of the square. blockIdx.y counts the
// groups of OUTPUTS; SIDE * SIDE / 2 threads.
template <typename T, int K, int CHANNELS, int OUTPUTS, int SIDE>
__global__ void __launch_bounds__(SIDE* SIDE / 2, 1)
    generate_forward_tiled(const T* __restrict__ query, int query_stride, const T* __restrict__ key, int key_stride,
                           const typename Accumulator<T>::type* __restrict__ norm,
                           const typename Accumulator<T>::type* __restrict__ weight, T* __restrict__ z, int height,
                           int width, int planes, int groups) {
  using A = typename Accumulator<T>::type;
  constexpr int REACH = K / 2, WIDE = SIDE + K - 1, PITCH = ODD_PITCH<A, CHANNELS>;
  SHARED(shared);
  A* keys = reinterpret_cast<A*>(shared);
  A* queries = keys + WIDE * WIDE * PITCH;
  const Square at = square<SIDE>(blockIdx.x, height, width);
  const int x = threadIdx.x % SIDE, y = threadIdx.x / SIDE;
  A sums[2][OUTPUTS] = {};
  for (int first = 0; first < planes; first += CHANNELS) {
    __syncthreads();
    const long long pixels = at.image * height * width;
    load_tile<T, A, WIDE, WIDE, CHANNELS, PITCH, REACH, REFLECTED>(
        keys, key + pixels * key_stride + first, key_stride, at.top - REACH, at.left - REACH, height, width);
    load_tile<T, A, SIDE, SIDE, CHANNELS, PITCH, 0, ZERO>(queries, query + pixels * query_stride + first,
                                                          query_stride, at.top, at.left, height, width);
    __syncthreads();
    const A* affine = norm + first * 2;
    const A* w = weight + first * groups + blockIdx.y * OUTPUTS;
    for (int o = 0; o < K * K; ++o) {
      const A* seen = keys + ((y + o / K) * WIDE + x + o % K) * PITCH;
      add_relation<A, CHANNELS>(sums, seen, seen + SIDE / 2 * WIDE * PITCH, affine, w, groups);
      affine += 2 * planes, w += planes * groups;
    }
    const A* seen = queries + (y * SIDE + x) * PITCH;
    add_relation<A, CHANNELS>(sums, seen, seen + SIDE / 2 * SIDE * PITCH, affine, w, groups);
  }
#pragma unroll
  for (int p = 0; p < 2; ++p) {
    const int row = at.top + y + p * SIDE / 2, column = at.left + x;
    if (row < height && column < width)
      store_all(z + ((at.image * height + row) * width + column) * groups + blockIdx.y * OUTPUTS, sums[p]);
  }
}

// The gradients of all z that see pixel (y, x) at offset (up, along), added: from a tile whose first pixel is (top,
// left) of the image.
template <typename A, int OUTPUTS, int K, int WIDE, int PITCH>
__device__ __forceinline__ void gather(A (&sum)[OUTPUTS], const A* tile, int top, int left, int y, int x, int up,
                                       int along, int height, int width) {
  constexpr int REACH = K / 2;
  load_all(tile + ((straight<REACH>(y, up) - top) * WIDE + straight<REACH>(x, along) - left) * PITCH, sum);
  const bool from_row = can_mirror<REACH>(y, y, up, height), from_column = can_mirror<REACH>(x, x, along, width);
  for (int i = 1; i < 4; ++i) {  // by row, by column, by both
    if ((i & 1 && !from_row) || (i & 2 && !from_column)) continue;
    const int row = i & 1 ? mirrored<REACH>(y, up, height) : straight<REACH>(y, up);
    const int column = i & 2 ? mirrored<REACH>(x, along, width) : straight<REACH>(x, along);
    if (row == OUTSIDE || column == OUTSIDE) continue;
    const A* from = tile + ((row - top) * WIDE + column - left) * PITCH;
#pragma unroll
    for (int j = 0; j < OUTPUTS; ++j) sum[j] += from[j];
  }
}

// What the gradient of a pixel starts from: nothing, or constant + linear * value, at `place` of both.
template <typename T, typename A, int CHANNELS>
__device__ __forceinline__ void start(A (&value)[CHANNELS], A (&sums)[CHANNELS], bool inside, const T* pixel,
                                      const A* __restrict__ constant, const A* __restrict__ linear, int place) {
#pragma unroll
  for (int c = 0; c < CHANNELS; ++c) value[c] = sums[c] = 0;
  if (inside) load_all(pixel, value);
  if (inside && constant) {
    A factor[CHANNELS];
    load_all(constant + place, sums);
    load_all(linear + place, factor);
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c) sums[c] += factor[c] * value[c];
  }
}

// A thread makes CHANNELS numbers of the gradient of map at two pixels. blockIdx.y counts the groups of CHANNELS.
template <typename T, int K, int CHANNELS, int OUTPUTS, int SIDE>
__global__ void __launch_bounds__(SIDE* SIDE / 2, 1)
    generate_backward_map_tiled(const T* __restrict__ grad, int grad_stride, const T* __restrict__ map,
                                int map_stride, const typename Accumulator<T>::type* __restrict__ norm,
                                const typename Accumulator<T>::type* __restrict__ weight,
                                const typename Accumulator<T>::type* __restrict__ constant,
                                const typename Accumulator<T>::type* __restrict__ linear, T* __restrict__ grad_map,
                                int height, int width, int planes, int groups) {
  using A = typename Accumulator<T>::type;
  constexpr int REACH = K / 2, WIDE = SIDE + K - 1, PITCH = ODD_PITCH<A, OUTPUTS>;
  SHARED(shared);
  A* grads = reinterpret_cast<A*>(shared);
  const Square at = square<SIDE>(blockIdx.x, height, width);
  const int first = blockIdx.y * CHANNELS, top = at.top - REACH, left = at.left - REACH;
  const int x = at.left + threadIdx.x % SIDE, y = at.top + threadIdx.x / SIDE;
  const long long pixels = at.image * height * width;
  A value[2][CHANNELS], sums[2][CHANNELS];
  bool inside[2];
#pragma unroll
  for (int p = 0; p < 2; ++p) {
    const int row = y + p * SIDE / 2, pixel = row * width + x;
    inside[p] = row < height && x < width;
    start(value[p], sums[p], inside[p], map + (pixels + pixel) * map_stride + first, constant, linear,
          pixel * planes + first);
  }
  for (int group = 0; group < groups; group += OUTPUTS) {
    __syncthreads();
    load_tile<T, A, WIDE, WIDE, OUTPUTS, PITCH, REACH, ZERO>(grads, grad + pixels * grad_stride + group, grad_stride,
                                                             top, left, height, width);
    __syncthreads();
    for (int o = 0; o < K * K; ++o) {
      A given[2][OUTPUTS], passed[2][CHANNELS] = {}, affine[2 * CHANNELS];
#pragma unroll
      for (int p = 0; p < 2; ++p)
        gather<A, OUTPUTS, K, WIDE, PITCH>(given[p], grads, top, left, y + p * SIDE / 2, x, o / K, o % K,
                                           height, width);
#pragma unroll
      for (int j = 0; j < OUTPUTS; ++j) {
        A w[CHANNELS];
        load_all(weight + (o * groups + group + j) * planes + first, w);
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c) {
          passed[0][c] += w[c] * given[0][j];
          passed[1][c] += w[c] * given[1][j];
        }
      }
      load_all(norm + (o * planes + first) * 2, affine);
#pragma unroll
      for (int p = 0; p < 2; ++p)
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c)
          if (affine[2 * c] * value[p][c] + affine[2 * c + 1] > 0) sums[p][c] += affine[2 * c] * passed[p][c];
    }
  }
#pragma unroll
  for (int p = 0; p < 2; ++p)
    if (inside[p]) store_all(grad_map + (pixels + (y + p * SIDE / 2) * width + x) * planes + first, sums[p]);
}

// The sums of generate_backward_sums_naive for a line of offsets, CHANNELS channels and OUTPUTS groups: which ones
// blockIdx.y counts, the groups first, then the channels, then the lines. A thread has one offset, one channel and
// every LANES-th pixel; a block has every gridDim.x-th square. K * CHANNELS * LANES threads.
//   sums [gridDim.x, 2, K * K, G, R]
template <typename T, int K, int CHANNELS, int OUTPUTS, int SIDE, int LANES>
__global__ void __launch_bounds__(K* CHANNELS* LANES, 1)
    generate_backward_sums_tiled(const T* __restrict__ grad, int grad_stride, const T* __restrict__ map,
                                 int map_stride, const typename Accumulator<T>::type* __restrict__ norm,
                                 typename Accumulator<T>::type* __restrict__ sums, int squares, int height, int width,
                                 int planes, int groups) {
  using A = typename Accumulator<T>::type;
  constexpr int REACH = K / 2, WIDE = SIDE + K - 1;
  SHARED(shared);
  A* maps = reinterpret_cast<A*>(shared);
  A* grads = maps + SIDE * WIDE * CHANNELS;
  const int slices = groups / OUTPUTS, group = blockIdx.y % slices * OUTPUTS;
  const int first = blockIdx.y / slices % (planes / CHANNELS) * CHANNELS, up = blockIdx.y / slices / (planes / CHANNELS);
  const int c = threadIdx.x % CHANNELS, along = threadIdx.x / CHANNELS % K, lane = threadIdx.x / CHANNELS / K;
  const int o = up * K + along;
  const A scale = norm[(o * planes + first + c) * 2], shift = norm[(o * planes + first + c) * 2 + 1];
  A made[2][OUTPUTS] = {};
  for (int i = blockIdx.x; i < squares; i += gridDim.x) {
    const Square at = square<SIDE>(i, height, width);
    const long long pixels = at.image * height * width;
    __syncthreads();
    load_tile<T, A, SIDE, WIDE, CHANNELS, CHANNELS, REACH, REFLECTED>(
        maps, map + pixels * map_stride + first, map_stride, at.top + up - REACH, at.left - REACH, height, width);
    load_tile<T, A, SIDE, SIDE, OUTPUTS, OUTPUTS, 0, ZERO>(grads, grad + pixels * grad_stride + group, grad_stride,
                                                           at.top, at.left, height, width);
    __syncthreads();
    for (int pixel = lane; pixel < SIDE * SIDE; pixel += LANES) {
      const A value = maps[(pixel / SIDE * WIDE + pixel % SIDE + along) * CHANNELS + c];
      const A open = scale * value + shift > 0 ? A(1) : A(0), seen = open * value;
      A given[OUTPUTS];
      load_all(grads + pixel * OUTPUTS, given);
#pragma unroll
      for (int j = 0; j < OUTPUTS; ++j) {
        made[0][j] += open * given[j];
        made[1][j] += seen * given[j];
      }
    }
  }
  A* gathered = maps;  // [2 * OUTPUTS, K * CHANNELS]
  for (int turn = 1; turn < LANES; ++turn) {
    __syncthreads();
    if (lane == turn)
#pragma unroll
      for (int j = 0; j < 2 * OUTPUTS; ++j)
        gathered[j * K * CHANNELS + along * CHANNELS + c] = made[j / OUTPUTS][j % OUTPUTS];
    __syncthreads();
    if (lane == 0)
#pragma unroll
      for (int j = 0; j < 2 * OUTPUTS; ++j)
        made[j / OUTPUTS][j % OUTPUTS] += gathered[j * K * CHANNELS + along * CHANNELS + c];
  }
  if (lane) return;
#pragma unroll
  for (int j = 0; j < 2 * OUTPUTS; ++j) {
    const long long set = 2 * blockIdx.x + j / OUTPUTS;
    sums[((set * K * K + o) * groups + group + j % OUTPUTS) * planes + first + c] = made[j / OUTPUTS][j % OUTPUTS];
  }
}
