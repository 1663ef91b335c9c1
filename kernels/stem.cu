// The stem in one pass over the image: 1x1 convolution from 3 channels, BatchNorm, ReLU and 2x2 max-pool.
//
//     y = max_pool2(relu(norm(weight image)))        image [N, H, W, 3], weight [C, 3], y [N, H / 2, W / 2, C]
//
// The convolution's output is never in memory. With mu the mean of the image and V its covariance, both in double, the
// mean of that output is weight mu and its variance diag(weight V weight^T), so that norm and convolution are one: a
// kernel times the distance of the image from a centre, and a bias. The centre is mu, or 0 where statistics are given.
//
// SAN at batch 64, 224 px, bfloat16, C = 64: the image is 19.3 MB and y 102.8 MB. What is moved, and the least time at
// the 3.35 TB/s of an H100:
//
//     image_moments        reads the image, forward and backward       39 MB   0.012 ms
//     stem                 reads the image and writes y               122 MB   0.036 ms
//     stem_sums            reads the image and the gradient of y      122 MB   0.036 ms
//     stem_image_gradient  reads both and writes; only where wanted   141 MB   0.042 ms
//
// In between, stem_fold and the like move a few kilobytes; they take as long as a launch does.
#include "channels.cuh"

constexpr int COLOURS = 3;
constexpr int MOMENTS = 9;  // sums of the distances of three colours, and of their six products
constexpr int SUMS = COLOURS + 1;

// Sums over each part of the pixels, [parts, MOMENTS]: distances from the image's first pixel, and their products.
template <typename T>
__global__ void image_moments(const T* __restrict__ image, double* __restrict__ sums, int pixels, int share) {
  SHARED(memory);
  const Work<1> work(pixels, 1, share);
  double sum[MOMENTS][1] = {}, centre[COLOURS];
#pragma unroll
  for (int i = 0; i < COLOURS; ++i) centre[i] = to_accumulator(image[i]);
  for (int pixel = work.start(); pixel < work.last; pixel += blockDim.y) {
    const T* colours = image + static_cast<long long>(pixel) * COLOURS;
    double distance[COLOURS];
#pragma unroll
    for (int i = 0; i < COLOURS; ++i) {
      distance[i] = to_accumulator(colours[i]) - centre[i];
      sum[i][0] += distance[i];
    }
    int product = COLOURS;
#pragma unroll
    for (int i = 0; i < COLOURS; ++i)
#pragma unroll
      for (int j = i; j < COLOURS; ++j) sum[product++][0] += distance[i] * distance[j];
  }
  write_sums(sum, work, 1, reinterpret_cast<double*>(memory), sums);
}

// Mean [3] and covariance [3, 3] of the image from the sums of the parts.
struct Moments {
  double mean[COLOURS], covariance[COLOURS][COLOURS];
};

template <typename T>
__global__ void join_image_moments(const T* __restrict__ image, const double* __restrict__ sums,
                                   Moments* __restrict__ moments, int pixels, int parts) {
  SHARED(memory);
  double total[MOMENTS];
  add_parts(total, sums, parts, 1, reinterpret_cast<double*>(memory));
  if (threadIdx.y > 0) return;
  int product = COLOURS;
#pragma unroll
  for (int i = 0; i < COLOURS; ++i) {
    moments->mean[i] = to_accumulator(image[i]) + total[i] / pixels;
#pragma unroll
    for (int j = i; j < COLOURS; ++j) {
      const double value = total[product++] / pixels - total[i] / pixels * (total[j] / pixels);
      moments->covariance[i][j] = moments->covariance[j][i] = value;
    }
  }
}

template <typename R>
__device__ __forceinline__ double dot(const R* weight, const double* colour) {
  double sum = 0;
#pragma unroll
  for (int i = 0; i < COLOURS; ++i) sum += weight[i] * colour[i];
  return sum;
}

// Where distances are taken from: the image's mean, or 0.
__device__ __forceinline__ double centre_of(const Moments* moments, int colour) {
  return moments ? moments->mean[colour] : 0.;
}

// One thread a channel: convolution and BatchNorm as one, [SUMS, C]: three colours and the bias; and the centre [3].
// Where `own` is set, the statistics are those of the image, and are written first. `moments` is null where they are not
// used.
template <typename R>
__global__ void stem_fold(const Moments* __restrict__ moments, const R* __restrict__ weight,
                          const R* __restrict__ gamma, const R* __restrict__ beta, R* mean, R* var, double eps,
                          R* __restrict__ kernel, R* __restrict__ centre, int own, int channels) {
  const int channel = blockIdx.x * blockDim.x + threadIdx.x;
  if (channel >= channels) return;
  const R* w = weight + channel * COLOURS;
  double about[COLOURS];
#pragma unroll
  for (int i = 0; i < COLOURS; ++i) about[i] = static_cast<R>(centre_of(moments, i));
  if (own) {
    double spread = 0;
#pragma unroll
    for (int i = 0; i < COLOURS; ++i) spread += w[i] * dot(w, moments->covariance[i]);
    mean[channel] = static_cast<R>(dot(w, moments->mean));
    var[channel] = static_cast<R>(spread < 0 ? 0 : spread);
  }
  const double scale = gamma[channel] / sqrt(static_cast<double>(var[channel]) + eps);
#pragma unroll
  for (int i = 0; i < COLOURS; ++i) {
    kernel[i * channels + channel] = static_cast<R>(w[i] * scale);
    if (channel == 0) centre[i] = static_cast<R>(about[i]);
  }
  kernel[COLOURS * channels + channel] = static_cast<R>(beta[channel] + (dot(w, about) - mean[channel]) * scale);
}

// What stem_fold made, at V channels.
template <typename R, int V>
struct Kernel {
  R colours[COLOURS][V], bias[V];

  __device__ __forceinline__ Kernel(const R* kernel, int channel, int channels) {
#pragma unroll
    for (int c = 0; c < V; ++c) {
#pragma unroll
      for (int i = 0; i < COLOURS; ++i) colours[i][c] = kernel[i * channels + channel + c];
      bias[c] = kernel[COLOURS * channels + channel + c];
    }
  }
  __device__ __forceinline__ R operator()(const R (&pixel)[COLOURS], int c) const {
    R y = bias[c];
#pragma unroll
    for (int i = 0; i < COLOURS; ++i) y += colours[i][c] * pixel[i];
    return y;
  }
};

// The four pixels of a window, as distances from the centre.
template <typename R>
struct Colours {
  R pixel[4][COLOURS];

  template <typename T>
  __device__ __forceinline__ Colours(const T* image, const R* centre, const Pooling& pooling, int corner) {
#pragma unroll
    for (int k = 0; k < 4; ++k)
#pragma unroll
      for (int i = 0; i < COLOURS; ++i)
        pixel[k][i] =
            to_accumulator(image[static_cast<long long>(corner + pooling.step(k)) * COLOURS + i]) - centre[i];
  }
  template <int V>
  __device__ __forceinline__ Largest<R> largest(const Kernel<R, V>& kernel, int c) const {
    Largest<R> found;
    found.start(kernel(pixel[0], c));
#pragma unroll
    for (int k = 1; k < 4; ++k) found.take(kernel(pixel[k], c), k);
    return found;
  }
};

// y, V channels of a window at a time.
template <typename T, int V>
__global__ void stem(const T* __restrict__ image, const typename Accumulator<T>::type* __restrict__ kernel,
                     const typename Accumulator<T>::type* __restrict__ centre, T* __restrict__ y, int height, int width,
                     int windows, int channels, int share) {
  using R = typename Accumulator<T>::type;
  const Work<V> work(windows, channels, share);
  if (work.idle) return;
  const Kernel<R, V> at(kernel, work.channel, channels);
  const Pooling pooling{height, width};
  for (int window = work.start(); window < work.last; window += blockDim.y) {
    const Colours<R> colours(image, centre, pooling, pooling.corner(window));
    R value[V];
#pragma unroll
    for (int c = 0; c < V; ++c) value[c] = relu(colours.largest(at, c).value);
    store<V>(y + static_cast<long long>(window) * channels + work.channel, value);
  }
}

// For each channel the sums of g times the colours of the pixel that it goes to, and of g itself: [parts, SUMS, C].
template <typename T, int V>
__global__ void stem_sums(const T* __restrict__ grad, const T* __restrict__ image,
                          const typename Accumulator<T>::type* __restrict__ kernel,
                          const typename Accumulator<T>::type* __restrict__ centre,
                          typename Accumulator<T>::type* __restrict__ sums, int height, int width, int windows,
                          int channels, int share) {
  using R = typename Accumulator<T>::type;
  SHARED(memory);
  const Work<V> work(windows, channels, share);
  R sum[SUMS][V] = {};
  if (!work.idle) {
    const Kernel<R, V> at(kernel, work.channel, channels);
    const Pooling pooling{height, width};
    for (int window = work.start(); window < work.last; window += blockDim.y) {
      const Colours<R> colours(image, centre, pooling, pooling.corner(window));
      R g[V];
      load<V>(grad + static_cast<long long>(window) * channels + work.channel, g);
#pragma unroll
      for (int c = 0; c < V; ++c) {
        const Largest<R> found = colours.largest(at, c);
        g[c] = relu_backward(found.value, g[c]);
#pragma unroll
        for (int i = 0; i < COLOURS; ++i) {
          R colour = colours.pixel[0][i];
#pragma unroll
          for (int k = 1; k < 4; ++k) colour = found.which == k ? colours.pixel[k][i] : colour;
          sum[i][c] += g[c] * colour;
        }
        sum[COLOURS][c] += g[c];
      }
    }
  }
  write_sums(sum, work, channels, reinterpret_cast<R*>(memory), sums);
}

// Gradients of the parameters [C] from the sums of the parts; and of the mean and the variance [2, C], which the image
// takes its share from. `moments` is null where the statistics were given.
template <typename R>
__global__ void stem_gradients(const R* __restrict__ sums, const Moments* __restrict__ moments,
                               const R* __restrict__ weight, const R* __restrict__ gamma, const R* __restrict__ mean,
                               const R* __restrict__ var, double eps, R* __restrict__ grad_weight,
                               R* __restrict__ grad_gamma, R* __restrict__ grad_beta, double* __restrict__ of_statistics,
                               int channels, int parts) {
  SHARED(memory);
  const int channel = blockIdx.x * blockDim.x + threadIdx.x;
  const bool idle = channel >= channels;
  R total[SUMS];
  add_parts(total, sums + channel, idle ? 0 : parts, channels, reinterpret_cast<R*>(memory));
  if (threadIdx.y > 0 || idle) return;
  const R* w = weight + channel * COLOURS;
  double about[COLOURS], of_kernel[COLOURS];
#pragma unroll
  for (int i = 0; i < COLOURS; ++i) {
    about[i] = static_cast<R>(centre_of(moments, i));
    of_kernel[i] = total[i];
  }
  const double invstd = 1 / sqrt(static_cast<double>(var[channel]) + eps), scale = gamma[channel] * invstd;
  const double of_shift = total[COLOURS], of_scale = dot(w, of_kernel) + (dot(w, about) - mean[channel]) * of_shift;
  const double of_mean = -scale * of_shift, of_var = -0.5 * of_scale * scale * invstd * invstd;
  grad_gamma[channel] = static_cast<R>(of_scale * invstd);
  grad_beta[channel] = static_cast<R>(of_shift);
  of_statistics[channel] = of_mean;
  of_statistics[channels + channel] = of_var;
#pragma unroll
  for (int i = 0; i < COLOURS; ++i) {
    double of_weight = (of_kernel[i] + about[i] * of_shift) * scale;
    if (moments) of_weight += of_mean * moments->mean[i] + 2 * of_var * dot(w, moments->covariance[i]);
    grad_weight[channel * COLOURS + i] = static_cast<R>(of_weight);
  }
}

// The gradient of the image, a warp a cell, its lanes at different channels. `through` [4, 3] is what every pixel's
// gradient takes from the statistics, for each unit of distance from the centre and without; null where they were given.
template <typename T>
__global__ void stem_image_gradient(const T* __restrict__ grad, const T* __restrict__ image,
                                    const typename Accumulator<T>::type* __restrict__ kernel,
                                    const typename Accumulator<T>::type* __restrict__ centre,
                                    const typename Accumulator<T>::type* __restrict__ through,
                                    T* __restrict__ grad_image, int height, int width, int cells, int channels) {
  using R = typename Accumulator<T>::type;
  const int i = blockIdx.x * blockDim.y + threadIdx.y;
  if (i >= cells) return;  // the whole warp
  const Pooling pooling{height, width};
  const Cell cell(pooling, i);
  R sum[4][COLOURS] = {};
  if (cell.window >= 0) {
    const Colours<R> colours(image, centre, pooling, cell.corner);
    for (int channel = threadIdx.x; channel < channels; channel += WARP) {
      const Kernel<R, 1> at(kernel, channel, channels);
      const Largest<R> found = colours.largest(at, 0);
      const R g = relu_backward(
          found.value, to_accumulator(grad[static_cast<long long>(cell.window) * channels + channel]));
#pragma unroll
      for (int k = 0; k < 4; ++k)
#pragma unroll
        for (int j = 0; j < COLOURS; ++j) sum[k][j] += found.which == k ? g * at.colours[j][0] : R(0);
    }
  }
#pragma unroll
  for (int k = 0; k < 4; ++k)
#pragma unroll
    for (int j = 0; j < COLOURS; ++j) sum[k][j] = warp_sum(sum[k][j]);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    if (threadIdx.x != k || !cell.has(k)) continue;  // lane k writes pixel k
    const long long at = static_cast<long long>(cell.corner + pooling.step(k)) * COLOURS;
#pragma unroll
    for (int j = 0; j < COLOURS; ++j) {
      R value = sum[k][j];
      if (through) {
        value += through[COLOURS * COLOURS + j];
        for (int l = 0; l < COLOURS; ++l)
          value += through[l * COLOURS + j] * (to_accumulator(image[at + l]) - centre[l]);
      }
      grad_image[at + j] = from_accumulator<T>(value);
    }
  }
}
