// How every function of this library is called.
//
//     int64_t san_NAME(char* scratch, int64_t threads, ...)
//
// Without scratch memory it computes nothing and gives back how many bytes it needs; with it, it computes and
// gives back 0. The caller allocates, so that running out of memory is an error of the caller's. Results do not
// depend on `threads`: work is cut the same way for any number of them, and partial sums are added in order.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "vector.h"

namespace san {

inline int64_t thread() {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

constexpr int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }
constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Hands out the scratch memory, piece by piece; without memory it only counts.
class Scratch {
  public:
    explicit Scratch(char* memory) : memory_(memory) {}

    template <class T> T* take(int64_t count) {
        T* piece = memory_ ? reinterpret_cast<T*>(memory_ + used_) : nullptr;
        used_ += round_up(count * int64_t(sizeof(T)), 64);
        return piece;
    }
    bool counting() const { return !memory_; }
    int64_t used() const { return used_; }

  private:
    char* memory_;
    int64_t used_ = 0;
};

constexpr int64_t BFLOAT16 = 1;  // what `storage` says: 0 is Real

}  // namespace san
