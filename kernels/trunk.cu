// BatchNorm and ReLU in front of a 1x1 convolution, which is torch's, or of a 2x2 max-pool.
//
//     y = relu((x - mean) / sqrt(var + eps) * gamma + beta)        x [pixels, C], parameters and statistics [C]
//
// Backward keeps nothing but x. With g the gradient of y where y > 0, d = x - mean and s = 1 / sqrt(var + eps)
//
//     grad_beta = sum g     grad_gamma = s sum g d     grad_x = gamma s (g - mean of g - d s^2 mean of (g d))
//
// with the two means only where the statistics are those of x itself. The pool keeps no indices: which pixel of a window
// is the largest is found again. A last odd row or column is in no window; its gradient comes through the statistics.
//
// SAN15 at batch 64, 224 px, bfloat16: its 15 blocks normalise 1.03 GB of maps in front of convolutions, and 0.28 GB are
// pooled to 0.07 GB. What a step moves, and the least time at the 3.35 TB/s of an H100:
//
//     channel_moments   reads both                                   1.31 GB   0.39 ms
//     norm_relu         reads and writes, forward and backward       4.11 GB   1.23 ms
//     norm_relu_sums    reads the gradient and x                     2.06 GB   0.61 ms
//     norm_relu_gradient  reads them again and writes                3.08 GB   0.92 ms
//     norm_relu_pool    reads, and writes a quarter                  0.35 GB   0.11 ms
//     pool_sums         reads a quarter and x                        0.35 GB   0.11 ms
//     pool_gradient     reads them again and writes                  0.64 GB   0.19 ms
#include "channels.cuh"

constexpr int CHUNK = 4;  // pixels that have a mean of their own before they join the others

// Mean of some numbers, and the sum of their squared distances from it.
template <typename R>
struct Spread {
  R mean, squares;

  // Joins `share` = more / (count + more) of all, to the `count` that are here (Chan, Golub and LeVeque 1979).
  __device__ __forceinline__ void join(R count, R share, R other_mean, R other_squares) {
    const R apart = other_mean - mean;
    mean += apart * share;
    squares += other_squares + apart * apart * count * share;
  }
};

// How much of all the joined ones are; 0 where neither has any.
template <typename R>
__device__ __forceinline__ R share_of(R count, R more) { return more > R(0) ? more / (count + more) : R(0); }

// Joins the block's rows of threads; the threads of row 0 get all. `shared` has 2 V + 1 numbers a thread.
template <int V, typename R>
__device__ __forceinline__ void join_rows(Spread<R> (&spread)[V], R count, R* shared) {
  const int threads = blockDim.x * blockDim.y, mine = threadIdx.y * blockDim.x + threadIdx.x;
  R *means = shared, *squares = shared + V * threads, *counts = shared + 2 * V * threads;
  for (int rows = blockDim.y; rows > 1; rows /= 2) {
    if (threadIdx.y < rows) {
#pragma unroll
      for (int i = 0; i < V; ++i) {
        means[i * threads + mine] = spread[i].mean;
        squares[i * threads + mine] = spread[i].squares;
      }
      counts[mine] = count;
    }
    __syncthreads();
    if (threadIdx.y < rows / 2) {
      const int other = mine + rows / 2 * blockDim.x;
      const R share = share_of(count, counts[other]);
#pragma unroll
      for (int i = 0; i < V; ++i)
        if (share > R(0)) spread[i].join(count, share, means[i * threads + other], squares[i * threads + other]);
      count += counts[other];
    }
  }
}

// Joins the first `more` pixels of a chunk to the `count` that are in `spread`.
template <typename R, int V>
__device__ __forceinline__ void add_chunk(const R (&value)[CHUNK][V], const R (&origin)[V], R count, R more,
                                          Spread<R> (&spread)[V]) {
  const R part = R(1) / more, share = more / (count + more);
#pragma unroll
  for (int i = 0; i < V; ++i) {
    R mean = 0, squares = 0;
#pragma unroll
    for (int k = 0; k < CHUNK; ++k) mean += R(k) < more ? value[k][i] - origin[i] : R(0);
    mean *= part;
#pragma unroll
    for (int k = 0; k < CHUNK; ++k) {
      const R distance = R(k) < more ? value[k][i] - origin[i] - mean : R(0);
      squares += distance * distance;
    }
    spread[i].join(count, share, mean, squares);
  }
}

// Mean and squared distances of each channel over each part of the pixels: [parts, C] each. Means are distances from the
// map's first pixel, `origin` [C], and a chunk of pixels has a mean of its own: neither a large mean nor a pixel far
// outside costs digits.
template <typename T, int V>
__global__ void channel_moments(const T* __restrict__ x, typename Accumulator<T>::type* __restrict__ means,
                                typename Accumulator<T>::type* __restrict__ squares,
                                typename Accumulator<T>::type* __restrict__ origin, int pixels, int channels,
                                int share) {
  using R = typename Accumulator<T>::type;
  SHARED(memory);
  const Work<V> work(pixels, channels, share);
  R first[V] = {}, count = 0;
  Spread<R> spread[V] = {};
  if (!work.idle) load<V>(x + work.channel, first);
  for (int pixel = work.start(); pixel < work.last; pixel += CHUNK * blockDim.y) {
    R value[CHUNK][V], more = 0;
#pragma unroll
    for (int k = 0; k < CHUNK; ++k) {
      const int at = pixel + k * blockDim.y;
      const bool inside = at < work.last;
      load<V>(x + static_cast<long long>(inside ? at : pixel) * channels + work.channel, value[k]);
      more += inside ? R(1) : R(0);
    }
    add_chunk(value, first, count, more, spread);
    count += more;
  }
  join_rows<V>(spread, count, reinterpret_cast<R*>(memory));
  if (threadIdx.y > 0 || work.idle) return;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const long long at = static_cast<long long>(blockIdx.x) * channels + work.channel + i;
    means[at] = spread[i].mean;
    squares[at] = spread[i].squares;
    if (blockIdx.x == 0) origin[work.channel + i] = first[i];
  }
}

// Mean and biased variance [C] from those of the parts; `mean` holds the origin. A thread sees every `blockDim.y`th part.
template <typename R>
__global__ void join_moments(const R* __restrict__ means, const R* __restrict__ squares, R* __restrict__ mean,
                             R* __restrict__ var, int pixels, int channels, int share, int parts) {
  SHARED(memory);
  const int channel = blockIdx.x * blockDim.x + threadIdx.x;
  Spread<R> spread[1] = {};
  R count = 0;
  if (channel < channels) {
#pragma unroll 4
    for (int part = threadIdx.y; part < parts; part += blockDim.y) {
      const int left = pixels - part * share, at = part * channels + channel;
      const R more = left < share ? left : share;
      spread[0].join(count, more / (count + more), means[at], squares[at]);
      count += more;
    }
  }
  join_rows<1>(spread, count, reinterpret_cast<R*>(memory));
  if (threadIdx.y > 0 || channel >= channels) return;
  mean[channel] += spread[0].mean;
  var[channel] = spread[0].squares / R(pixels);
}

// y of x, V channels of a pixel at a time.
template <typename T, int V>
__global__ void norm_relu(const T* __restrict__ x, const typename Accumulator<T>::type* __restrict__ gamma,
                          const typename Accumulator<T>::type* __restrict__ beta,
                          const typename Accumulator<T>::type* __restrict__ mean,
                          const typename Accumulator<T>::type* __restrict__ var, typename Accumulator<T>::type eps,
                          T* __restrict__ y, int pixels, int channels, int share) {
  using R = typename Accumulator<T>::type;
  const Work<V> work(pixels, channels, share);
  if (work.idle) return;
  const Norm<R, V> norm(gamma, beta, mean, var, eps, work.channel);
#pragma unroll 4
  for (int pixel = work.start(); pixel < work.last; pixel += blockDim.y) {
    const long long at = static_cast<long long>(pixel) * channels + work.channel;
    R value[V];
    load_distances(x + at, norm, value);
#pragma unroll
    for (int i = 0; i < V; ++i) value[i] = relu(norm(value[i], i));
    store<V>(y + at, value);
  }
}

// The sums of g and of g d over each part of the pixels: [parts, 2, C].
template <typename T, int V>
__global__ void norm_relu_sums(const T* __restrict__ grad, const T* __restrict__ x,
                               const typename Accumulator<T>::type* __restrict__ gamma,
                               const typename Accumulator<T>::type* __restrict__ beta,
                               const typename Accumulator<T>::type* __restrict__ mean,
                               const typename Accumulator<T>::type* __restrict__ var,
                               typename Accumulator<T>::type eps, typename Accumulator<T>::type* __restrict__ sums,
                               int pixels, int channels, int share) {
  using R = typename Accumulator<T>::type;
  SHARED(memory);
  const Work<V> work(pixels, channels, share);
  R sum[2][V] = {};
  if (!work.idle) {
    const Norm<R, V> norm(gamma, beta, mean, var, eps, work.channel);
#pragma unroll 2
    for (int pixel = work.start(); pixel < work.last; pixel += blockDim.y) {
      const long long at = static_cast<long long>(pixel) * channels + work.channel;
      R distance[V], g[V];
      load_distances(x + at, norm, distance);
      load<V>(grad + at, g);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        g[i] = relu_backward(norm(distance[i], i), g[i]);
        sum[0][i] += g[i];
        sum[1][i] += g[i] * distance[i];
      }
    }
  }
  write_sums(sum, work, channels, reinterpret_cast<R*>(memory), sums);
}

// Gradients of gamma and beta [C] from the sums of the parts, and what grad_x takes from them: a number for each channel,
// and a number for each unit of distance from the mean.
template <typename R>
__global__ void norm_gradients(const R* __restrict__ sums, const R* __restrict__ gamma, const R* __restrict__ var, R eps,
                               R* __restrict__ grad_gamma, R* __restrict__ grad_beta, R* __restrict__ of_mean,
                               R* __restrict__ of_distance, int pixels, int channels, int parts) {
  SHARED(memory);
  const int channel = blockIdx.x * blockDim.x + threadIdx.x;
  const bool idle = channel >= channels;
  R total[2];
  add_parts(total, sums + channel, idle ? 0 : parts, channels, reinterpret_cast<R*>(memory));
  if (threadIdx.y > 0 || idle) return;
  const R invstd = rsqrt(var[channel] + eps), scale = gamma[channel] * invstd;
  grad_beta[channel] = total[0];
  grad_gamma[channel] = total[1] * invstd;
  of_mean[channel] = -scale * total[0] / R(pixels);
  of_distance[channel] = -scale * invstd * invstd * (total[1] / R(pixels));
}

// What the gradient of x takes from the batch at V channels: nothing where the statistics were given.
template <typename R, int V>
struct OfBatch {
  R mean[V], distance[V];
  bool batch;

  __device__ __forceinline__ OfBatch(const R* of_mean, const R* of_distance, bool batch, int channel) : batch(batch) {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      mean[i] = of_mean[channel + i];
      distance[i] = of_distance[channel + i];
    }
  }
  // Not 0 times the distance: that may be infinite.
  __device__ __forceinline__ R operator()(R away, int i) const { return batch ? mean[i] + distance[i] * away : R(0); }
};

// grad_x, which may be `grad` itself: a thread reads what it replaces.
template <typename T, int V>
__global__ void norm_relu_gradient(const T* grad, const T* __restrict__ x,
                                   const typename Accumulator<T>::type* __restrict__ gamma,
                                   const typename Accumulator<T>::type* __restrict__ beta,
                                   const typename Accumulator<T>::type* __restrict__ mean,
                                   const typename Accumulator<T>::type* __restrict__ var,
                                   typename Accumulator<T>::type eps,
                                   const typename Accumulator<T>::type* __restrict__ of_mean,
                                   const typename Accumulator<T>::type* __restrict__ of_distance, T* grad_x, int batch,
                                   int pixels, int channels, int share) {
  using R = typename Accumulator<T>::type;
  const Work<V> work(pixels, channels, share);
  if (work.idle) return;
  const Norm<R, V> norm(gamma, beta, mean, var, eps, work.channel);
  const OfBatch<R, V> of_batch(of_mean, of_distance, batch, work.channel);
  for (int pixel = work.start(); pixel < work.last; pixel += blockDim.y) {
    const long long at = static_cast<long long>(pixel) * channels + work.channel;
    R distance[V], g[V];
    load_distances(x + at, norm, distance);
    load<V>(grad + at, g);
#pragma unroll
    for (int i = 0; i < V; ++i)
      g[i] = relu_backward(norm(distance[i], i), g[i]) * norm.scale[i] + of_batch(distance[i], i);
    store<V>(grad_x + at, g);
  }
}

// The largest normalised values of a window at V channels, and how far their x lie from the mean.
template <typename R, int V>
struct Window {
  Largest<R> largest[V];
  R distance[V];

  template <typename T>
  __device__ __forceinline__ void find(const T* x, const Pooling& pooling, const Norm<R, V>& norm, int channels) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      R next[V];
      load_distances(x + static_cast<long long>(pooling.step(k)) * channels, norm, next);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        if (k == 0) largest[i].start(norm(next[i], i));
        if (k == 0 || largest[i].take(norm(next[i], i), k)) distance[i] = next[i];
      }
    }
  }
};

// The 2x2 max-pool of relu(norm(x)), V channels of a window at a time.
template <typename T, int V>
__global__ void norm_relu_pool(const T* __restrict__ x, const typename Accumulator<T>::type* __restrict__ gamma,
                               const typename Accumulator<T>::type* __restrict__ beta,
                               const typename Accumulator<T>::type* __restrict__ mean,
                               const typename Accumulator<T>::type* __restrict__ var,
                               typename Accumulator<T>::type eps, T* __restrict__ y, int height, int width, int windows,
                               int channels, int share) {
  using R = typename Accumulator<T>::type;
  const Work<V> work(windows, channels, share);
  if (work.idle) return;
  const Norm<R, V> norm(gamma, beta, mean, var, eps, work.channel);
  const Pooling pooling{height, width};
  for (int window = work.start(); window < work.last; window += blockDim.y) {
    Window<R, V> found;
    const long long corner = pooling.corner(window);
    found.find(x + corner * channels + work.channel, pooling, norm, channels);
    R value[V];
#pragma unroll
    for (int i = 0; i < V; ++i) value[i] = relu(found.largest[i].value);
    store<V>(y + static_cast<long long>(window) * channels + work.channel, value);
  }
}

// As norm_relu_sums, with g at the largest pixel of each window.
template <typename T, int V>
__global__ void pool_sums(const T* __restrict__ grad, const T* __restrict__ x,
                          const typename Accumulator<T>::type* __restrict__ gamma,
                          const typename Accumulator<T>::type* __restrict__ beta,
                          const typename Accumulator<T>::type* __restrict__ mean,
                          const typename Accumulator<T>::type* __restrict__ var, typename Accumulator<T>::type eps,
                          typename Accumulator<T>::type* __restrict__ sums, int height, int width, int windows,
                          int channels, int share) {
  using R = typename Accumulator<T>::type;
  SHARED(memory);
  const Work<V> work(windows, channels, share);
  R sum[2][V] = {};
  if (!work.idle) {
    const Norm<R, V> norm(gamma, beta, mean, var, eps, work.channel);
    const Pooling pooling{height, width};
    for (int window = work.start(); window < work.last; window += blockDim.y) {
      Window<R, V> found;
      const long long corner = pooling.corner(window);
      found.find(x + corner * channels + work.channel, pooling, norm, channels);
      R g[V];
      load<V>(grad + static_cast<long long>(window) * channels + work.channel, g);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        g[i] = relu_backward(found.largest[i].value, g[i]);
        sum[0][i] += g[i];
        sum[1][i] += g[i] * found.distance[i];
      }
    }
  }
  write_sums(sum, work, channels, reinterpret_cast<R*>(memory), sums);
}

// grad_x, V channels of a cell at a time: four pixels of a window, or those that no window has.
template <typename T, int V>
__global__ void pool_gradient(const T* __restrict__ grad, const T* __restrict__ x,
                              const typename Accumulator<T>::type* __restrict__ gamma,
                              const typename Accumulator<T>::type* __restrict__ beta,
                              const typename Accumulator<T>::type* __restrict__ mean,
                              const typename Accumulator<T>::type* __restrict__ var, typename Accumulator<T>::type eps,
                              const typename Accumulator<T>::type* __restrict__ of_mean,
                              const typename Accumulator<T>::type* __restrict__ of_distance, T* __restrict__ grad_x,
                              int batch, int height, int width, int cells, int channels, int share) {
  using R = typename Accumulator<T>::type;
  const Work<V> work(cells, channels, share);
  if (work.idle) return;
  const Norm<R, V> norm(gamma, beta, mean, var, eps, work.channel);
  const OfBatch<R, V> of_batch(of_mean, of_distance, batch, work.channel);
  const Pooling pooling{height, width};
  for (int i = work.start(); i < work.last; i += blockDim.y) {
    const Cell cell(pooling, i);
    const long long corner = static_cast<long long>(cell.corner) * channels + work.channel;
    R g[V] = {};
    int which[V] = {};
    if (cell.window >= 0) {
      Window<R, V> found;
      found.find(x + corner, pooling, norm, channels);
      load<V>(grad + static_cast<long long>(cell.window) * channels + work.channel, g);
#pragma unroll
      for (int c = 0; c < V; ++c) {
        g[c] = relu_backward(found.largest[c].value, g[c]) * norm.scale[c];
        which[c] = found.largest[c].which;
      }
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (!cell.has(k)) continue;
      const long long at = corner + static_cast<long long>(pooling.step(k)) * channels;
      R value[V];
      load_distances(x + at, norm, value);
#pragma unroll
      for (int c = 0; c < V; ++c) value[c] = (which[c] == k ? g[c] : R(0)) + of_batch(value[c], c);
      store<V>(grad_x + at, value);
    }
  }
}
