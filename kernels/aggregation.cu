// Aggregation: the weighted sum over a footprint that every relation of the paper ends in.
//
//   out[n, i, c] = sum over o of weight[n, i, o, c % G] * value[n, reflect(i + o), c]
//
//   value, out  [N, H * W, M]      weight  [N, H * W, K * K, G]      channels last, with a stride from pixel to pixel
//
// Sums are in float for 16- and 32-bit types, in double for double. Backward gathers, with no atomics: a pixel of
// value is seen from every place where the reflected border shows it.
#include "common.cuh"


// One thread an element of out: any K and any map; the fallback, and the check for the tiled kernels.
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
