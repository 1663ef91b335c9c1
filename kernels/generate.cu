// Weight generation of patchwise attention: the hidden layer in front of norm2, and its gradients.
//
//   z[n, i, g] = sum over o, r of weight[o, r, g] * relu(scale[o, r] * map[n, i + o, r] + shift[o, r])
//
//   map [N, H * W, R]  key seen through K * K offsets, its border reflected, and query as one offset more, the last
//   norm [K * K + 1, R, 2]  scale and shift in turn      weight [K * K + 1, R, G]      z [N, H * W, G]
//
// Maps are channels last with a stride from pixel to pixel, parameters of the type of sums. The K * K shifted copies
// of key are never in memory. Backward takes one map at a time: key with K, or query with a kernel size of 1.
//
// Here one thread makes one number: any K, R, G and map. The check for generate_tiled.cu and generate_mma.cu, and the
// way of maps smaller than the reach, whose border bounces more than once.
#include "patches.cuh"

template <typename T>
__global__ void generate_forward_naive(const T* __restrict__ query, int query_stride, const T* __restrict__ key,
                                       int key_stride, const typename Accumulator<T>::type* __restrict__ norm,
                                       const typename Accumulator<T>::type* __restrict__ weight, T* __restrict__ z,
                                       int height, int width, int kernel_size, int planes, int groups,
                                       long long total) {
  using A = typename Accumulator<T>::type;
  const long long i = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
  if (i >= total) return;
  const int g = i % groups;
  const long long pixel = i / groups;
  const int x = pixel % width, y = pixel / width % height, reach = kernel_size / 2, offsets = kernel_size * kernel_size;
  const T* image = key + pixel / width / height * height * width * key_stride;
  A sum = 0;
  for (int o = 0; o <= offsets; ++o) {
    const int row = reflect(y + o / kernel_size - reach, height), column = reflect(x + o % kernel_size - reach, width);
    const T* seen = o < offsets ? image + (row * width + column) * key_stride : query + pixel * query_stride;
    for (int r = 0; r < planes; ++r) {
      const A* affine = norm + (o * planes + r) * 2;
      sum += relu(affine[0] * to_accumulator(seen[r]) + affine[1]) * weight[(o * planes + r) * groups + g];
    }
  }
  z[i] = from_accumulator<T>(sum);
}

// One thread a number of the gradient of map. Whether relu lets it through depends on the pixel of map alone, so
// that the gradients of all z which see the pixel at offset o are added first, from wherever the border shows it.
// With weight [K * K, G, R]. What comes through the statistics of norm1 is added: constant + linear * map, each
// [H * W, R], or null.
template <typename T>
__global__ void generate_backward_map_naive(const T* __restrict__ grad, int grad_stride, const T* __restrict__ map,
                                            int map_stride, const typename Accumulator<T>::type* __restrict__ norm,
                                            const typename Accumulator<T>::type* __restrict__ weight,
                                            const typename Accumulator<T>::type* __restrict__ constant,
                                            const typename Accumulator<T>::type* __restrict__ linear,
                                            T* __restrict__ grad_map, int height, int width, int kernel_size,
                                            int planes, int groups, long long total) {
  using A = typename Accumulator<T>::type;
  const long long i = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
  if (i >= total) return;
  const int r = i % planes, x = i / planes % width, y = i / planes / width % height, reach = kernel_size / 2;
  const long long pixel = i / planes;
  const T* image = grad + pixel / width / height * height * width * grad_stride;
  const A value = to_accumulator(map[pixel * map_stride + r]);
  A sum = constant ? constant[(y * width + x) * planes + r] + linear[(y * width + x) * planes + r] * value : A(0);
  for (int row = first_preimage(y, height, reach); row < height + reach; row = next_preimage(row, y, height))
    for (int column = first_preimage(x, width, reach); column < width + reach; column = next_preimage(column, x, width))
      for (int o = 0; o < kernel_size * kernel_size; ++o) {
        const int from_y = row - o / kernel_size + reach, from_x = column - o % kernel_size + reach;
        if (from_y < 0 || from_y >= height || from_x < 0 || from_x >= width) continue;
        const A* affine = norm + (o * planes + r) * 2;
        if (!(affine[0] * value + affine[1] > 0)) continue;
        const T* given = image + (from_y * width + from_x) * grad_stride;
        A passed = 0;
        for (int g = 0; g < groups; ++g) passed += to_accumulator(given[g]) * weight[(o * groups + g) * planes + r];
        sum += affine[0] * passed;
      }
  grad_map[i] = from_accumulator<T>(sum);
}

// One thread a pair of sums over the pixels i of its share: of grad[i, g] and of grad[i, g] * map[i + o, r], where
// relu lets them through. They give the gradients of weight, scale and shift: scale * second + shift * first, and
// their products with weight, added over g.
//   sums [shares, 2, K * K, G, R]      shares: blockIdx.y
template <typename T>
__global__ void generate_backward_sums_naive(const T* __restrict__ grad, int grad_stride, const T* __restrict__ map,
                                             int map_stride, const typename Accumulator<T>::type* __restrict__ norm,
                                             typename Accumulator<T>::type* __restrict__ sums, int images, int height,
                                             int width, int kernel_size, int planes, int groups) {
  using A = typename Accumulator<T>::type;
  const int total = kernel_size * kernel_size * groups * planes, i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= total) return;
  const int r = i % planes, g = i / planes % groups, o = i / planes / groups, reach = kernel_size / 2;
  const A scale = norm[(o * planes + r) * 2], shift = norm[(o * planes + r) * 2 + 1];
  A first = 0, second = 0;
  for (int n = blockIdx.y; n < images; n += gridDim.y) {
    const T* given = grad + static_cast<long long>(n) * height * width * grad_stride + g;
    const T* image = map + static_cast<long long>(n) * height * width * map_stride + r;
    for (int pixel = 0; pixel < height * width; ++pixel) {
      const int row = reflect(pixel / width + o / kernel_size - reach, height);
      const int column = reflect(pixel % width + o % kernel_size - reach, width);
      const A value = to_accumulator(image[(row * width + column) * map_stride]);
      if (!(scale * value + shift > 0)) continue;
      const A passed = to_accumulator(given[pixel * grad_stride]);
      first += passed;
      second += passed * value;
    }
  }
  sums[static_cast<long long>(2 * blockIdx.y) * total + i] = first;
  sums[static_cast<long long>(2 * blockIdx.y + 1) * total + i] = second;
}
