// The last convolution of the weights and the aggregation in one, for 16-bit types: the gradients of hidden, and of the
// convolution's parameters, last and bias. quads.cuh has the formulas and says which thread has what.
//
// The gradients of the weights are made for one line of offsets at a time. Through shared memory, two offsets of 8
// groups become the inner dimension of the product that gives the gradient of hidden, and the rows of the one that gives
// those of last and bias. Each line has one offset more, whose gradients are 0: an even number.
#include "quads.cuh"

// The gradients of the weights in shared memory, [64, PITCH]: pixels as rows of products, of both warps, by offsets and
// groups.
template <int K>
constexpr int PAIRS = (K + 1) / 2;
template <int K>
constexpr int MADE_PITCH = (K + 1) * SLICE + APART;

// Where pixel j of the lane's quad stands in it.
template <int K>
__device__ __forceinline__ int made_at(int j) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  return (warp * 32 + j / 2 * 16 + j % 2 * 8 + lane / 4) * MADE_PITCH<K> + lane % 4 * 2;
}

// Those of a quad for a line of offsets: the channels that share a weight, added. `seen` is the quad's first value.
template <typename T, int K>
__device__ __forceinline__ void weight_gradients(T* made, const unsigned (&given)[SHARES][QUAD], const T* seen) {
  constexpr int SEEN = QUAD + K - 1;
  float sums[K][QUAD][2] = {};
#pragma unroll
  for (int share = 0; share < SHARES; ++share) {
    float2 window[SEEN];
#pragma unroll
    for (int i = 0; i < SEEN; ++i) window[i] = unpack<T>(load_pair(seen + share * SHARE<K> + i * SLICE));
#pragma unroll
    for (int j = 0; j < QUAD; ++j) {
      const float2 g = unpack<T>(given[share][j]);
#pragma unroll
      for (int along = 0; along < K; ++along) {
        sums[along][j][0] += g.x * window[j + along].x;
        sums[along][j][1] += g.y * window[j + along].y;
      }
    }
  }
  __syncthreads();  // the other warp has read what stood in `made`
#pragma unroll
  for (int j = 0; j < QUAD; ++j)
#pragma unroll
    for (int along = 0; along < K; ++along)
      store_pair(made + made_at<K>(j) + along * SLICE, pack<T>(sums[along][j][0], sums[along][j][1]));
  __syncthreads();
}

// Adds what a line of offsets gives of the gradient of hidden. `line` counts the lines of all slices.
template <typename T, int K, int GROUPS>
__device__ __forceinline__ void add_hidden(float (&through)[2][GROUPS / SLICE][4], const T* made,
                                           const T* __restrict__ last, int line) {
  constexpr int SLICES = GROUPS / SLICE;
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
#pragma unroll
  for (int pair = 0; pair < PAIRS<K>; ++pair) {
    unsigned a[2][4];
#pragma unroll
    for (int m = 0; m < 2; ++m)
      ldmatrix_x4(a[m], made + (warp * 32 + m * 16 + lane % 16) * MADE_PITCH<K> + pair * 16 + lane / 16 * 8);
#pragma unroll
    for (int n = 0; n < SLICES; ++n) {
      unsigned b[2];
      load_fragment(b, last, (line * PAIRS<K> + pair) * SLICES + n);
      multiply<T>(through[0][n], a[0], b);
      multiply<T>(through[1][n], a[1], b);
    }
  }
}

// Adds what the square gives of the gradients of last and bias for a line of offsets, every other pair a warp: to what
// this block has stored before, unless it is its first square.
template <typename T, int K, int GROUPS>
__device__ __forceinline__ void add_parameters(float* __restrict__ grad_last, float* __restrict__ grad_bias,
                                               const T* made, const T* hiddens, long long line, bool is_first) {
  constexpr int SLICES = GROUPS / SLICE;
  const int lane = threadIdx.x % WARP;
  const T* turned = made + (lane / 16 * 8 + lane % 8) * MADE_PITCH<K> + lane / 8 % 2 * SLICE;
  const unsigned ones[2] = {ONES<T>, ONES<T>};
  for (int pair = threadIdx.x / WARP; pair < PAIRS<K>; pair += 2) {
    float products[SLICES + 1][4] = {};
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      const Place row = place(m / 2, m % 2, lane % 16);
      unsigned a[4];
      ldmatrix_x4_trans(a, turned + m * 16 * MADE_PITCH<K> + pair * 2 * SLICE);
#pragma unroll
      for (int n = 0; n < SLICES; n += 2) {
        unsigned two[4];
        const int column = n + (SLICES > 1 ? lane / 16 : 0);
        ldmatrix_x4_trans(two, hiddens + (row.y * SIDE + row.x) * PITCH<GROUPS> + column * 8);
        const unsigned b[2] = {two[0], two[1]}, next[2] = {two[2], two[3]};
        multiply<T>(products[n], a, b);
        if (n + 1 < SLICES) multiply<T>(products[n + 1], a, next);
      }
      multiply<T>(products[SLICES], a, ones);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const long long row = (line * (K + 1) + 2 * pair + i) * SLICE + lane / 4;
      float* to = grad_last + row * GROUPS + lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < SLICES; ++n) {
        Vector<float, 2> sum = {products[n][2 * i], products[n][2 * i + 1]};
        if (!is_first) {
          const Vector<float, 2> before = load_vector<2>(to + n * 8);
          sum.value[0] += before.value[0], sum.value[1] += before.value[1];
        }
        store_vector<2>(to + n * 8, sum);
      }
      if (lane % 4 == 0) grad_bias[row] = products[SLICES][2 * i] + (is_first ? 0.0f : grad_bias[row]);
    }
  }
}

// A block has every gridDim.x-th square.
//   last [G / 8, K, (K + 1) / 2, G / 8]: fragments of 16 x 8     grad_hidden [G / 8, N, H * W, G], to be added
//   grad_last [gridDim.x, G / 8, K, K + 1, 8, G], grad_bias [gridDim.x, G / 8, K, K + 1, 8], to be added
template <typename T, int K, int GROUPS>
__global__ void __launch_bounds__(THREADS, 1)
    attend_backward_hidden(const T* __restrict__ grad, int grad_stride, const T* __restrict__ hidden,
                           int hidden_stride, const T* __restrict__ value, int value_stride,
                           const T* __restrict__ last, float* __restrict__ grad_hidden, float* __restrict__ grad_last,
                           float* __restrict__ grad_bias, int squares, long long total_pixels, int height, int width) {
  constexpr int SLICES = GROUPS / SLICE;
  SHARED(shared);
  T* values = reinterpret_cast<T*>(shared);
  T* hiddens = values + SHARES * SHARE<K>;
  T* made = hiddens + PIXELS * PITCH<GROUPS>;
  const int lane = threadIdx.x % WARP;
  const Place mine = place(threadIdx.x / WARP, 0, lane / 4);
#pragma unroll
  for (int j = 0; j < QUAD; ++j) store_pair(made + made_at<K>(j) + K * SLICE, 0);
  for (int s = blockIdx.x; s < squares; s += gridDim.x) {
    const Square at = square<SIDE>(s, height, width);
    const long long pixels = at.image * height * width;
    __syncthreads();
    load_shares<T, K, GROUPS, REFLECTED>(values, value + pixels * value_stride, value_stride, at, height, width);
    load_hidden<T, GROUPS, SIDE, SIDE>(hiddens, hidden + pixels * hidden_stride, hidden_stride, at.top, at.left,
                                       height, width);
    unsigned given[SHARES][QUAD];
    bool inside[QUAD];
#pragma unroll
    for (int j = 0; j < QUAD; ++j) {
      const int y = at.top + mine.y, x = at.left + mine.x + j;
      inside[j] = y < height && x < width;
      const T* from = grad + (pixels + y * width + x) * grad_stride + blockIdx.y * SLICE + lane % 4 * 2;
#pragma unroll
      for (int share = 0; share < SHARES; ++share) given[share][j] = inside[j] ? load_pair(from + share * GROUPS) : 0u;
    }
    __syncthreads();
    float through[2][SLICES][4] = {};
    for (int up = 0; up < K; ++up) {
      const long long set = static_cast<long long>(blockIdx.x) * SLICES + blockIdx.y;
      const T* seen = values + ((mine.y + up) * LINE<K> + mine.x) * SLICE + lane % 4 * 2;
      weight_gradients<T, K>(made, given, seen);
      add_hidden<T, K, GROUPS>(through, made, last, blockIdx.y * K + up);
      add_parameters<T, K, GROUPS>(grad_last, grad_bias, made, hiddens, set * K + up,
                                   s < static_cast<int>(gridDim.x));
    }
#pragma unroll
    for (int j = 0; j < QUAD; ++j) {
      if (!inside[j]) continue;
      const long long pixel = pixels + (at.top + mine.y) * width + at.left + mine.x + j;
      float* to = grad_hidden + (blockIdx.y * total_pixels + pixel) * GROUPS + lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < SLICES; ++n) {
        const float sum[2] = {through[j / 2][n][j % 2 * 2], through[j / 2][n][j % 2 * 2 + 1]};
        store_all(to + n * 8, sum);
      }
    }
  }
}
