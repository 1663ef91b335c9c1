// Canaries: NaN in every floating type, of another payload at each place. A thread that reads one and writes what
// came of it behind the end of a buffer would leave equal ones unchanged.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace cpu {

constexpr size_t GUARD = 16 << 10, TURNS = 64;

inline const unsigned char* guard_pattern() {
  static uint16_t pattern[GUARD / 2 + TURNS];
  if (!*pattern)
    for (size_t i = 0; i < GUARD / 2 + TURNS; ++i) pattern[i] = static_cast<uint16_t>(0xffc0 | (i * 37 + i / 64) % 64);
  return reinterpret_cast<const unsigned char*>(pattern);
}

// Up to GUARD bytes; guards of different turns differ.
inline void guard(unsigned char* at, size_t size, int turn) { memcpy(at, guard_pattern() + 2 * (turn % TURNS), size); }

inline bool is_guard(const unsigned char* at, size_t size, int turn) {
  return !memcmp(at, guard_pattern() + 2 * (turn % TURNS), size);
}

}  // namespace cpu
