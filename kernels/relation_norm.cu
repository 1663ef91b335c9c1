// norm1 of patchwise attention, a BatchNorm of every channel of query and of key at every offset: its statistics, what
// they make of the relation, and the way back, without a copy of key for each offset (sancli/ops/statistics.py has the
// formulas). Any K and any map.
//
// R channels, O = K * K + 1 offsets, the last of which is query. In the published order channel r of query has number r,
// and channel r of key at offset o number R + r * K * K + o. All numbers but maps are of the type of sums.
#include "common.cuh"

template <typename T>
using Sum = typename Accumulator<T>::type;

// One thread a channel of a pixel of key (blockIdx.y 0) or query (1), over all images.
//   moments [2, H * W, R, 2]: the mean, and the mean of squares of distances from it
template <typename T>
__global__ void relation_moments(const T* __restrict__ key, int key_stride, const T* __restrict__ query,
                                 int query_stride, Sum<T>* __restrict__ moments, int images, int pixels, int planes) {
  const long long number = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
  if (number >= static_cast<long long>(pixels) * planes) return;
  const int i = static_cast<int>(number);  // of those of an image; the last block may count on past 32 bits
  const int stride = blockIdx.y ? query_stride : key_stride;
  const T* map = (blockIdx.y ? query : key) + i / planes * stride + i % planes;
  const long long step = static_cast<long long>(pixels) * stride;
  const Sum<T> first = to_accumulator(*map);  // distances from it lose nothing, whatever the mean
  Sum<T> sum = 0, squares = 0;
#pragma unroll 8
  for (int n = 0; n < images; ++n) {
    const Sum<T> distance = to_accumulator(map[n * step]) - first;
    sum += distance;
    squares += distance * distance;
  }
  sum /= images;
  Sum<T>* out = moments + (static_cast<long long>(blockIdx.y) * pixels * planes + i) * 2;
  out[0] = first + sum;
  out[1] = squares / images - sum * sum;
}

// The sum over a block, in every thread, always in the same order.
template <typename A>
__device__ __forceinline__ A block_sum(A x, A* shared) {
  x = warp_sum(x);
  if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = x;
  __syncthreads();
  x = 0;
  for (int i = 0; i < blockDim.x / WARP; ++i) x += shared[i];
  return x;
}

// One block a channel of key (blockIdx.y 0) or query (1). Mean and variance [R * O] in the published order are made of
// moments, or given where there are none.
//   norm [O, R, 2]: scale and shift      lines [2, R, 2, K, W]: room for sums over what an offset shows of a column
template <typename A>
__global__ void relation_fold(const A* __restrict__ moments, const A* __restrict__ gamma, const A* __restrict__ beta,
                              A* __restrict__ mean, A* __restrict__ var, A* __restrict__ norm, A* __restrict__ lines,
                              A eps, int height, int width, int planes, int kernel_size) {
  SHARED(shared);
  const bool is_query = blockIdx.y;
  const int r = blockIdx.x, k = is_query ? 1 : kernel_size, reach = k / 2, pixels = height * width;
  const auto number = [&](int o) { return is_query ? r : planes + r * k * k + o; };
  if (moments) {
    const A* of_channel = moments + (static_cast<long long>(blockIdx.y) * pixels * planes + r) * 2;
    A* first = lines + (static_cast<long long>(blockIdx.y) * planes + r) * 2 * kernel_size * width;
    A* second = first + k * width;
    A centre = 0;
    for (int i = threadIdx.x; i < pixels; i += blockDim.x) centre += of_channel[static_cast<long long>(i) * planes * 2];
    centre = block_sum(centre, reinterpret_cast<A*>(shared)) / pixels;
    for (int i = threadIdx.x; i < k * width; i += blockDim.x) {
      A sum = 0, squares = 0;
#pragma unroll 8
      for (int y = 0; y < height; ++y) {
        const int row = reflect(y + i / width - reach, height);
        const A* at = of_channel + static_cast<long long>(row * width + i % width) * planes * 2;
        const A distance = at[0] - centre;
        sum += distance;
        squares += at[1] + distance * distance;
      }
      first[i] = sum, second[i] = squares;
    }
    __syncthreads();
    for (int o = threadIdx.x; o < k * k; o += blockDim.x) {
      A sum = 0, squares = 0;
      for (int x = 0; x < width; ++x) {
        const int i = o / k * width + reflect(x + o % k - reach, width);
        sum += first[i], squares += second[i];
      }
      sum /= pixels, squares = squares / pixels - sum * sum;
      mean[number(o)] = centre + sum;
      var[number(o)] = squares < 0 ? A(0) : squares;
    }
  }
  for (int o = threadIdx.x; o < k * k; o += blockDim.x) {
    const A scale = gamma[number(o)] * rsqrt(var[number(o)] + eps);
    A* out = norm + ((is_query ? kernel_size * kernel_size : o) * planes + r) * 2;
    out[0] = scale;
    out[1] = beta[number(o)] - mean[number(o)] * scale;
  }
}

// One thread a channel at an offset: the gradients of gamma, beta, mean and variance, and of weight1, from the sums of
// generate_backward_sums over all shares. Never divides by gamma, which may be 0.
//   key_sums [2, K * K, G, R]      query_sums [2, G, R]      weight, grad_weight [G, R * O]
//   statistics [2, R * O]: of mean and variance
template <typename A>
__global__ void relation_backward_parameters(const A* __restrict__ key_sums, const A* __restrict__ query_sums,
                                             const A* __restrict__ weight, const A* __restrict__ norm,
                                             const A* __restrict__ mean, const A* __restrict__ var,
                                             A* __restrict__ grad_weight, A* __restrict__ grad_gamma,
                                             A* __restrict__ grad_beta, A* __restrict__ statistics, A eps, int planes,
                                             int groups, int kernel_size) {
  const int offsets = kernel_size * kernel_size, total = (offsets + 1) * planes;
  const int i = blockIdx.x * blockDim.x + threadIdx.x, o = i / planes, r = i % planes;
  if (i >= total) return;
  const bool is_query = o == offsets;
  const int number = is_query ? r : planes + r * offsets + o;
  const A* passed = is_query ? query_sums + r : key_sums + o * groups * planes + r;
  const A* seen = passed + (is_query ? 1 : offsets) * groups * planes;
  const A scale = norm[i * 2], shift = norm[i * 2 + 1], inverse = rsqrt(var[number] + eps);
  A grad_scale = 0, grad_shift = 0;
#pragma unroll 4
  for (int g = 0; g < groups; ++g) {
    const A w = weight[g * total + number];
    grad_scale += w * seen[g * planes];
    grad_shift += w * passed[g * planes];
    grad_weight[g * total + number] = scale * seen[g * planes] + shift * passed[g * planes];
  }
  grad_scale -= mean[number] * grad_shift;
  grad_gamma[number] = grad_scale * inverse;
  grad_beta[number] = grad_shift;
  statistics[number] = -scale * grad_shift;
  statistics[total + number] = grad_scale * scale * inverse * inverse * A(-0.5);
}

// One thread a channel of a pixel of key (blockIdx.y 0) or query (1): what its gradient takes through the statistics,
// constant + linear * map. An offset's mean and variance take from a pixel as often as the offset shows it.
//   fields [2, 2, H * W, R]: constant and linear
template <typename A>
__global__ void relation_backward_fields(const A* __restrict__ statistics, const A* __restrict__ mean,
                                         A* __restrict__ fields, A count, int height, int width, int planes,
                                         int kernel_size) {
  const long long number = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
  const long long numbers = static_cast<long long>(height) * width * planes;
  if (number >= numbers) return;
  const int i = static_cast<int>(number);
  const bool is_query = blockIdx.y;
  const int r = i % planes, y = i / planes / width, x = i / planes % width;
  const int k = is_query ? 1 : kernel_size, reach = k / 2, first = is_query ? r : planes + r * k * k;
  const int total = (kernel_size * kernel_size + 1) * planes;
  const A centre = mean[first + k * k / 2];  // distances from the channel's own mean lose least
  A constant = 0, linear = 0;
  for (int row = first_preimage(y, height, reach); row < height + reach; row = next_preimage(row, y, height))
    for (int column = first_preimage(x, width, reach); column < width + reach; column = next_preimage(column, x, width))
      for (int o = 0; o < k * k; ++o) {
        const int from_y = row - o / k + reach, from_x = column - o % k + reach;
        if (from_y < 0 || from_y >= height || from_x < 0 || from_x >= width) continue;
        const A of_var = 2 * statistics[total + first + o];
        constant += statistics[first + o] - of_var * (mean[first + o] - centre);
        linear += of_var;
      }
  A* out = fields + 2 * blockIdx.y * numbers + i;
  out[0] = (constant - linear * centre) / count;
  out[numbers] = linear / count;
}
