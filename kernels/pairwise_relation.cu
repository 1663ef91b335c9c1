// Pairwise attention: what concerns the relation alone, channel by channel, and the packing of weights.
//
// A channel of the relation is a_i + b_j, for each pixel i and each j of its footprint; norm1 works on that.
// V neighbours of channels a thread, which the place's two are as well: R is even where V is 2.
#include "pairwise.cuh"

// A vector of numbers by channel. Among them centre_a and centre_b, about the means of a and b, which are taken off
// for precision.
#define CHANNELS(NAME) const typename Accumulator<T>::type *__restrict__ NAME

// What a thread has of a vector [D].
template <int V, typename Real>
__device__ __forceinline__ void take(const Real* from, int d, Real (&to)[V]) {
#pragma unroll
  for (int v = 0; v < V; ++v) to[v] = from[d + v];
}

// Sums of V channels over a slot's pixels: [slots, 2, D].
template <int V, typename Real>
__device__ __forceinline__ void give(int slot, int d, int channels, const Real (&first)[V], const Real (&second)[V],
                                     Real* partial) {
#pragma unroll
  for (int v = 0; v < V; ++v) {
    partial[slot * 2 * channels + d + v] = first[v];
    partial[(slot * 2 + 1) * channels + d + v] = second[v];
  }
}

// The sum and the sum of squares of the relation, centred: one thread V channels and a slot, which is every
// (blocks * slots)-th pixel. partial [blocks * slots, 2, D], slots being those of one block.
template <typename T, int V>
__global__ void pair_relation_statistics(PAIRS, int planes, CHANNELS(centre_a), CHANNELS(centre_b), int slots,
                                         typename Accumulator<T>::type* __restrict__ partial) {
  using Real = typename Accumulator<T>::type;
  const Sides sides{height, width, kernel_size};
  const Compared<T> of = COMPARED(planes);
  const int channels = planes + 2, reach = sides.reach();
  for (int item = threadIdx.x; item < slots * (channels / V); item += blockDim.x) {
    const int d = item % (channels / V) * V, slot = blockIdx.x * slots + item / (channels / V);
    Real first[V] = {}, second[V] = {}, left[V], right[V], about_a[V], about_b[V];
    take(centre_a, d, about_a), take(centre_b, d, about_b);
    for (long long p = slot; p < pixels; p += static_cast<long long>(gridDim.x) * slots) {
      const Pixel i = pixel_at(sides, static_cast<int>(p));
      of.left(i.index, d, about_a, left);
      for (int dy = -reach; dy <= reach; ++dy) {
        const int row = i.index - i.x + (reflect(i.y + dy, height) - i.y) * width;
        for (int dx = -reach; dx <= reach; ++dx) {
          of.right(row + reflect(i.x + dx, width), d, about_b, right);
#pragma unroll
          for (int v = 0; v < V; ++v) {
            const Real x = left[v] + right[v];
            first[v] += x;
            second[v] += x * x;
          }
        }
      }
    }
    give(slot, d, channels, first, second, partial);
  }
}

// For norm1's gradients: the sums over all pairs of the normalised relation's gradient, and of its product with the
// relation less its mean, which is that of centre_a and centre_b. Threads and partial as above.
template <typename T, int V>
__global__ void pair_relation_products(PAIRS, int planes, CHANNELS(centre_a), CHANNELS(centre_b), CHANNELS(grad_a),
                                       CHANNELS(grad_b), int slots,
                                       typename Accumulator<T>::type* __restrict__ partial) {
  using Real = typename Accumulator<T>::type;
  const Compared<T> of = COMPARED(planes);
  const int channels = planes + 2;
  for (int item = threadIdx.x; item < slots * (channels / V); item += blockDim.x) {
    const int d = item % (channels / V) * V, slot = blockIdx.x * slots + item / (channels / V);
    Real sum[V] = {}, product[V] = {}, left[V], right[V], about_a[V], about_b[V];
    take(centre_a, d, about_a), take(centre_b, d, about_b);
    for (long long p = slot; p < pixels; p += static_cast<long long>(gridDim.x) * slots) {
      of.left(static_cast<int>(p), d, about_a, left);
      of.right(static_cast<int>(p), d, about_b, right);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const Real a = grad_a[p * channels + d + v], b = grad_b[p * channels + d + v];
        sum[v] += a;
        product[v] += a * left[v] + b * right[v];
      }
    }
    give(slot, d, channels, sum, product, partial);
  }
}

// What the statistics of norm1 give to a pixel, as i and as j of its pairs: sums of linear + square * relation,
// centred.
template <typename T, int V, typename Real>
__device__ void through_statistics(const Compared<T>& of, const Sides& sides, const Pixel& p, int d,
                                   const Real (&about_a)[V], const Real (&about_b)[V], const Real* linear,
                                   const Real* square, Real (&a)[V], Real (&b)[V]) {
  const int reach = sides.reach(), first = p.index - p.x;
  Real left[V], right[V], sum_left[V] = {}, sum_right[V] = {}, x[V];
  int times = 0;
  for (int dy = -reach; dy <= reach; ++dy) {
    const int shown = first + (reflect(p.y + dy, sides.height) - p.y) * sides.width;
    const int times_y = visits(p.y + dy, p.y, sides.height, reach);
    for (int dx = -reach; dx <= reach; ++dx) {
      of.right(shown + reflect(p.x + dx, sides.width), d, about_b, x);
#pragma unroll
      for (int v = 0; v < V; ++v) sum_right[v] += x[v];
      const int often = times_y * visits(p.x + dx, p.x, sides.width, reach);
      if (!often) continue;
      of.left(first + dy * sides.width + p.x + dx, d, about_a, x);
      times += often;
#pragma unroll
      for (int v = 0; v < V; ++v) sum_left[v] += often * x[v];
    }
  }
  of.left(p.index, d, about_a, left);
  of.right(p.index, d, about_b, right);
#pragma unroll
  for (int v = 0; v < V; ++v) {
    a[v] += sides.offsets() * linear[d + v] + square[d + v] * (sides.offsets() * left[v] + sum_right[v]);
    b[v] += times * linear[d + v] + square[d + v] * (times * right[v] + sum_left[v]);
  }
}

// Through norm1: a pair's gradient is scale * (that of the normalised relation) + linear + square * (relation - mean),
// the last two through the batch's statistics. grad_a and grad_b [pixels, D] are sums over the pairs of i and of j.
// One thread V channels of a pixel, which is i and j by turns. grad_place [pixels, 2].
template <typename T, int V>
__global__ void pair_relation_backward(PAIRS, int planes, CHANNELS(centre_a), CHANNELS(centre_b), CHANNELS(scale),
                                       CHANNELS(linear), CHANNELS(square), CHANNELS(grad_a), CHANNELS(grad_b),
                                       T* __restrict__ grad_query, T* __restrict__ grad_key,
                                       typename Accumulator<T>::type* __restrict__ grad_place, int batch) {
  using Real = typename Accumulator<T>::type;
  const Sides sides{height, width, kernel_size};
  const Compared<T> of = COMPARED(planes);
  const int channels = planes + 2;
  const long long at = (blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x) * V;
  if (at >= static_cast<long long>(pixels) * channels) return;
  const int d = at % channels;
  const Pixel p = pixel_at(sides, static_cast<int>(at / channels));
  Real a[V], b[V], about_a[V], about_b[V];
  take(centre_a, d, about_a), take(centre_b, d, about_b);
#pragma unroll
  for (int v = 0; v < V; ++v) a[v] = scale[d + v] * grad_a[at + v], b[v] = scale[d + v] * grad_b[at + v];
  if (batch) through_statistics(of, sides, p, d, about_a, about_b, linear, square, a, b);
  const long long pixel = p.index;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if (d < planes) {
      grad_query[pixel * planes + d + v] = from_accumulator<T>(a[v]);
      grad_key[pixel * planes + d + v] = from_accumulator<T>(sign * b[v]);
    } else {
      grad_place[pixel * 2 + d - planes + v] = a[v] - b[v];
    }
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
