// Pairwise attention: what concerns the relation alone, channel by channel, and the packing of weights.
//
// A channel of the relation is a_i + b_j, for each pixel i and each j of its footprint; norm1 works on that.
#include "pairwise.cuh"

// The sum and the sum of squares of relation - centre: one thread a channel and slot, and every slots-th pixel.
// partial [slots, 2, D], slots = blocks x those of one block.
template <typename T>
__global__ void pair_relation_statistics(PAIRS, int planes, const typename Accumulator<T>::type* __restrict__ centre,
                                         int slots, typename Accumulator<T>::type* __restrict__ partial) {
  using Real = typename Accumulator<T>::type;
  const Sides sides{height, width, kernel_size};
  const Compared<T> of = COMPARED(planes);
  const int channels = planes + 2;
  for (int item = threadIdx.x; item < slots * channels; item += blockDim.x) {
    const int d = item % channels, slot = blockIdx.x * slots + item / channels;
    Real first = 0, second = 0;
    for (long long p = slot; p < pixels; p += static_cast<long long>(gridDim.x) * slots) {
      const Pixel i = pixel_at(sides, static_cast<int>(p));
      const Real left = of.left(i.index, d) - centre[d];
      for (int o = 0; o < sides.offsets(); ++o) {
        const Real x = left + of.right(seen_from(sides, i, o).index, d);
        first += x;
        second += x * x;
      }
    }
    partial[(slot * 2) * channels + d] = first;
    partial[(slot * 2 + 1) * channels + d] = second;
  }
}

// For norm1's gradients: the sums over all pairs of the normalised relation's gradient, and of its product with the
// relation less its mean, of which centre_a belongs to a and centre_b to b. Threads and partial as above.
template <typename T>
__global__ void pair_relation_products(PAIRS, int planes,
                                       const typename Accumulator<T>::type* __restrict__ centre_a,
                                       const typename Accumulator<T>::type* __restrict__ centre_b,
                                       const typename Accumulator<T>::type* __restrict__ grad_a,
                                       const typename Accumulator<T>::type* __restrict__ grad_b, int slots,
                                       typename Accumulator<T>::type* __restrict__ partial) {
  using Real = typename Accumulator<T>::type;
  const Compared<T> of = COMPARED(planes);
  const int channels = planes + 2;
  for (int item = threadIdx.x; item < slots * channels; item += blockDim.x) {
    const int d = item % channels, slot = blockIdx.x * slots + item / channels;
    Real sum = 0, product = 0;
    for (long long p = slot; p < pixels; p += static_cast<long long>(gridDim.x) * slots) {
      const int i = static_cast<int>(p);
      const Real a = grad_a[p * channels + d], b = grad_b[p * channels + d];
      sum += a;
      product += a * (of.left(i, d) - centre_a[d]) + b * (of.right(i, d) - centre_b[d]);
    }
    partial[(slot * 2) * channels + d] = sum;
    partial[(slot * 2 + 1) * channels + d] = product;
  }
}

// Through norm1: a pair's gradient is scale * (that of the normalised relation) + linear + square * (relation - mean),
// the last two through the batch's statistics. grad_a and grad_b [pixels, D] are sums over the pairs of i and of j.
// One thread a pixel and channel, which is i and j by turns. grad_place [pixels, 2].
template <typename T>
__global__ void pair_relation_backward(PAIRS, int planes, const typename Accumulator<T>::type* __restrict__ mean,
                                       const typename Accumulator<T>::type* __restrict__ scale,
                                       const typename Accumulator<T>::type* __restrict__ linear,
                                       const typename Accumulator<T>::type* __restrict__ square,
                                       const typename Accumulator<T>::type* __restrict__ grad_a,
                                       const typename Accumulator<T>::type* __restrict__ grad_b,
                                       T* __restrict__ grad_query, T* __restrict__ grad_key,
                                       typename Accumulator<T>::type* __restrict__ grad_place, int batch) {
  using Real = typename Accumulator<T>::type;
  const Sides sides{height, width, kernel_size};
  const Compared<T> of = COMPARED(planes);
  const int channels = planes + 2;
  const long long at = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
  if (at >= static_cast<long long>(pixels) * channels) return;
  const int d = at % channels;
  const Pixel p = pixel_at(sides, static_cast<int>(at / channels));
  Real a = scale[d] * grad_a[at], b = scale[d] * grad_b[at];
  if (batch) {
    const Real left = of.left(p.index, d) - mean[d], right = of.right(p.index, d) - mean[d];
    for (int o = 0; o < sides.offsets(); ++o) {
      const Partner j = seen_from(sides, p, o), i = seeing(sides, p, o);
      a += linear[d] + square[d] * (left + of.right(j.index, d));
      b += i.times * (linear[d] + square[d] * (of.left(i.index, d) + right));
    }
  }
  const long long pixel = p.index;
  if (d < planes) {
    grad_query[pixel * planes + d] = from_accumulator<T>(a);
    grad_key[pixel * planes + d] = from_accumulator<T>(sign * b);
  } else {
    grad_place[pixel * 2 + d - planes] = a - b;
  }
}

// The matrix [columns, inner] that a product reads, out of `from`: number (n, k) is from[n * row + k * column] times
// what is given for n or k, and 0 outside of `rows` and `depth`. One thread a number of `to`.
//
// Float: [inner, columns]. 16 bits: as the lanes of a warp hold it in mma.m16n8k16, one fragment behind another,
// [columns / 8, inner / 16, lane, 4].
template <typename T>
__global__ void pair_pack(const float* __restrict__ from, int row, int column, int rows, int depth,
                          const float* __restrict__ row_scale, const float* __restrict__ column_scale,
                          T* __restrict__ to, int columns, int inner) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= columns * inner) return;
  int n = at % columns, k = at / columns;
  if (sizeof(T) == 2) {
    const int lane = at / 4 % WARP, fragment = at / (4 * WARP);
    n = fragment / (inner / 16) * 8 + lane / 4;
    k = fragment % (inner / 16) * 16 + lane % 4 * 2 + at % 2 + at / 2 % 2 * 8;
  }
  float x = 0;
  if (n < rows && k < depth) {
    x = from[n * row + k * column];
    if (row_scale) x *= row_scale[n];
    if (column_scale) x *= column_scale[k];
  }
  to[at] = from_accumulator<T>(x);
}
