// Pairwise attention on tiles: what the fast kernels share.
//
// A block owns OWNERS pixels and makes ROWS pairs at a time, OFFSETS of each owner: row p + OWNERS * o.
// The layers of these pairs are products (pairwise_products.cuh) of rows in shared memory; what they make is packed by
// pair_pack. R and G are those of a layer of the network, and M = 8 G.
#pragma once
#include "pairwise.cuh"
#include "pairwise_products.cuh"

constexpr int SHARE = 8;  // channels that share a weight

// The sizes of a layer; rows of u hold the relation, the place, a 1 and zeros.
template <typename Type, int PLANES, int GROUPS, int ROWS_>
struct Layer {
  using T = Type;
  static constexpr int R = PLANES, G = GROUPS, ROWS = ROWS_, STEP = Multiplier<T>::STEP, PAD = Multiplier<T>::PAD;
  // By registers: 128 where two blocks or 16 warps are on an SM, else 255. What they do not hold is held back by the
  // loops in pairwise_products.cuh that are not unrolled; no kernel spills.
  static constexpr int WARPS = R == 64 && sizeof(T) == 2 ? 16 : 8, THREADS = WARPS * WARP;
  static constexpr int BLOCKS = R * sizeof(T) < 128 ? 2 : 1;
  static constexpr int RELATED = R + 2, WIDE = round_up(R + 3, STEP), HIDDEN = round_up(R, STEP);
  static constexpr int WEIGHTS = round_up(G, STEP), LOGITS = round_up(G, 8);
  static constexpr int OWNERS = smaller(ROWS, 1024 / G), OFFSETS = ROWS / OWNERS;
  static constexpr int U = WIDE + PAD, H = HIDDEN + PAD, W = WEIGHTS + PAD;         // from row to row
  static constexpr int VECTOR = smaller(R, 16 / sizeof(T)), VECTORS = R / VECTOR;   // of a pixel of query or key
  static constexpr int LANES = smaller(G, WARP), OCTETS = G / LANES;  // a pixel's channels: eight at a time
  static_assert(THREADS % VECTORS == 0 && (WIDE - R) % VECTOR == 0, "a thread has always the same channels");
};

template <typename L>
using WideTile = Tile<typename L::T, L::ROWS, L::WIDE, L::WARPS>;
template <typename L>
using HiddenTile = Tile<typename L::T, L::ROWS, L::HIDDEN, L::WARPS>;
template <typename L>
using LogitsTile = Tile<typename L::T, L::ROWS, L::LOGITS, L::WARPS>;

// Shared memory, part by part.
struct Room {
  unsigned char* at;

  template <typename T>
  __device__ __forceinline__ T* take(int count) {
    T* taken = reinterpret_cast<T*>(at);
    at += round_up(count * sizeof(T), 16);
    return taken;
  }
};

// The pixels of a block, from `first` on; those behind the last one are it once more, and dead.
template <typename L>
struct Owners {
  Pixel* pixel;
  int first, pixels;

  __device__ __forceinline__ void find(const Sides& sides) const {
    for (int p = threadIdx.x; p < L::OWNERS; p += L::THREADS)
      pixel[p] = pixel_at(sides, first + p < pixels ? first + p : pixels - 1);
  }
  __device__ __forceinline__ bool live(int p) const { return first + p < pixels; }
};

// The pairs of a block's rows: each owner's partner, and how often they are one: 0 where there is none.
struct Pairs {
  int *partner, *times;
};

// V floats, a multiple of 4.
template <int V>
__device__ __forceinline__ void load_floats(const float* address, float (&x)[V]) {
#pragma unroll
  for (int v = 0; v < V; v += 4) load<4>(address + v, reinterpret_cast<float(&)[4]>(x[v]));
}

// norm1, in shared memory: registers are what these kernels are short of.
template <typename L>
struct Norm1 {
  float *scale, *shift;

  __device__ __forceinline__ explicit Norm1(Room& room)
      : scale(room.take<float>(L::WIDE)), shift(room.take<float>(L::WIDE)) {}
  __device__ __forceinline__ void read(const float* __restrict__ scale1, const float* __restrict__ shift1) const {
    for (int d = threadIdx.x; d < L::RELATED; d += L::THREADS) scale[d] = scale1[d], shift[d] = shift1[d];
  }
};

// The channels of u behind the relation's own: the place's, and 1; a vector of zeros is none at all.
template <typename L>
__device__ __forceinline__ void relate_place(const float* place_i, const float* place_j, const Norm1<L>& norm,
                                             bool is_pair, typename L::T* u) {
#pragma unroll
  for (int begin = 0; begin < L::WIDE - L::R; begin += L::VECTOR) {
    float x[L::VECTOR];
#pragma unroll
    for (int v = 0; v < L::VECTOR; ++v) {
      const int d = L::R + begin + v;
      x[v] = d == L::RELATED && is_pair ? 1 : 0;
      if (d < L::RELATED && is_pair)
        x[v] = relu(norm.scale[d] * (place_i[d - L::R] - place_j[d - L::R]) + norm.shift[d]);
    }
    store<L::VECTOR>(u + L::R + begin, x);
  }
}

// u of all rows, from offset `o` on, and their pairs. Rows that are none are 0.
template <typename L, bool OWNED_BY_KEY>
__device__ __forceinline__ void relate(const Compared<typename L::T>& of, const Sides& sides, const Norm1<L>& norm,
                                       const Owners<L>& owners, int o, const Pairs& pairs, typename L::T* u) {
  const int channel = threadIdx.x % L::VECTORS * L::VECTOR;
#pragma unroll 1
  for (int row = threadIdx.x / L::VECTORS; row < L::ROWS; row += L::THREADS / L::VECTORS) {
    const int p = row % L::OWNERS, offset = o + (L::OFFSETS == 1 ? 0 : row / L::OWNERS);
    const Pixel owner = owners.pixel[p];
    Partner other{owner.index, 0};
    if (owners.live(p) && offset < sides.offsets())
      other = OWNED_BY_KEY ? seeing(sides, owner, offset) : seen_from(sides, owner, offset);
    const int i = OWNED_BY_KEY ? other.index : owner.index, j = OWNED_BY_KEY ? owner.index : other.index;
    float x[L::VECTOR], y[L::VECTOR], scale[L::VECTOR], shift[L::VECTOR];
    load<L::VECTOR>(of.query_of(i) + channel, x);
    load<L::VECTOR>(of.key_of(j) + channel, y);
    load_floats(norm.scale + channel, scale);
    load_floats(norm.shift + channel, shift);
#pragma unroll
    for (int v = 0; v < L::VECTOR; ++v)
      x[v] = other.times ? relu(scale[v] * (x[v] + of.sign * y[v]) + shift[v]) : 0;
    store<L::VECTOR>(u + row * L::U + channel, x);
    if (channel == 0) {
      const int before = owner.index - owner.y * sides.width - owner.x;  // pixels in images before this one
      relate_place<L>(of.place + 2 * (i - before), of.place + 2 * (j - before), norm, other.times, u + row * L::U);
      pairs.partner[row] = other.index;
      pairs.times[row] = other.times;
    }
  }
}

template <typename L>
__device__ __forceinline__ void map_hidden(const typename L::T* u, const typename L::T* __restrict__ weight1,
                                           const float* __restrict__ bias1, typename L::T* hidden) {
  HiddenTile<L> tile;
  tile.each([=](int, int column, float& x, float& y) { x = bias1[column], y = bias1[column + 1]; });
  tile.template add_product<L::WIDE>(u, weight1);
  tile.each([=](int row, int column, float& x, float& y) {
    store_pair(hidden + row * L::H + column, relu(x), relu(y));
  });
}

// f(row, g, logit) for each logit.
template <typename L, typename F>
__device__ __forceinline__ void map_logits(const typename L::T* hidden, const typename L::T* __restrict__ weight2,
                                           F f) {
  LogitsTile<L> tile;
  tile.clear();
  tile.template add_product<L::HIDDEN>(hidden, weight2);
  tile.each([=](int row, int column, float& x, float& y) {
    if (column < L::G) f(row, column, x);
    if (column + 1 < L::G) f(row, column + 1, y);
  });
}

// For weights that 16 bits are made from, the fast one is exact enough.
template <typename T>
__device__ __forceinline__ float exponential(float x) {
  return sizeof(T) == 2 ? __expf(x) : exp(x);
}

template <typename T>
__device__ __forceinline__ void load_octet(const T* address, float (&x)[8]) {
  if constexpr (sizeof(T) == 2) {
    load<8>(address, x);
  } else {
    load<4>(address, reinterpret_cast<float(&)[4]>(x));
    load<4>(address + 4, reinterpret_cast<float(&)[4]>(x[4]));
  }
}

template <typename T>
__device__ __forceinline__ void store_octet(T* address, const float (&x)[8]) {
  if constexpr (sizeof(T) == 2) {
    store<8>(address, x);
  } else {
    store<4>(address, reinterpret_cast<const float(&)[4]>(x));
    store<4>(address + 4, reinterpret_cast<const float(&)[4]>(x[4]));
  }
}

// The weighted sums of a map's channels, OCTETS of eight a lane, LANES of which have a pixel: G <= 32 lanes have
// adjacent ones, so that a warp reads whole lines.
template <typename L>
struct Gathered {
  static constexpr int UNITS = L::OWNERS * L::LANES, EACH = (UNITS + L::THREADS - 1) / L::THREADS;
  static_assert(UNITS % WARP == 0, "whole warps");
  float x[EACH][L::OCTETS][8];

  __device__ __forceinline__ void clear() {
    each([](int, int, int, float(&sum)[8]) {
#pragma unroll
      for (int i = 0; i < 8; ++i) sum[i] = 0;
    });
  }
  // f(owner, octet, which of the lane's, sums)
  template <typename F>
  __device__ __forceinline__ void each(F f) {
#pragma unroll
    for (int e = 0; e < EACH; ++e) {
      const int unit = threadIdx.x + e * L::THREADS;
      if (unit >= UNITS) break;
#pragma unroll
      for (int k = 0; k < L::OCTETS; ++k) f(unit / L::LANES, unit % L::LANES + k * WARP, k, x[e][k]);
    }
  }
  // The weights of an octet's channels, out of a row's.
  static __device__ __forceinline__ void weights_of(const float* row, int octet, float (&w)[8]) {
    if constexpr (L::G % 8 == 0) {
      load_octet(row + octet * 8 % L::G, w);
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) w[i] = row[i % L::G];
    }
  }
  __device__ __forceinline__ void scale(const float* carry) {
    each([=](int p, int octet, int, float(&sum)[8]) {
      float w[8];
      weights_of(carry + p * L::G, octet, w);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum[i] *= w[i];
    });
  }
  // Adds `offsets` of each owner's partners.
  __device__ __forceinline__ void add(const typename L::T* __restrict__ map, int stride, const int* partner,
                                      const float* weight, int offsets) {
    each([=](int p, int octet, int, float(&sum)[8]) {
      for (int o = 0; o < offsets; ++o) {
        const int row = p + o * L::OWNERS;
        float w[8], v[8];
        weights_of(weight + row * L::G, octet, w);
        load_octet(map + static_cast<long long>(partner[row]) * stride + octet * 8, v);
#pragma unroll
        for (int i = 0; i < 8; ++i) sum[i] += w[i] * v[i];
      }
    });
  }
};

// Sums over the channels that share a weight, out of the octets that the LANES of a pixel have; each lane is left
// with OCTETS of the G sums, from `first` on. All lanes of a warp take part.
template <typename L>
struct ShareSum {
  static constexpr int LEFT = L::G < 8 ? L::G : 8;
  float x[8];
  int first;

  __device__ __forceinline__ explicit ShareSum(const float (&octets)[L::OCTETS][8]) {
    const int lane = threadIdx.x % L::LANES;
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = 0;
#pragma unroll
    for (int k = 0; k < L::OCTETS; ++k)
#pragma unroll
      for (int i = 0; i < 8; ++i) x[i % LEFT] += octets[k][i];
    first = L::G < 8 ? 0 : lane * 8 % L::G;
    halve<LEFT, L::LANES / 2>(lane);
  }

 private:
  // Lanes that are `distance` apart hand each other half of what they have.
  template <int COUNT, int DISTANCE>
  __device__ __forceinline__ void halve(int lane) {
    if constexpr (DISTANCE > 0 && DISTANCE >= L::G / 8) {
      const bool upper = lane & DISTANCE;
#pragma unroll
      for (int i = 0; i < COUNT / 2; ++i) {
        const float given = upper ? x[i] : x[i + COUNT / 2], kept = upper ? x[i + COUNT / 2] : x[i];
        x[i] = kept + __shfl_xor_sync(ALL_LANES, given, DISTANCE);
      }
      if (upper) first += COUNT / 2;
      halve<COUNT / 2, DISTANCE / 2>(lane);
    }
  }
};

// The softmax over an owner's offsets, taken as they come: a thread has some of the OWNERS x G largest logits and sums.
template <typename L>
struct Online {
  static constexpr int UNITS = L::OWNERS * L::G, EACH = (UNITS + L::THREADS - 1) / L::THREADS;
  float largest[EACH], total[EACH];

  // Logits become weights, in place; what was summed before has to be multiplied by `carry`.
  __device__ __forceinline__ void add(float* logits, int offsets, bool first, float* carry) {
#pragma unroll
    for (int e = 0; e < EACH; ++e) {
      const int unit = threadIdx.x + e * L::THREADS;
      if (unit >= UNITS) break;
      const float before = first ? logits[unit] : largest[e];
      float now = before;
      for (int o = 0; o < offsets; ++o) {
        const float logit = logits[unit + o * UNITS];
        now = logit > now ? logit : now;
      }
      carry[unit] = exponential<typename L::T>(before - now);
      float sum = first ? 0 : total[e] * carry[unit];
      for (int o = 0; o < offsets; ++o)
        sum += logits[unit + o * UNITS] = exponential<typename L::T>(logits[unit + o * UNITS] - now);
      largest[e] = now;
      total[e] = sum;
    }
  }
  // What to divide by, as a factor; and the log-sum-exp [pixels, G], if wanted.
  __device__ __forceinline__ void finish(const Owners<L>& owners, float* carry, float* __restrict__ logsumexp) const {
#pragma unroll
    for (int e = 0; e < EACH; ++e) {
      const int unit = threadIdx.x + e * L::THREADS;
      if (unit >= UNITS) break;
      carry[unit] = 1 / total[e];
      const int p = unit / L::G;
      if (logsumexp && owners.live(p))
        logsumexp[static_cast<long long>(owners.pixel[p].index) * L::G + unit % L::G] = largest[e] + log(total[e]);
    }
  }
};

// delta [pixels, G]: the products of the sums and `grad`, summed over the channels that share a weight.
template <typename L>
__device__ __forceinline__ void products_with(const Gathered<L>& sums, const Owners<L>& owners,
                                              const typename L::T* __restrict__ grad, int stride,
                                              float* __restrict__ delta) {
#pragma unroll
  for (int e = 0; e < Gathered<L>::EACH; ++e) {
    const int unit = threadIdx.x + e * L::THREADS;
    if (unit >= Gathered<L>::UNITS) break;
    const int p = unit / L::LANES;
    float x[L::OCTETS][8];
#pragma unroll
    for (int k = 0; k < L::OCTETS; ++k) {
      const long long channel = (unit % L::LANES + k * WARP) * 8;
      load_octet(grad + static_cast<long long>(owners.pixel[p].index) * stride + channel, x[k]);
#pragma unroll
      for (int i = 0; i < 8; ++i) x[k][i] *= sums.x[e][k][i];
    }
    const ShareSum<L> share(x);
    for (int i = 0; owners.live(p) && i < L::OCTETS; ++i)
      delta[static_cast<long long>(owners.pixel[p].index) * L::G + share.first + i] = share.x[i];
  }
}

// Leaves the gradient of u where u is above 0.
template <typename L>
__device__ __forceinline__ void mask(WideTile<L>& grad, const typename L::T* u) {
  grad.each([=](int row, int column, float& x, float& y) { relu_backward(u + row * L::U + column, x, y); });
}

// A sum over the passes of a block, row by row, to its owners, [pixels, D]: set, or added to what is there. `room` is
// shared memory for ROWS / 2 rows of WIDE floats, where the offsets of an owner are added in their order.
template <typename L>
__device__ void give_to_owners(WideTile<L>& sums, const Owners<L>& owners, float* room,
                               bool is_more, float* __restrict__ to) {
  auto give = [=](int p, int d, float x) {
    if (d >= L::RELATED || !owners.live(p)) return;
    float* at = to + static_cast<long long>(owners.pixel[p].index) * L::RELATED + d;
    *at = is_more ? *at + x : x;
  };
  if constexpr (L::OFFSETS == 1) {
    sums.each([=](int p, int column, float& x, float& y) { give(p, column, x), give(p, column + 1, y); });
  } else {
    for (int o = 0; o < L::OFFSETS; ++o) {
      sums.each([=](int row, int column, float& x, float& y) {
        if (row / L::OWNERS != o) return;
        float* at = room + row % L::OWNERS * L::WIDE + column;
        at[0] = o ? at[0] + x : x;
        at[1] = o ? at[1] + y : y;
      });
      __syncthreads();
    }
    for (int at = threadIdx.x; at < L::OWNERS * L::WIDE; at += L::THREADS) give(at / L::WIDE, at % L::WIDE, room[at]);
    __syncthreads();
  }
}
