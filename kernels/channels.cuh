// Kernels over the channels of a map: who takes what, BatchNorm and ReLU, sums over all pixels of a channel.
//
// Maps are [pixels, C], channels last, without gaps. A block is `blockDim.x` threads wide, a power of two, each with V
// neighbouring channels of a pixel, and has as many rows of threads, a power of two too, each at a pixel of its own.
// Block (x, y) takes part x of the pixels, `share` of them, and tile y of the channels. So neighbouring threads read
// neighbouring numbers, and the parameters of a channel are read once by a thread that sees many pixels.
// What is cut where follows from the shape alone, and sums are added in a fixed order: the same bits on every card.
#pragma once
#include "common.cuh"

// What this thread takes: V channels from `channel` on, at every `blockDim.y`th pixel from `first` to `last`.
template <int V>
struct Work {
  int channel, first, last;
  bool idle;  // behind the last channel; it still waits with the others

  __device__ __forceinline__ Work(int pixels, int channels, int share)
      : channel((blockIdx.y * blockDim.x + threadIdx.x) * V),
        first(blockIdx.x * share),  // the host takes no more parts than there are pixels
        last(pixels - first < share ? pixels : first + share),
        idle(channel >= channels) {}
  __device__ __forceinline__ int start() const { return idle ? last : first + threadIdx.y; }
};

template <typename R>
__device__ __forceinline__ R relu(R y) { return y < R(0) ? R(0) : y; }  // NaN stays

// The gradient in front of a ReLU that gave y. NaN lets it through, as in torch.
template <typename R>
__device__ __forceinline__ R relu_backward(R y, R grad) { return y <= R(0) ? R(0) : grad; }

// A BatchNorm at V channels, of distances from the mean.
template <typename R, int V>
struct Norm {
  R mean[V], scale[V], beta[V];

  __device__ __forceinline__ Norm(const R* gammas, const R* betas, const R* means, const R* vars, R eps, int channel) {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      mean[i] = means[channel + i];
      beta[i] = betas[channel + i];
      scale[i] = gammas[channel + i] * rsqrt(vars[channel + i] + eps);
    }
  }
  __device__ __forceinline__ R operator()(R distance, int i) const { return distance * scale[i] + beta[i]; }
};

// The distances of V numbers from the mean.
template <typename T, typename R, int V>
__device__ __forceinline__ void load_distances(const T* x, const Norm<R, V>& norm, R (&distance)[V]) {
  load<V>(x, distance);
#pragma unroll
  for (int i = 0; i < V; ++i) distance[i] -= norm.mean[i];
}

// The largest of a 2x2 window, and which it is. NaN is larger than all; of equals it is the first: as in torch.
template <typename R>
struct Largest {
  R value;
  int which;

  __device__ __forceinline__ void start(R first) {
    value = first;
    which = 0;
  }
  __device__ __forceinline__ bool take(R next, int place) {
    const bool larger = next > value || next != next;
    value = larger ? next : value;
    which = larger ? place : which;
    return larger;
  }
};

// A map that is pooled in windows of 2x2 pixels.
struct Pooling {
  int height, width;

  __device__ __forceinline__ int rows() const { return height / 2; }
  __device__ __forceinline__ int columns() const { return width / 2; }
  // From the upper left pixel of a window to its pixel k.
  __device__ __forceinline__ int step(int k) const { return k / 2 * width + k % 2; }
  // The upper left pixel of window i of all images.
  __device__ __forceinline__ int corner(int i) const {
    const int line = i / columns();
    return (line / rows() * height + line % rows() * 2) * width + i % columns() * 2;
  }
};

// Cells cover the whole map: windows and, where a side is odd, what is left of one behind the last.
struct Cell {
  int corner, window, right, below;  // its upper left pixel; its window, or -1; whether the map goes on there

  __device__ __forceinline__ Cell(const Pooling& pooling, int i) {
    const int rows = (pooling.height + 1) / 2, columns = (pooling.width + 1) / 2;
    const int column = i % columns, row = i / columns % rows, image = i / columns / rows;
    corner = (image * pooling.height + 2 * row) * pooling.width + 2 * column;
    right = column < pooling.columns();
    below = row < pooling.rows();
    window = right && below ? (image * pooling.rows() + row) * pooling.columns() + column : -1;
  }
  __device__ __forceinline__ bool has(int k) const { return (k % 2 == 0 || right) && (k / 2 == 0 || below); }
};

// Sums of each of COUNT values over the block's rows of threads; the threads of row 0 get them.
template <int COUNT, typename R>
__device__ __forceinline__ void sum_rows(R (&value)[COUNT], R* shared) {
  const int threads = blockDim.x * blockDim.y, mine = threadIdx.y * blockDim.x + threadIdx.x;
#pragma unroll
  for (int i = 0; i < COUNT; ++i) shared[i * threads + mine] = value[i];
  for (int rows = blockDim.y / 2; rows > 0; rows /= 2) {
    __syncthreads();
    if (threadIdx.y < rows) {
#pragma unroll
      for (int i = 0; i < COUNT; ++i) {
        value[i] += shared[i * threads + mine + rows * blockDim.x];
        shared[i * threads + mine] = value[i];
      }
    }
  }
}

// Adds up what a block's threads have of COUNT sums for each of V channels, and writes them: [parts, COUNT, C].
template <int V, int COUNT, typename R>
__device__ __forceinline__ void write_sums(R (&sum)[COUNT][V], const Work<V>& work, int channels, R* shared, R* sums) {
  R flat[COUNT * V];
#pragma unroll
  for (int i = 0; i < COUNT * V; ++i) flat[i] = sum[i / V][i % V];
  sum_rows(flat, shared);
  if (threadIdx.y > 0 || work.idle) return;
#pragma unroll
  for (int kind = 0; kind < COUNT; ++kind) {
    const long long at = (static_cast<long long>(blockIdx.x) * COUNT + kind) * channels + work.channel;
#pragma unroll
    for (int i = 0; i < V; ++i) sums[at + i] = flat[kind * V + i];
  }
}

// The sums of a channel over all parts; the threads of row 0 get them. `sums` is at the channel's first one.
template <int COUNT, typename R>
__device__ __forceinline__ void add_parts(R (&total)[COUNT], const R* sums, int parts, int channels, R* shared) {
#pragma unroll
  for (int kind = 0; kind < COUNT; ++kind) total[kind] = 0;
#pragma unroll 4
  for (int part = threadIdx.y; part < parts; part += blockDim.y)
#pragma unroll
    for (int kind = 0; kind < COUNT; ++kind) total[kind] += sums[(part * COUNT + kind) * channels];
  sum_rows(total, shared);
}
