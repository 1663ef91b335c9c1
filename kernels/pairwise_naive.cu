// Pairwise attention, one block a pixel: any K, R, G and M, and every type; the fallback, and the check for the tiles.
//
// The threads of a block share the channels of each layer, in shared memory, one pair of pixels at a time. Weights are
// as given, but for the norms folded in: weight1 [R, D], weight2 [G, R], all in the type of sums.
#include "pairwise.cuh"

// What all these kernels are told behind PAIRS.
#define LAYERS                                                                                              \
  int planes, int groups, int channels, const typename Accumulator<T>::type *__restrict__ scale1,           \
      const typename Accumulator<T>::type *__restrict__ shift1,                                             \
      const typename Accumulator<T>::type *__restrict__ weight1,                                            \
      const typename Accumulator<T>::type *__restrict__ bias1,                                              \
      const typename Accumulator<T>::type *__restrict__ weight2

// u of one pair, and a 1 behind it.
template <typename T, typename Real>
__device__ void relate(const Compared<T>& of, int i, int j, const Real* scale1, const Real* shift1, Real* u) {
  const int related = of.planes + 2;
  for (int d = threadIdx.x; d <= related; d += blockDim.x)
    u[d] = d == related ? Real(1) : relu(scale1[d] * (of.left(i, d) + of.right(j, d)) + shift1[d]);
}

// The product of a row of a matrix and x.
template <typename Real>
__device__ Real dot(const Real* row, int step, const Real* x, int size) {
  Real sum = 0;
  for (int k = 0; k < size; ++k) sum += row[k * step] * x[k];
  return sum;
}

// The sum over the channels that share weight g.
template <typename T>
__device__ typename Accumulator<T>::type shared_dot(const T* x, const T* y, int g, int groups, int channels) {
  typename Accumulator<T>::type sum = 0;
  for (int c = g; c < channels; c += groups) sum += to_accumulator(x[c]) * to_accumulator(y[c]);
  return sum;
}

template <typename Real>
__device__ void map_hidden(const Real* u, int planes, const Real* weight1, const Real* bias1, Real* hidden) {
  for (int r = threadIdx.x; r < planes; r += blockDim.x)
    hidden[r] = relu(bias1[r] + dot(weight1 + r * (planes + 2), 1, u, planes + 2));
}

// Sums over the pairs of u and the 1 behind it: partial [blocks, D + 1, D + 1] has those of all products. With a
// matrix [D, D] and a vector [D], what norm2's statistics give back to u, matrix u + vector, is added to grad_a.
template <typename T>
__global__ void pair_moments_naive(PAIRS, int planes, const typename Accumulator<T>::type* __restrict__ scale1,
                                   const typename Accumulator<T>::type* __restrict__ shift1,
                                   const typename Accumulator<T>::type* __restrict__ matrix,
                                   const typename Accumulator<T>::type* __restrict__ vector,
                                   typename Accumulator<T>::type* __restrict__ grad_a,
                                   typename Accumulator<T>::type* __restrict__ partial) {
  using Real = typename Accumulator<T>::type;
  SHARED(memory);
  Real* u = reinterpret_cast<Real*>(memory);
  const Sides sides{height, width, kernel_size};
  const Compared<T> of = COMPARED(planes);
  const int related = planes + 2, side = related + 1;
  Real* sums = partial + static_cast<long long>(blockIdx.x) * side * side;
  for (int at = threadIdx.x; at < side * side; at += blockDim.x) sums[at] = 0;
  for (long long p = blockIdx.x; p < pixels; p += gridDim.x) {
    const Pixel i = pixel_at(sides, static_cast<int>(p));
    for (int o = 0; o < sides.offsets(); ++o) {
      relate(of, i.index, seen_from(sides, i, o).index, scale1, shift1, u);
      __syncthreads();
      for (int at = threadIdx.x; at < side * side; at += blockDim.x) sums[at] += u[at / side] * u[at % side];
      for (int d = threadIdx.x; matrix && d < related; d += blockDim.x)
        if (!(u[d] <= 0)) grad_a[p * related + d] += vector[d] + dot(matrix + d * related, 1, u, related);
      __syncthreads();
    }
  }
}

// out [pixels, M] and logsumexp [pixels, G]; or, where delta [pixels, G] is given, that alone: the products of out and
// its gradient `grad`, summed over the channels that share a weight.
template <typename T>
__global__ void pair_attend_naive(PAIRS, LAYERS, const T* __restrict__ value, int value_stride,
                                  const T* __restrict__ grad, int grad_stride, T* __restrict__ out,
                                  typename Accumulator<T>::type* __restrict__ logsumexp,
                                  typename Accumulator<T>::type* __restrict__ delta) {
  using Real = typename Accumulator<T>::type;
  SHARED(memory);
  Real *u = reinterpret_cast<Real*>(memory), *hidden = u + planes + 3, *weight = hidden + planes;
  Real *carry = weight + groups, *largest = carry + groups, *total = largest + groups, *sum = total + groups;
  const Sides sides{height, width, kernel_size};
  const Compared<T> of = COMPARED(planes);
  const Pixel i = pixel_at(sides, blockIdx.x);
  const long long pixel = i.index;
  for (int g = threadIdx.x; g < groups; g += blockDim.x) total[g] = 0;
  for (int c = threadIdx.x; c < channels; c += blockDim.x) sum[c] = 0;
  for (int o = 0; o < sides.offsets(); ++o) {
    const int j = seen_from(sides, i, o).index;
    relate(of, i.index, j, scale1, shift1, u);
    __syncthreads();
    map_hidden(u, planes, weight1, bias1, hidden);
    __syncthreads();
    for (int g = threadIdx.x; g < groups; g += blockDim.x) {
      const Real logit = dot(weight2 + g * planes, 1, hidden, planes);
      const Real before = o ? largest[g] : logit, now = logit > before ? logit : before;
      largest[g] = now;
      carry[g] = exp(before - now);
      weight[g] = exp(logit - now);
      total[g] = total[g] * carry[g] + weight[g];
    }
    __syncthreads();
    const T* seen = value + static_cast<long long>(j) * value_stride;
    for (int c = threadIdx.x; c < channels; c += blockDim.x)
      sum[c] = sum[c] * carry[c % groups] + weight[c % groups] * to_accumulator(seen[c]);
  }
  for (int c = threadIdx.x; c < channels; c += blockDim.x) {
    sum[c] /= total[c % groups];
    if (!delta) out[pixel * channels + c] = from_accumulator<T>(sum[c]);
  }
  __syncthreads();
  for (int g = threadIdx.x; g < groups; g += blockDim.x) {
    if (!delta) logsumexp[pixel * groups + g] = largest[g] + log(total[g]);
    Real share = 0;
    for (int c = g; delta && c < channels; c += groups)
      share += sum[c] * to_accumulator(grad[pixel * grad_stride + c]);
    if (delta) delta[pixel * groups + g] = share;
  }
}

// Of one pair, `hidden` known: the weights, their gradients through the softmax, and the gradient of the hidden layer
// before its ReLU, in the place of `hidden`. `times` as often as the pair is one.
template <typename Real, typename T>
__device__ void pair_backward(int planes, int groups, int channels, const Real* weight2, const Real* logsumexp,
                              const Real* delta, const T* grad, const T* value, int times, const Real* hidden,
                              Real* weight, Real* grad_logit, Real* grad_hidden) {
  for (int g = threadIdx.x; g < groups; g += blockDim.x) {
    weight[g] = times * exp(dot(weight2 + g * planes, 1, hidden, planes) - logsumexp[g]);
    grad_logit[g] = weight[g] * (shared_dot(grad, value, g, groups, channels) - delta[g]);
  }
  __syncthreads();
  for (int r = threadIdx.x; r < planes; r += blockDim.x)
    grad_hidden[r] = hidden[r] <= 0 ? Real(0) : dot(weight2 + r, planes, grad_logit, groups);
  __syncthreads();
}

// Owned by i: grad_a [pixels, D], the gradient of u summed over the pairs of i where u > 0; and sums over all pairs,
// partial [blocks, R * (D + 1) + R * G]: of grad_hidden x (u and 1), then of hidden x grad_logit.
template <typename T>
__global__ void pair_query_backward_naive(PAIRS, LAYERS, const T* __restrict__ value, int value_stride,
                                          const T* __restrict__ grad, int grad_stride,
                                          const typename Accumulator<T>::type* __restrict__ logsumexp,
                                          const typename Accumulator<T>::type* __restrict__ delta,
                                          typename Accumulator<T>::type* __restrict__ grad_a,
                                          typename Accumulator<T>::type* __restrict__ partial) {
  using Real = typename Accumulator<T>::type;
  SHARED(memory);
  Real *u = reinterpret_cast<Real*>(memory), *hidden = u + planes + 3, *grad_hidden = hidden + planes;
  Real *weight = grad_hidden + planes, *grad_logit = weight + groups;
  const Sides sides{height, width, kernel_size};
  const Compared<T> of = COMPARED(planes);
  const int related = planes + 2, side = related + 1;
  Real* products = partial + static_cast<long long>(blockIdx.x) * planes * (side + groups);
  Real* outer = products + planes * side;
  for (int at = threadIdx.x; at < planes * (side + groups); at += blockDim.x) products[at] = 0;
  for (long long p = blockIdx.x; p < pixels; p += gridDim.x) {
    const Pixel i = pixel_at(sides, static_cast<int>(p));
    for (int d = threadIdx.x; d < related; d += blockDim.x) grad_a[p * related + d] = 0;
    for (int o = 0; o < sides.offsets(); ++o) {
      const long long j = seen_from(sides, i, o).index;
      relate(of, i.index, static_cast<int>(j), scale1, shift1, u);
      __syncthreads();
      map_hidden(u, planes, weight1, bias1, hidden);
      __syncthreads();
      pair_backward(planes, groups, channels, weight2, logsumexp + p * groups, delta + p * groups,
                    grad + p * grad_stride, value + j * value_stride, 1, hidden, weight, grad_logit, grad_hidden);
      for (int at = threadIdx.x; at < planes * side; at += blockDim.x)
        products[at] += grad_hidden[at / side] * u[at % side];
      for (int at = threadIdx.x; at < planes * groups; at += blockDim.x)
        outer[at] += hidden[at / groups] * grad_logit[at % groups];
      for (int d = threadIdx.x; d < related; d += blockDim.x)
        if (!(u[d] <= 0)) grad_a[p * related + d] += dot(weight1 + d, related, grad_hidden, planes);
      __syncthreads();
    }
  }
}

// Owned by j: grad_value [pixels, M], and grad_b [pixels, D], the gradient of u summed over the pairs of j where u > 0,
// with what norm2's statistics add to it, as in pair_moments_naive.
template <typename T>
__global__ void pair_key_backward_naive(PAIRS, LAYERS, const T* __restrict__ value, int value_stride,
                                        const T* __restrict__ grad, int grad_stride,
                                        const typename Accumulator<T>::type* __restrict__ logsumexp,
                                        const typename Accumulator<T>::type* __restrict__ delta,
                                        const typename Accumulator<T>::type* __restrict__ matrix,
                                        const typename Accumulator<T>::type* __restrict__ vector,
                                        typename Accumulator<T>::type* __restrict__ grad_b,
                                        T* __restrict__ grad_value) {
  using Real = typename Accumulator<T>::type;
  SHARED(memory);
  Real *u = reinterpret_cast<Real*>(memory), *hidden = u + planes + 3, *grad_hidden = hidden + planes;
  Real *weight = grad_hidden + planes, *grad_logit = weight + groups, *sum_b = grad_logit + groups;
  const int related = planes + 2;
  Real* sum_value = sum_b + related;
  const Sides sides{height, width, kernel_size};
  const Compared<T> of = COMPARED(planes);
  const Pixel j = pixel_at(sides, blockIdx.x);
  const long long pixel = j.index;
  for (int d = threadIdx.x; d < related; d += blockDim.x) sum_b[d] = 0;
  for (int c = threadIdx.x; c < channels; c += blockDim.x) sum_value[c] = 0;
  for (int o = 0; o < sides.offsets(); ++o) {
    const Partner by = seeing(sides, j, o);
    if (!by.times) continue;
    const long long i = by.index;
    relate(of, by.index, j.index, scale1, shift1, u);
    __syncthreads();
    map_hidden(u, planes, weight1, bias1, hidden);
    __syncthreads();
    pair_backward(planes, groups, channels, weight2, logsumexp + i * groups, delta + i * groups,
                  grad + i * grad_stride, value + pixel * value_stride, by.times, hidden, weight, grad_logit,
                  grad_hidden);
    for (int d = threadIdx.x; d < related; d += blockDim.x) {
      if (u[d] <= 0) continue;
      sum_b[d] += dot(weight1 + d, related, grad_hidden, planes);
      if (matrix) sum_b[d] += by.times * (vector[d] + dot(matrix + d * related, 1, u, related));
    }
    for (int c = threadIdx.x; c < channels; c += blockDim.x)
      sum_value[c] += weight[c % groups] * to_accumulator(grad[i * grad_stride + c]);
    __syncthreads();
  }
  for (int d = threadIdx.x; d < related; d += blockDim.x) grad_b[pixel * related + d] = sum_b[d];
  for (int c = threadIdx.x; c < channels; c += blockDim.x)
    grad_value[pixel * channels + c] = from_accumulator<T>(sum_value[c]);
}
