// Pairwise attention on tiles, forward: moments and attention. pairwise.cuh has the formulas, pairwise_naive.cu the
// twins.
#include "pairwise_tiles.cuh"

// As pair_moments_naive, partial [blocks, WIDE, WIDE]. With CORRECT, u's gradient through norm2's statistics is added
// to grad_a; matrix is packed [WIDE, WIDE].
template <typename T, int R, int G, int ROWS, bool CORRECT>
__global__ void __launch_bounds__((Layer<T, R, G, ROWS>::THREADS), (Layer<T, R, G, ROWS>::BLOCKS))
    pair_moments(PAIRS, const float* __restrict__ scale1, const float* __restrict__ shift1,
                 const T* __restrict__ matrix, const float* __restrict__ vector, float* __restrict__ grad_a,
                 float* __restrict__ partial) {
  using L = Layer<T, R, G, ROWS>;
  SHARED(memory);
  Room room{memory};
  T* u = room.take<T>(ROWS * L::U);
  const Pairs pairs{room.take<int>(ROWS), room.take<int>(ROWS)};
  Owners<L> owners{room.take<Pixel>(L::OWNERS), 0, pixels};
  const Sides sides{height, width, kernel_size};
  const Compared<T> of = COMPARED(R);
  const Norm1<L> norm(room);
  norm.read(scale1, shift1);
  Outer<T, ROWS, L::WIDE, L::WIDE, L::WARPS> sums;
  sums.clear();
  for (int tile = blockIdx.x; tile * static_cast<long long>(L::OWNERS) < pixels; tile += gridDim.x) {
    __syncthreads();
    owners.first = tile * L::OWNERS;
    owners.find(sides);
    WideTile<L> gathered;
    if (CORRECT) gathered.clear();
    for (int o = 0; o < sides.offsets(); o += L::OFFSETS) {
      __syncthreads();
      relate<L, false>(of, sides, norm, owners, o, pairs, u);
      __syncthreads();
      sums.add(u, u);
      if (!CORRECT) continue;
      WideTile<L> grad;
      grad.each([=](int, int column, float& x, float& y) {
        x = column < L::RELATED ? vector[column] : 0, y = column + 1 < L::RELATED ? vector[column + 1] : 0;
      });
      grad.template add_product<L::WIDE>(u, matrix);
      mask<L>(grad, u);
      gathered.add(grad);
    }
    if (CORRECT) {
      __syncthreads();
      give_to_owners<L>(gathered, owners, reinterpret_cast<float*>(u), true, grad_a);
    }
  }
  float* to = partial + static_cast<long long>(blockIdx.x) * L::WIDE * L::WIDE;
  write<ROWS * L::U * sizeof(T)>(sums, reinterpret_cast<float*>(u), to);
}

// As pair_attend_naive.
template <typename T, int R, int G, int ROWS>
__global__ void __launch_bounds__((Layer<T, R, G, ROWS>::THREADS), (Layer<T, R, G, ROWS>::BLOCKS))
    pair_attend(PAIRS, const float* __restrict__ scale1, const float* __restrict__ shift1,
                const T* __restrict__ weight1, const float* __restrict__ bias1, const T* __restrict__ weight2,
                const T* __restrict__ value, int value_stride, const T* __restrict__ grad, int grad_stride,
                T* __restrict__ out, float* __restrict__ logsumexp, float* __restrict__ delta) {
  using L = Layer<T, R, G, ROWS>;
  SHARED(memory);
  Room room{memory};
  T *u = room.take<T>(ROWS * L::U), *hidden = room.take<T>(ROWS * L::H);
  float *weight = room.take<float>(ROWS * G), *carry = room.take<float>(L::OWNERS * G);
  int *partners = room.take<int>(2 * ROWS), *times = room.take<int>(ROWS);
  const Owners<L> owners{room.take<Pixel>(L::OWNERS), static_cast<int>(blockIdx.x) * L::OWNERS, pixels};
  const Sides sides{height, width, kernel_size};
  const Compared<T> of = COMPARED(R);
  const Norm1<L> norm(room);
  norm.read(scale1, shift1);
  Online<L> softmax;
  Gathered<L> sums;
  sums.clear();
  owners.find(sides);
  __syncthreads();
  for (int o = 0; o < sides.offsets(); o += L::OFFSETS) {
    const int offsets = min(L::OFFSETS, sides.offsets() - o);
    const Pairs pairs{partners + o / L::OFFSETS % 2 * ROWS, times};  // the last ones may still be read
    relate<L, false>(of, sides, norm, owners, o, pairs, u);
    __syncthreads();
    map_hidden<L>(u, weight1, bias1, hidden);
    __syncthreads();
    map_logits<L>(hidden, weight2, [=](int row, int g, float x) { weight[row * G + g] = x; });
    __syncthreads();
    softmax.add(weight, offsets, o == 0, carry);
    __syncthreads();
    if (o) sums.scale(carry);
    sums.add(value, value_stride, pairs.partner, weight, offsets);
  }
  __syncthreads();
  softmax.finish(owners, carry, delta ? nullptr : logsumexp);
  __syncthreads();
  sums.scale(carry);
  if (delta)
    products_with<L>(sums, owners, grad, grad_stride, delta);
  else
    sums.each([=](int p, int octet, int, float(&x)[8]) {
      if (owners.live(p)) store_octet(out + static_cast<long long>(owners.pixel[p].index) * SHARE * G + octet * 8, x);
    });
}
