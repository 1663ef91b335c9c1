// What the lanes of a warp do together: shuffles, votes, ldmatrix, tensor cores. Each meets once, then reads.
#pragma once
#include <cstring>

#include "halves.h"
#include "machine.h"

namespace cpu {

inline int lane() { return machine->now->linear % LANES; }

// The exchange of the collective that comes next.
inline Exchange& exchange() {
  Fiber& fiber = *machine->now;
  return machine->exchange[fiber.linear / LANES][fiber.turn++ & 1];
}

inline void check_mask(unsigned mask) {
  if (mask != 0xffffffffu) fail("a collective of a part of a warp: the CPU knows whole ones");
}

template <typename T>
inline T shuffle(unsigned mask, T x, int from, const void* where) {
  static_assert(sizeof(T) <= 16);
  check_mask(mask);
  Exchange& shared = exchange();
  memcpy(shared.value[lane()], &x, sizeof(T));
  wait(AT_WARP, where);
  memcpy(&x, shared.value[from], sizeof(T));
  return x;
}

inline unsigned ballot(unsigned mask, bool x, const void* where) {
  check_mask(mask);
  Exchange& shared = exchange();
  shared.value[lane()][0] = x;
  wait(AT_WARP, where);
  unsigned votes = 0;
  for (int i = 0; i < LANES; ++i) votes |= static_cast<unsigned>(shared.value[i][0]) << i;
  return votes;
}

// Within sections of `width` lanes, as the hardware has it; a lane that would leave its section sees itself.
inline int in_section(int from, int width) { return lane() / width * width + (from & (width - 1)); }
inline int below(int distance, int width) {
  return lane() % width + distance < width ? lane() + distance : lane();
}
inline int above(int distance, int width) { return lane() % width >= distance ? lane() - distance : lane(); }
inline int across(int mask, int width) {
  const int from = lane() ^ mask;
  return from < (lane() / width + 1) * width ? from : lane();
}

inline void check_shared(const void* address, size_t bytes) {
  const auto* at = static_cast<const unsigned char*>(address);
  if (reinterpret_cast<uintptr_t>(at) % bytes) fail("misaligned row of ldmatrix");
  if (at < machine->shared || at + bytes > machine->shared + machine->shared_size)
    fail("row of ldmatrix outside of shared memory");
}

inline const Exchange& matrix_rows(const void* row, const void* where) {
  check_shared(row, 16);
  Exchange& shared = exchange();
  shared.address[lane()] = row;
  wait(AT_WARP, where);
  return shared;
}

inline float decoded(unsigned pair, int which, __half) {
  return __half2float({static_cast<uint16_t>(pair >> 16 * which)});
}
inline float decoded(unsigned pair, int which, __nv_bfloat16) {
  return __bfloat162float({static_cast<uint16_t>(pair >> 16 * which)});
}

// d += a b for a [16, DEPTH] and b [DEPTH, 8], laid out over the lanes as common.cuh says.
template <int DEPTH, typename T>
inline void multiply(float d[4], const unsigned* a, const unsigned* b, T type, const void* where) {
  Exchange& shared = exchange();
  const int g = lane() / 4, t = lane() % 4 * 2;
  for (int half = 0; half < DEPTH / 8; ++half)
    for (int i = 0; i < 2; ++i) {
      shared.a[g][t + 8 * half + i] = decoded(a[2 * half], i, type);
      shared.a[g + 8][t + 8 * half + i] = decoded(a[2 * half + 1], i, type);
      shared.b[t + 8 * half + i][g] = decoded(b[half], i, type);
    }
  wait(AT_WARP, where);
  for (int i = 0; i < 4; ++i)
    for (int k = 0; k < DEPTH; ++k) d[i] += shared.a[g + i / 2 * 8][k] * shared.b[k][t + i % 2];
}

}  // namespace cpu

// A place in the source that threads can be found waiting at.
#define SAN_HERE ([]() -> const void* { static const char place = 0; return &place; }())

#define __syncthreads() cpu::wait(cpu::AT_BARRIER, SAN_HERE)
#define __syncwarp(...) cpu::wait(cpu::AT_WARP, SAN_HERE)
#define SAN_SHUFFLE(mask, x, from) cpu::shuffle(mask, x, from, SAN_HERE)

template <typename T>
inline T __shfl_sync(unsigned mask, T x, int from, int width = 32) {
  return SAN_SHUFFLE(mask, x, cpu::in_section(from, width));
}
template <typename T>
inline T __shfl_xor_sync(unsigned mask, T x, int distance, int width = 32) {
  return SAN_SHUFFLE(mask, x, cpu::across(distance, width));
}
template <typename T>
inline T __shfl_down_sync(unsigned mask, T x, unsigned distance, int width = 32) {
  return SAN_SHUFFLE(mask, x, cpu::below(distance, width));
}
template <typename T>
inline T __shfl_up_sync(unsigned mask, T x, unsigned distance, int width = 32) {
  return SAN_SHUFFLE(mask, x, cpu::above(distance, width));
}
inline unsigned __ballot_sync(unsigned mask, bool x) { return cpu::ballot(mask, x, SAN_HERE); }
inline bool __any_sync(unsigned mask, bool x) { return cpu::ballot(mask, x, SAN_HERE) != 0; }
inline bool __all_sync(unsigned mask, bool x) { return cpu::ballot(mask, x, SAN_HERE) == 0xffffffffu; }

inline void ldmatrix_x4(unsigned out[4], const void* row) {
  const cpu::Exchange& shared = cpu::matrix_rows(row, SAN_HERE);
  for (int m = 0; m < 4; ++m)
    memcpy(&out[m], static_cast<const char*>(shared.address[8 * m + cpu::lane() / 4]) + cpu::lane() % 4 * 4, 4);
}

inline void ldmatrix_x4_trans(unsigned out[4], const void* row) {
  const cpu::Exchange& shared = cpu::matrix_rows(row, SAN_HERE);
  for (int m = 0; m < 4; ++m)
    for (int i = 0; i < 2; ++i)
      memcpy(reinterpret_cast<char*>(&out[m]) + 2 * i,
             static_cast<const char*>(shared.address[8 * m + cpu::lane() % 4 * 2 + i]) + cpu::lane() / 4 * 2, 2);
}

template <typename T>
inline void mma_m16n8k16(float d[4], const unsigned a[4], const unsigned b[2], T type) {
  cpu::multiply<16>(d, a, b, type, SAN_HERE);
}

inline void mma_m16n8k8(float d[4], const unsigned a[2], unsigned b, __half type) {
  cpu::multiply<8>(d, a, &b, type, SAN_HERE);
}
