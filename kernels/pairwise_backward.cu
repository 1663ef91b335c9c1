// Pairwise attention on tiles, backward: the passes owned by i and by j. pairwise.cuh has the formulas,
// pairwise_naive.cu the twins.
#include "pairwise_tiles.cuh"

// What both passes are told behind PAIRS: packed weights (weight1 [HIDDEN, WIDE], weight2 [LOGITS, HIDDEN], and for the
// way back weight2_back [HIDDEN, WEIGHTS], weight1_back [WIDE, HIDDEN]), maps, and log-sum-exp and delta [pixels, G].
#define BACKWARD                                                                                        \
  const float *__restrict__ scale1, const float *__restrict__ shift1, const T *__restrict__ weight1,    \
      const float *__restrict__ bias1, const T *__restrict__ weight2, const T *__restrict__ weight2_back, \
      const T *__restrict__ weight1_back, const T *__restrict__ value, int value_stride,                \
      const T *__restrict__ grad, int grad_stride, const float *__restrict__ logsumexp,                 \
      const float *__restrict__ delta

// The gradients of the logits of all rows, `weight` known: through the softmax of pixel i.
template <typename L, bool OWNED_BY_KEY>
__device__ __forceinline__ void logits_backward(const Owners<L>& owners, const Pairs& pairs,
                                                const typename L::T* __restrict__ value, int value_stride,
                                                const typename L::T* __restrict__ grad, int grad_stride,
                                                const float* __restrict__ delta, const float* weight,
                                                typename L::T* grad_logits) {
#pragma unroll 1
  for (int unit = threadIdx.x; unit < L::ROWS * L::LANES; unit += L::THREADS) {
    const int row = unit / L::LANES, owner = owners.pixel[row % L::OWNERS].index, other = pairs.partner[row];
    const long long i = OWNED_BY_KEY ? other : owner, j = OWNED_BY_KEY ? owner : other;
    float x[L::OCTETS][8];
#pragma unroll
    for (int k = 0; k < L::OCTETS; ++k) {
      const int channel = (unit % L::LANES + k * WARP) * 8;
      float y[8];
      load_octet(grad + i * grad_stride + channel, x[k]);
      load_octet(value + j * value_stride + channel, y);
#pragma unroll
      for (int c = 0; c < 8; ++c) x[k][c] *= y[c];
    }
    const ShareSum<L> share(x);
#pragma unroll
    for (int k = 0; k < L::OCTETS; ++k) {
      const int g = share.first + k;
      const float through = weight[row * L::G + g] * (share.x[k] - delta[i * L::G + g]);
      grad_logits[row * L::W + g] = from_accumulator<typename L::T>(through);
    }
  }
}

// The gradient of the hidden layer before its ReLU.
template <typename L>
__device__ __forceinline__ void hidden_backward(const typename L::T* grad_logits,
                                                const typename L::T* __restrict__ weight2_back,
                                                const typename L::T* hidden,
                                                HiddenTile<L>& tile) {
  tile.clear();
  tile.template add_product<L::WEIGHTS>(grad_logits, weight2_back);
  tile.each([=](int row, int column, float& x, float& y) { relu_backward(hidden + row * L::H + column, x, y); });
}

// The columns of grad_logits behind the last weight, which a product reads.
template <typename L>
__device__ __forceinline__ void clear_padding(typename L::T* grad_logits) {
  constexpr int EMPTY = L::WEIGHTS - L::G;
  for (int at = threadIdx.x; at < L::ROWS * EMPTY; at += L::THREADS)
    grad_logits[at / (EMPTY + !EMPTY) * L::W + L::G + at % (EMPTY + !EMPTY)] = from_accumulator<typename L::T>(0);
}

// As pair_query_backward_naive; partial [blocks, HIDDEN * WIDE + HIDDEN * WEIGHTS]. PARTS: 1 the first of these, 2 all
// else, 3 both, where there are registers for it.
template <typename T, int R, int G, int ROWS, int PARTS>
__global__ void __launch_bounds__((Layer<T, R, G, ROWS>::THREADS), (Layer<T, R, G, ROWS>::BLOCKS))
    pair_query_backward(PAIRS, BACKWARD, float* __restrict__ grad_a, float* __restrict__ partial) {
  using L = Layer<T, R, G, ROWS>;
  SHARED(memory);
  Room room{memory};
  T *u = room.take<T>(ROWS * L::U), *hidden = room.take<T>(ROWS * L::H), *grad_logits = room.take<T>(ROWS * L::W);
  float* weight = room.take<float>(ROWS * G);
  const Pairs pairs{room.take<int>(ROWS), room.take<int>(ROWS)};
  Owners<L> owners{room.take<Pixel>(L::OWNERS), 0, pixels};
  const Sides sides{height, width, kernel_size};
  const Compared<T> of = COMPARED(R);
  const Norm1<L> norm(room);
  norm.read(scale1, shift1);
  Outer<T, ROWS, L::HIDDEN, L::WIDE, L::WARPS> products;
  Outer<T, ROWS, L::HIDDEN, L::WEIGHTS, L::WARPS> outer;
  products.clear();
  outer.clear();
  clear_padding<L>(grad_logits);
  for (int tile = blockIdx.x; tile * static_cast<long long>(L::OWNERS) < pixels; tile += gridDim.x) {
    __syncthreads();
    owners.first = tile * L::OWNERS;
    owners.find(sides);
    __syncthreads();
    WideTile<L> gathered;
    gathered.clear();
    for (int o = 0; o < sides.offsets(); o += L::OFFSETS) {
      relate<L, false>(of, sides, norm, owners, o, pairs, u);
      __syncthreads();
      map_hidden<L>(u, weight1, bias1, hidden);
      __syncthreads();
      map_logits<L>(hidden, weight2, [=](int row, int g, float x) {
        const long long i = owners.pixel[row % L::OWNERS].index;
        weight[row * G + g] = pairs.times[row] ? exponential<T>(x - logsumexp[i * G + g]) : 0;
      });
      __syncthreads();
      logits_backward<L, false>(owners, pairs, value, value_stride, grad, grad_stride, delta, weight, grad_logits);
      __syncthreads();
      if (PARTS & 2) outer.add(hidden, grad_logits);
      HiddenTile<L> back;
      hidden_backward<L>(grad_logits, weight2_back, hidden, back);
      __syncthreads();
      back.each([=](int row, int column, float& x, float& y) { store_pair(hidden + row * L::H + column, x, y); });
      __syncthreads();
      if (PARTS & 1) products.add(hidden, u);
      if (PARTS & 2) {
        WideTile<L> grad_u;
        grad_u.clear();
        grad_u.template add_product<L::HIDDEN>(hidden, weight1_back);
        mask<L>(grad_u, u);
        gathered.add(grad_u);
      }
      __syncthreads();
    }
    if (PARTS & 2) give_to_owners<L>(gathered, owners, reinterpret_cast<float*>(u), false, grad_a);
  }
  float* to = partial + static_cast<long long>(blockIdx.x) * L::HIDDEN * (L::WIDE + L::WEIGHTS);
  if (PARTS & 1) write<ROWS * L::U * sizeof(T)>(products, reinterpret_cast<float*>(u), to);
  if (PARTS & 2) write<ROWS * L::U * sizeof(T)>(outer, reinterpret_cast<float*>(u), to + L::HIDDEN * L::WIDE);
}

// As pair_key_backward_naive; matrix is packed [WIDE, WIDE].
template <typename T, int R, int G, int ROWS>
__global__ void __launch_bounds__((Layer<T, R, G, ROWS>::THREADS), (Layer<T, R, G, ROWS>::BLOCKS))
    pair_key_backward(PAIRS, BACKWARD, const T* __restrict__ matrix, const float* __restrict__ vector,
                      float* __restrict__ grad_b, T* __restrict__ grad_value) {
  using L = Layer<T, R, G, ROWS>;
  SHARED(memory);
  Room room{memory};
  T *u = room.take<T>(ROWS * L::U), *hidden = room.take<T>(ROWS * L::H), *grad_logits = room.take<T>(ROWS * L::W);
  float* weight = room.take<float>(ROWS * G);
  const Pairs pairs{room.take<int>(ROWS), room.take<int>(ROWS)};
  const Owners<L> owners{room.take<Pixel>(L::OWNERS), static_cast<int>(blockIdx.x) * L::OWNERS, pixels};
  const Sides sides{height, width, kernel_size};
  const Compared<T> of = COMPARED(R);
  const Norm1<L> norm(room);
  norm.read(scale1, shift1);
  Gathered<L> sums;
  sums.clear();
  WideTile<L> gathered;
  gathered.clear();
  clear_padding<L>(grad_logits);
  owners.find(sides);
  __syncthreads();
  for (int o = 0; o < sides.offsets(); o += L::OFFSETS) {
    relate<L, true>(of, sides, norm, owners, o, pairs, u);
    __syncthreads();
    map_hidden<L>(u, weight1, bias1, hidden);
    __syncthreads();
    map_logits<L>(hidden, weight2, [=](int row, int g, float x) {
      const long long i = pairs.partner[row];
      const int times = pairs.times[row];
      weight[row * G + g] = times ? times * exponential<T>(x - logsumexp[i * G + g]) : 0;
    });
    __syncthreads();
    logits_backward<L, true>(owners, pairs, value, value_stride, grad, grad_stride, delta, weight, grad_logits);
    __syncthreads();
    sums.add(grad, grad_stride, pairs.partner, weight, min(L::OFFSETS, sides.offsets() - o));
    HiddenTile<L> back;
    hidden_backward<L>(grad_logits, weight2_back, hidden, back);
    back.each([=](int row, int column, float& x, float& y) { store_pair(hidden + row * L::H + column, x, y); });
    __syncthreads();
    WideTile<L> grad_u;
    grad_u.clear();
    if (matrix) {
      grad_u.each([=](int, int column, float& x, float& y) {
        x = column < L::RELATED ? vector[column] : 0, y = column + 1 < L::RELATED ? vector[column + 1] : 0;
      });
      grad_u.template add_product<L::WIDE>(u, matrix);
      grad_u.each([=](int row, int, float& x, float& y) { x *= pairs.times[row], y *= pairs.times[row]; });
    }
    grad_u.template add_product<L::HIDDEN>(hidden, weight1_back);
    mask<L>(grad_u, u);
    gathered.add(grad_u);
    __syncthreads();
  }
  give_to_owners<L>(gathered, owners, reinterpret_cast<float*>(u), false, grad_b);
  sums.each([=](int p, int octet, int, float(&x)[8]) {
    if (owners.live(p))
      store_octet(grad_value + static_cast<long long>(owners.pixel[p].index) * SHARE * G + octet * 8, x);
  });
}
