// Pairwise attention: a pixel of a footprint is weighed by how it compares with the middle one.
//
//   relation = [query_i + sign * key_j, place_i - place_j]        for each pixel j of the footprint of i
//   u = relu(scale1 relation + shift1), hidden = relu(weight1 u + bias1), with both norms folded in
//   w = softmax over j of weight2 hidden, out[i, c] = sum over j of w[c % G] * value[j, c]
//
// R channels of query and key, D = R + 2 with the place, G weights for M channels of value, K the footprint's side.
// Maps are channels last with a stride from pixel to pixel; pixels are numbered through the batch. Nothing that is
// K * K wide is ever in memory: what belongs to a pair of pixels is made again in each pass.
//
//   forward     statistics of the relation; moments of u, from which those of norm2 follow; attention with the softmax
//               taken online, which keeps the log-sum-exp
//   backward    attention again for delta = sum over j of w * grad_w; a pass owned by i: gradients of the weights, and
//               of the relation as far as it belongs to i; what the statistics of norm2 add to it (moments again); a
//               pass owned by j: gradients of value and of the relation's other half; at last through norm1
//
// Each pass gathers: a block owns its pixels and visits their partners, so there are no atomics. Seen from j, pixel i
// counts as often as the reflected border shows j to it: `visits`.
//
// Foretold before anything was measured, for SAN15 at 224 pixels, batch 64, on an H100 (3.35 TB/s, 990 TFLOP/s in 16
// bits on the tensor cores, 67 by FFMA): sums over all 15 blocks, 52 M pairs of pixels a pass. Bytes are those of maps
// that have to be read or written once.
//
//   kernel                          GFLOP   tensor cores     FFMA     GB in 16 bits   memory     expected, 16 bits
//   pair_relation_statistics            4        -          0.1 ms         0.1        0.0 ms          0.3 ms
//   pair_moments                       69      0.1 ms       1.0 ms         0.1        0.0 ms          0.6 ms
//   pair_attend                       102      0.1 ms       1.5 ms         0.6        0.2 ms          1.5 ms
//   pair_attend, for delta            102      0.1 ms       1.5 ms         0.6        0.2 ms          1.5 ms
//   pair_query_backward               292      0.3 ms       4.4 ms         0.7        0.2 ms          3 ms
//   pair_moments<CORRECT>             137      0.1 ms       2.0 ms         0.4        0.1 ms          1.2 ms
//   pair_key_backward                 273      0.3 ms       4.1 ms         1.0        0.3 ms          3 ms
//   pair_relation_products, _backward   8        -          0.1 ms         0.8        0.2 ms          0.6 ms
//   all                               987      1.0 ms      14.7 ms         4.2        1.3 ms         12 ms
//
// Neither bound is what 16 bits will meet. A pair costs about 20 instructions a lane for each channel of query: 6 for
// u, 3 for the hidden layer, 9 for the 4 channels of value, the rest for the softmax; that is 17 G a pass, 0.6 ms at
// the full rate of issue, and barriers and latency are taken to double it. Float is bound by FFMA: 15 to 25 ms.
#pragma once
#include "common.cuh"

// Keeps NaN, which fmax would turn into a number.
template <typename Real>
__device__ __forceinline__ Real relu(Real x) {
  return x < 0 ? Real(0) : x;
}

// The maps' sizes; all images have the same.
struct Sides {
  int height, width, kernel_size;

  __device__ __forceinline__ int offsets() const { return kernel_size * kernel_size; }
  __device__ __forceinline__ int reach() const { return kernel_size / 2; }
};

// A pixel, with its place in its image.
struct Pixel {
  int index, y, x;
};

__device__ __forceinline__ Pixel pixel_at(const Sides& sides, int index) {
  const int inside = index % (sides.height * sides.width);
  return {index, inside / sides.width, inside % sides.width};
}

// How often the footprint of pixel `from` shows pixel `to`, along one side.
__device__ __forceinline__ int visits(int from, int to, int size, int reach) {
  if (from < 0 || from >= size) return 0;
  if (size > reach)  // itself and its two mirror images are all
    return (abs(to - from) <= reach) + (to >= 1 && from + to <= reach) +
           (to <= size - 2 && 2 * (size - 1) - to - from <= reach);
  int count = 0;
  for (int place = first_preimage(to, size, reach); place < size + reach; place = next_preimage(place, to, size))
    count += abs(place - from) <= reach;
  return count;
}

// The partner of a pixel, and how often the two are a pair.
struct Partner {
  int index, times;
};

// The pixel that `of` sees at offset o.
__device__ __forceinline__ Partner seen_from(const Sides& sides, const Pixel& of, int o) {
  const int y = reflect(of.y + o / sides.kernel_size - sides.reach(), sides.height);
  const int x = reflect(of.x + o % sides.kernel_size - sides.reach(), sides.width);
  return {of.index + (y - of.y) * sides.width + x - of.x, 1};
}

// The pixel at offset o of `of`, and how often it sees `of`; `of` itself where there is none.
__device__ __forceinline__ Partner seeing(const Sides& sides, const Pixel& of, int o) {
  const int y = of.y + o / sides.kernel_size - sides.reach(), x = of.x + o % sides.kernel_size - sides.reach();
  const int times =
      visits(y, of.y, sides.height, sides.reach()) * visits(x, of.x, sides.width, sides.reach());
  return {times ? of.index + (y - of.y) * sides.width + x - of.x : of.index, times};
}

// What is compared.
template <typename T>
struct Compared {
  using Real = typename Accumulator<T>::type;
  const T *query, *key;
  int query_stride, key_stride;
  const Real* place;  // [H * W, 2]
  int sign, planes, area;

  __device__ __forceinline__ const T* query_of(int pixel) const {
    return query + static_cast<long long>(pixel) * query_stride;
  }
  __device__ __forceinline__ const T* key_of(int pixel) const {
    return key + static_cast<long long>(pixel) * key_stride;
  }
  // The two terms of a channel of the relation.
  __device__ __forceinline__ Real left(int i, int d) const {
    return d < planes ? to_accumulator(query_of(i)[d]) : place[i % area * 2 + d - planes];
  }
  __device__ __forceinline__ Real right(int j, int d) const {
    return d < planes ? sign * to_accumulator(key_of(j)[d]) : -place[j % area * 2 + d - planes];
  }
  // Those of V neighbours, less `centre`; the place's two are neighbours.
  template <int V>
  __device__ __forceinline__ void left(int i, int d, const Real (&centre)[V], Real (&x)[V]) const {
    load<V>(query_of(i) + (d < planes ? d : 0), x);
#pragma unroll
    for (int v = 0; v < V; ++v) x[v] = (d < planes ? x[v] : place[i % area * 2 + d - planes + v]) - centre[v];
  }
  template <int V>
  __device__ __forceinline__ void right(int j, int d, const Real (&centre)[V], Real (&x)[V]) const {
    load<V>(key_of(j) + (d < planes ? d : 0), x);
#pragma unroll
    for (int v = 0; v < V; ++v) x[v] = (d < planes ? sign * x[v] : -place[j % area * 2 + d - planes + v]) - centre[v];
  }
};

// What every kernel is told first.
#define PAIRS                                                                                            \
  const T *__restrict__ query, int query_stride, const T *__restrict__ key, int key_stride,              \
      const typename Accumulator<T>::type *__restrict__ place, int sign, int height, int width, int kernel_size, \
      int pixels
#define COMPARED(PLANES) \
  { query, key, query_stride, key_stride, place, sign, PLANES, height * width }
