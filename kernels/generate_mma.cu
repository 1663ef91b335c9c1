// Weight generation (generate.cu has the formulas) on the tensor cores, for 16-bit types.
//
// A block has a square of 8 x 8 pixels, 16 pixels being the rows of one product. The relation is made in registers,
// in the place where the product wants it; sums are in float. A map has to be wider than the reach; R is a multiple
// of 16, G of 8, and 16 bytes are aligned in all maps. Weights are fragments: sancli/ops/cuda/fragments.py.
#include "fragments.cuh"
#include "patches.cuh"

constexpr int SIDE = 8, PIXELS = SIDE * SIDE;
constexpr int APART = 8;  // numbers between the pixels of a tile: no two of eight neighbours share a bank

// Relu(scale * x + shift) of a fragment of pixels x channels, whose lane holds 4 channels of two pixels.
template <typename T>
__device__ __forceinline__ void relate(unsigned (&a)[4], const float (&affine)[2][4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float* f = affine[i / 2];
    const float2 x = unpack<T>(a[i]);
    a[i] = packed_relu<T>(f[0] * x.x + f[1], f[2] * x.y + f[3]);
  }
}

// Two fragments of the relation: of channels c to c + 16 of the pixels seen. `norm` has scale and shift in turn, of this
// lane's channels: two, and those 8 further.
template <typename T>
__device__ __forceinline__ void related(unsigned (&a)[2][4], const T* const (&seen)[2], int c,
                                        const float* __restrict__ norm) {
  float affine[2][4];
  load_all(norm, affine[0]);
  load_all(norm + 16, affine[1]);
#pragma unroll
  for (int m = 0; m < 2; ++m) {
    ldmatrix_x4(a[m], seen[m] + c);
    relate<T>(a[m], affine);
  }
}

// Adds the products of two fragments of pixels with COLUMNS of the weights, from `index` on.
template <typename T, int COLUMNS>
__device__ __forceinline__ void add_products(float (&sums)[2][COLUMNS][4], const unsigned (&a)[2][4],
                                             const T* __restrict__ weight, int index) {
#pragma unroll
  for (int n = 0; n < COLUMNS; ++n) {
    unsigned b[2];
    load_fragment(b, weight, index + n);
    multiply<T>(sums[0][n], a[0], b);
    multiply<T>(sums[1][n], a[1], b);
  }
}

// The pixel of the image whose sums a lane has in fragment i / 2; OUTSIDE: none.
__device__ __forceinline__ int place(const Square& at, int first_pixel, int i, int height, int width) {
  const int pixel = first_pixel + 8 * i + threadIdx.x % WARP / 4;
  const int row = at.top + pixel / SIDE, column = at.left + pixel % SIDE;
  return row < height && column < width ? row * width + column : OUTSIDE;
}

// Adds what the SPLITS parts of a block have made, in their order, to the sums of part 0. others [8 * COLUMNS, 64].
template <int SPLITS, int COLUMNS>
__device__ __forceinline__ void join(float (&sums)[2][COLUMNS][4], float* others, int part) {
  for (int turn = 1; turn < SPLITS; ++turn) {
    __syncthreads();
    if (part == turn)
#pragma unroll
      for (int i = 0; i < 8 * COLUMNS; ++i)
        others[i * PIXELS + threadIdx.x % PIXELS] = sums[i / 4 / COLUMNS][i / 4 % COLUMNS][i % 4];
    __syncthreads();
    if (part == 0)
#pragma unroll
      for (int i = 0; i < 8 * COLUMNS; ++i)
        sums[i / 4 / COLUMNS][i / 4 % COLUMNS][i % 4] += others[i * PIXELS + threadIdx.x % PIXELS];
  }
}

// A warp makes OUTPUTS numbers of z at 32 pixels; SPLITS pairs of warps share the offsets of the same pixels, and are
// added in their order. blockIdx.y counts the groups of OUTPUTS; 64 * SPLITS threads.
template <typename T, int K, int CHANNELS, int OUTPUTS, int SPLITS>
__global__ void __launch_bounds__(PIXELS* SPLITS, 1)
    generate_forward_mma(const T* __restrict__ query, int query_stride, const T* __restrict__ key, int key_stride,
                         const float* __restrict__ norm, const T* __restrict__ weight, T* __restrict__ z, int height,
                         int width, int planes, int groups) {
  constexpr int REACH = K / 2, WIDE = SIDE + K - 1, PITCH = CHANNELS + APART, COLUMNS = OUTPUTS / 8;
  SHARED(shared);
  T* keys = reinterpret_cast<T*>(shared);
  T* queries = keys + WIDE * WIDE * PITCH;
  const Square at = square<SIDE>(blockIdx.x, height, width);
  const int lane = threadIdx.x % WARP, part = threadIdx.x / PIXELS, first_pixel = threadIdx.x / WARP % 2 * 32;
  const long long pixels = at.image * height * width;
  float sums[2][COLUMNS][4] = {};
  for (int first = 0; first < planes; first += CHANNELS) {
    __syncthreads();
    load_tile<T, T, WIDE, WIDE, CHANNELS, PITCH, REACH, REFLECTED>(
        keys, key + pixels * key_stride + first, key_stride, at.top - REACH, at.left - REACH, height, width);
    load_tile<T, T, SIDE, SIDE, CHANNELS, PITCH, 0, ZERO>(queries, query + pixels * query_stride + first,
                                                          query_stride, at.top, at.left, height, width);
    __syncthreads();
    for (int o = part; o <= K * K; o += SPLITS) {
      const T* seen[2];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        const int pixel = first_pixel + 16 * m + lane % 16, y = pixel / SIDE, x = pixel % SIDE;
        seen[m] = o < K * K ? keys + ((y + o / K) * WIDE + x + o % K) * PITCH : queries + pixel * PITCH;
        seen[m] += lane / 16 * 8;
      }
#pragma unroll
      for (int c = 0; c < CHANNELS; c += 16) {
        const int step = (o * planes + first + c) / 16;
        unsigned a[2][4];
        related(a, seen, c, norm + (step * 16 + lane % 4 * 2) * 2);
        add_products(sums, a, weight, step * (groups / 8) + blockIdx.y * COLUMNS);
      }
    }
  }
  join<SPLITS>(sums, reinterpret_cast<float*>(shared), part);
  if (part) return;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int pixel = place(at, first_pixel, i, height, width);
    if (pixel == OUTSIDE) continue;
    T* out = z + (pixels + pixel) * groups + blockIdx.y * OUTPUTS + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < COLUMNS; ++n) {
      const float made[2] = {sums[i / 2][n][i % 2 * 2], sums[i / 2][n][i % 2 * 2 + 1]};
      store_all(out + n * 8, made);
    }
  }
}

// A fragment of the gradients of z that see 16 pixels at offset (up, along), this lane's being (y, x): from a tile
// whose first pixel is (top, left) of the image. Rounded once, after they are added. `empty` is 16 zeros.
template <typename T, int K, int WIDE, int PITCH>
__device__ __forceinline__ void gather(unsigned (&a)[4], const T* tile, const T* empty, int top, int left, int y,
                                       int x, int up, int along, bool from_row, bool from_column, int channel,
                                       int height, int width) {
  constexpr int REACH = K / 2;
  const int lane = threadIdx.x % WARP;
  channel += lane / 16 * 8;
  ldmatrix_x4(a, tile + ((straight<REACH>(y, up) - top) * WIDE + straight<REACH>(x, along) - left) * PITCH + channel);
  if (!from_row && !from_column) return;
  float2 sum[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) sum[i] = unpack<T>(a[i]);
  for (int i = 1; i < 4; ++i) {  // by row, by column, by both
    if ((i & 1 && !from_row) || (i & 2 && !from_column)) continue;
    const int row = i & 1 ? mirrored<REACH>(y, up, height) : straight<REACH>(y, up);
    const int column = i & 2 ? mirrored<REACH>(x, along, width) : straight<REACH>(x, along);
    const bool there = row != OUTSIDE && column != OUTSIDE;
    unsigned more[4];
    ldmatrix_x4(more, there ? tile + ((row - top) * WIDE + column - left) * PITCH + channel : empty + lane / 16 * 8);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float2 other = unpack<T>(more[j]);
      sum[j].x += other.x, sum[j].y += other.y;
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) a[i] = pack<T>(sum[i].x, sum[i].y);
}

// What the sums of generate_backward_map_mma start from, and the map's own numbers: at pixels 8 i + lane / 4, channels
// 8 n + lane % 4 * 2 and the next, counted from `first`.
template <typename T, int COLUMNS>
__device__ __forceinline__ void start(unsigned (&value)[4][COLUMNS], float (&sums)[4][COLUMNS][2], const Square& at,
                                      int first_pixel, const T* map, int map_stride, const float* constant,
                                      const float* linear, int first, int height, int width, int planes) {
  const int c = threadIdx.x % 4 * 2;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int pixel = place(at, first_pixel, i, height, width);
#pragma unroll
    for (int n = 0; n < COLUMNS; ++n) {
      value[i][n] = 0, sums[i][n][0] = sums[i][n][1] = 0;
      if (pixel == OUTSIDE) continue;
      const T* address = map + pixel * map_stride + c + n * 8;
      value[i][n] = load_vector<1>(reinterpret_cast<const unsigned*>(address)).value[0];
      if (!constant) continue;
      const float2 x = unpack<T>(value[i][n]);
      const Vector<float, 2> from = load_vector<2>(constant + pixel * planes + first + c + n * 8);
      const Vector<float, 2> factor = load_vector<2>(linear + pixel * planes + first + c + n * 8);
      sums[i][n][0] = from.value[0] + factor.value[0] * x.x;
      sums[i][n][1] = from.value[1] + factor.value[1] * x.y;
    }
  }
}

// Adds what has passed to where relu lets it through, and with it the scale.
template <typename T, int COLUMNS>
__device__ __forceinline__ void add_open(float (&sums)[4][COLUMNS][2], const float (&passed)[2][COLUMNS][4],
                                         const unsigned (&value)[4][COLUMNS], const float* __restrict__ norm) {
#pragma unroll
  for (int n = 0; n < COLUMNS; ++n) {
    float affine[4];
    load_all(norm + n * 16, affine);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 x = unpack<T>(value[i][n]);
      const float* through = passed[i / 2][n] + i % 2 * 2;
      if (affine[0] * x.x + affine[1] > 0) sums[i][n][0] += affine[0] * through[0];
      if (affine[2] * x.y + affine[3] > 0) sums[i][n][1] += affine[2] * through[1];
    }
  }
}

// A warp makes CHANNELS numbers of the gradient of map at 32 pixels; pairs of warps have the next channels each, and
// blockIdx.y counts what a block has. OUTPUTS channels of grad are in shared memory at a time; 8 are filled up to 16.
template <typename T, int K, int CHANNELS, int OUTPUTS>
__global__ void __launch_bounds__(4 * PIXELS, 1)
    generate_backward_map_mma(const T* __restrict__ grad, int grad_stride, const T* __restrict__ map,
                              int map_stride, const float* __restrict__ norm, const T* __restrict__ weight,
                              const float* __restrict__ constant, const float* __restrict__ linear,
                              T* __restrict__ grad_map, int height, int width, int planes, int groups) {
  constexpr int REACH = K / 2, WIDE = SIDE + K - 1, INNER = OUTPUTS < 16 ? 16 : OUTPUTS, PITCH = INNER + APART;
  constexpr int COLUMNS = CHANNELS / 8;
  SHARED(shared);
  T* grads = reinterpret_cast<T*>(shared);
  T* empty = grads + WIDE * WIDE * PITCH;
  const Square at = square<SIDE>(blockIdx.x, height, width);
  const int lane = threadIdx.x % WARP, first_pixel = threadIdx.x / WARP % 2 * 32;
  const int first = (blockIdx.y * (blockDim.x / PIXELS) + threadIdx.x / PIXELS) * CHANNELS;
  const int top = at.top - REACH, left = at.left - REACH;
  const long long pixels = at.image * height * width;
  unsigned value[4][COLUMNS];
  float sums[4][COLUMNS][2];
  start<T>(value, sums, at, first_pixel, map + pixels * map_stride + first, map_stride, constant, linear, first, height,
           width, planes);
  for (int i = threadIdx.x; i < 16; i += blockDim.x) empty[i] = from_accumulator<T>(0);
  if constexpr (INNER > OUTPUTS)
    for (int i = threadIdx.x; i < WIDE * WIDE * (INNER - OUTPUTS); i += blockDim.x)
      grads[i / (INNER - OUTPUTS) * PITCH + OUTPUTS + i % (INNER - OUTPUTS)] = from_accumulator<T>(0);
  for (int group = 0; group < groups; group += OUTPUTS) {
    __syncthreads();
    load_tile<T, T, WIDE, WIDE, OUTPUTS, PITCH, REACH, ZERO>(grads, grad + pixels * grad_stride + group, grad_stride,
                                                             top, left, height, width);
    __syncthreads();
    for (int o = 0; o < K * K; ++o) {
      const int up = o / K, along = o % K;
      const bool from_row = can_mirror<REACH>(at.top, at.top + SIDE - 1, up, height);
      const bool from_column = can_mirror<REACH>(at.left, at.left + SIDE - 1, along, width);
      float passed[2][COLUMNS][4] = {};
#pragma unroll
      for (int j = 0; j < INNER; j += 16) {
        unsigned a[2][4];
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          const int pixel = first_pixel + 16 * m + lane % 16, y = at.top + pixel / SIDE, x = at.left + pixel % SIDE;
          gather<T, K, WIDE, PITCH>(a[m], grads, empty, top, left, y, x, up, along, from_row, from_column, j, height,
                                    width);
        }
        const int step = (o * groups + group) / OUTPUTS * (INNER / 16) + j / 16;
        add_products(passed, a, weight, step * (planes / 8) + first / 8);
      }
      add_open<T>(sums, passed, value, norm + (o * planes + first + lane % 4 * 2) * 2);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int pixel = place(at, first_pixel, i, height, width);
    if (pixel == OUTSIDE) continue;
    T* out = grad_map + (pixels + pixel) * planes + first + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < COLUMNS; ++n) store_all(out + n * 8, sums[i][n]);
  }
}

// The fragments of pixels x groups: of 16 pixels, whose rows are the lanes', 8 groups each.
template <int COLUMNS, typename T>
__device__ __forceinline__ void load_columns(unsigned (&b)[COLUMNS + COLUMNS % 2][2], const T* row) {
#pragma unroll
  for (int n = 0; n < COLUMNS; n += 2) {
    unsigned two[4];
    const int column = n + (COLUMNS > 1 ? threadIdx.x % WARP / 16 : 0);
    ldmatrix_x4_trans(two, row + column * 8);
    b[n][0] = two[0], b[n][1] = two[1], b[n + 1][0] = two[2], b[n + 1][1] = two[3];
  }
}

// Keeps those of x that relu lets through, and says which by ones; a lane has pixels of two channels.
template <typename T>
__device__ __forceinline__ void let_through(unsigned (&x)[4], unsigned (&open)[4], const float (&affine)[2][2]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 value = unpack<T>(x[i]);
    const float scale = affine[i % 2][0], shift = affine[i % 2][1];
    const unsigned mask = pair_mask(scale * value.x + shift > 0, scale * value.y + shift > 0);
    open[i] = mask & ONES<T>, x[i] &= mask;
  }
}

// The sums of generate_backward_sums_naive for a line of offsets, one a warp, CHANNELS channels and OUTPUTS groups:
// which ones blockIdx.y counts, the groups first, then the channels, then the lines. Products of channels x pixels
// with pixels x groups, of ones and of map where relu lets them through. A block has every gridDim.x-th square.
//   norm [K * K, R, 2]      sums [gridDim.x, 2, K * K, G, R]
template <typename T, int K, int CHANNELS, int OUTPUTS>
__global__ void __launch_bounds__(K* WARP, 1)
    generate_backward_sums_mma(const T* __restrict__ grad, int grad_stride, const T* __restrict__ map, int map_stride,
                               const float* __restrict__ norm, float* __restrict__ sums, int squares, int height,
                               int width, int planes, int groups) {
  constexpr int REACH = K / 2, WIDE = SIDE + K - 1, ROWS = CHANNELS / 16, COLUMNS = OUTPUTS / 8;
  constexpr int MAP_PITCH = CHANNELS + APART, GRAD_PITCH = OUTPUTS + APART;
  SHARED(shared);
  T* maps = reinterpret_cast<T*>(shared);
  T* grads = maps + SIDE * WIDE * MAP_PITCH;
  const int slices = groups / OUTPUTS, group = blockIdx.y % slices * OUTPUTS, parts = planes / CHANNELS;
  const int first = blockIdx.y / slices % parts * CHANNELS, up = blockIdx.y / slices / parts;
  const int lane = threadIdx.x % WARP, along = threadIdx.x / WARP, o = up * K + along;
  float made[ROWS][2][COLUMNS][4] = {}, affine[ROWS][2][2];
#pragma unroll
  for (int m = 0; m < ROWS; ++m)
#pragma unroll
    for (int i = 0; i < 2; ++i) load_all(norm + (o * planes + first + 16 * m + 8 * i + lane / 4) * 2, affine[m][i]);
  for (int s = blockIdx.x; s < squares; s += gridDim.x) {
    const Square at = square<SIDE>(s, height, width);
    const long long pixels = at.image * height * width;
    __syncthreads();
    load_tile<T, T, SIDE, WIDE, CHANNELS, MAP_PITCH, REACH, REFLECTED>(
        maps, map + pixels * map_stride + first, map_stride, at.top + up - REACH, at.left - REACH, height, width);
    load_tile<T, T, SIDE, SIDE, OUTPUTS, GRAD_PITCH, 0, ZERO>(grads, grad + pixels * grad_stride + group, grad_stride,
                                                              at.top, at.left, height, width);
    __syncthreads();
#pragma unroll
    for (int pixel = 0; pixel < PIXELS; pixel += 16) {
      unsigned b[COLUMNS + COLUMNS % 2][2];
      load_columns<COLUMNS>(b, grads + (pixel + lane % 16) * GRAD_PITCH);
      const int seen = pixel + lane / 16 * 8 + lane % 8;
      const T* from = maps + (seen / SIDE * WIDE + seen % SIDE + along) * MAP_PITCH + lane / 8 % 2 * 8;
#pragma unroll
      for (int m = 0; m < ROWS; ++m) {
        unsigned x[4], open[4];
        ldmatrix_x4_trans(x, from + 16 * m);
        let_through<T>(x, open, affine[m]);
#pragma unroll
        for (int n = 0; n < COLUMNS; ++n) {
          multiply<T>(made[m][0][n], open, b[n]);
          multiply<T>(made[m][1][n], x, b[n]);
        }
      }
    }
  }
#pragma unroll
  for (int m = 0; m < ROWS; ++m)
#pragma unroll
    for (int n = 0; n < COLUMNS; ++n)
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int g = group + n * 8 + lane % 4 * 2 + i % 2, r = first + 16 * m + i / 2 % 2 * 8 + lane / 4;
        const long long set = 2 * blockIdx.x + i / 4;
        sums[((set * K * K + o) * groups + g) * planes + r] = made[m][i / 4][n][i % 4];
      }
}
