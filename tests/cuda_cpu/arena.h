// Memory of a launch, between two wide stretches that nobody may touch: a wild address faults, and does not hit
// the heap of the tests.
#pragma once
#include <signal.h>
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace cpu {

constexpr size_t PAGE = 64 << 10, FENCE = 256 << 20;

class Arena {
 public:
  // At least `size` bytes, up to the fence behind them less than a page; what they hold is whatever was there.
  unsigned char* resized(size_t size) {
    size = (size + PAGE - 1) / PAGE * PAGE;
    if (size > ROOM) return nullptr;
    if (!memory_) memory_ = reserved();
    if (size > open_) mprotect(memory_ + FENCE + open_, size - open_, PROT_READ | PROT_WRITE);
    if (size < open_) mprotect(memory_ + FENCE + size, open_ - size, PROT_NONE);
    open_ = size;
    return memory_ + FENCE;
  }

 private:
  static constexpr size_t ROOM = 512 << 20;

  static unsigned char* reserved() {
    void* memory = mmap(nullptr, ROOM + 2 * FENCE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) abort();
    return static_cast<unsigned char*>(memory);
  }

  unsigned char* memory_;
  size_t open_;
};

// Within its life a fault goes to `handler`.
class Faults {
 public:
  explicit Faults(void (*handler)(int)) {
    struct sigaction action = {};
    action.sa_handler = handler;
    action.sa_flags = SA_NODEFER;  // the handler does not return
    sigaction(SIGSEGV, &action, &segv_);
    sigaction(SIGBUS, &action, &bus_);
    sigaction(SIGFPE, &action, &fpe_);
  }
  ~Faults() {
    sigaction(SIGSEGV, &segv_, nullptr);
    sigaction(SIGBUS, &bus_, nullptr);
    sigaction(SIGFPE, &fpe_, nullptr);
  }

 private:
  struct sigaction segv_, bus_, fpe_;
};

}  // namespace cpu
