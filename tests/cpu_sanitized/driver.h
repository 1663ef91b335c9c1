// For programs that call kernels on memory that is exactly as large as it has to be, under the sanitizers.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "interface.h"

using san::Real;

// Numbers on the heap, not aligned to more than themselves; what lies behind the last one may not be touched.
template <class Stored> class Numbers {
  public:
    explicit Numbers(int64_t count) : count_(count), memory_(static_cast<Stored*>(std::malloc((count + 1) * sizeof(Stored)))) {
        static std::mt19937 random(0);
        for (int64_t i = 0; i <= count; i++)
            memory_[i] = san::to_stored<Stored>(std::normal_distribution<float>()(random));
    }
    Numbers(const Numbers&) = delete;
    ~Numbers() { std::free(memory_); }

    operator Stored*() { return memory_ + 1; }
    Numbers& positive() {
        for (int64_t i = 0; i < count_; i++) (*this)[i] = san::to_stored<Stored>(std::abs(san::to_real((*this)[i])) + 1);
        return *this;
    }
    // Before a kernel writes: NaN, so that what it leaves out is seen.
    Numbers& forgotten() {
        std::memset(memory_, 0xff, (count_ + 1) * sizeof(Stored));
        return *this;
    }
    void check(const char* name) {
        for (int64_t i = 0; i < count_; i++)
            if (!std::isfinite(san::to_real((*this)[i]))) {
                std::fprintf(stderr, "%s: number %ld of %ld is not finite\n", name, long(i), long(count_));
                std::exit(1);
            }
    }

  private:
    int64_t count_;
    Stored* memory_;
};

// Runs a kernel as Kernels.call does, for one thread and for three, in scratch memory full of NaN.
template <class Kernel, class... Args> void call(Kernel kernel, Args&&... args) {
    for (int64_t threads : {1, 3}) {
        int64_t bytes = kernel(nullptr, threads, args...);
        char* scratch = static_cast<char*>(std::aligned_alloc(64, san::round_up(bytes + 1, 64)));
        std::memset(scratch, 0xff, bytes);
        kernel(scratch, threads, args...);
        std::free(scratch);
    }
}
