// One launch, as tests/emulator.py asks for it: three schedules on guarded copies of the buffers.
#pragma once
#include <type_traits>

#include "halves.h"
#include "machine.h"

namespace cpu {

struct Buffer {
  void* start;
  size_t size;
};

struct Argument {
  char type;          // of a number, or of what a pointer points to: see code()
  int buffer;         // -1: a number, or a null pointer
  uint64_t value;     // the number's bits, or the offset into the buffer
};

struct Launch {
  uint3 grid, block;
  size_t shared;
  int buffers, arguments;
  const Buffer* buffer;
  const Argument* argument;
};

// Numbers: i int, l long long, f float, d double. Pointers: I L F D, H half, B bfloat16, ? any other.
template <typename A>
constexpr char code() {
  if (std::is_pointer<A>::value) {
    using T = std::remove_cv_t<std::remove_pointer_t<A>>;
    if (std::is_same<T, int>::value) return 'I';
    if (std::is_same<T, long long>::value) return 'L';
    if (std::is_same<T, float>::value) return 'F';
    if (std::is_same<T, double>::value) return 'D';
    if (std::is_same<T, __half>::value) return 'H';
    return std::is_same<T, __nv_bfloat16>::value ? 'B' : '?';
  }
  if (std::is_same<A, int>::value) return 'i';
  if (std::is_same<A, long long>::value) return 'l';
  if (std::is_same<A, float>::value) return 'f';
  return std::is_same<A, double>::value ? 'd' : '!';
}

template <typename... A, size_t... I>
inline void apply(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_reference_t<A>*>(arguments[I])...);
}

template <typename... A>
inline bool arguments_fit(void (*)(A...), const Launch& launch) {
  const char wanted[] = {code<A>()..., 0};
  const int count = sizeof...(A);
  if (launch.arguments != count)
    return snprintf(machine->failure, sizeof machine->failure, "%d arguments for a kernel of %d", launch.arguments,
                    count) < 0;
  for (int i = 0; i < count; ++i) {
    const char given = launch.argument[i].type;
    const bool null = given == '0' && wanted[i] < 'a';
    if (wanted[i] != given && wanted[i] != '?' && !null)
      return snprintf(machine->failure, sizeof machine->failure,
                      "argument %d of the kernel has type %c and is given %c (see cuda_cpu/launch.h)", i, wanted[i],
                      given) < 0;
  }
  return true;
}

// Copies of all buffers, each between two guards full of NaN.
class Copies {
 public:
  explicit Copies(const Launch& launch) : launch_(launch) {
    size_t size = GUARD;
    for (int i = 0; i < launch.buffers; ++i) size += padded(launch.buffer[i].size) + GUARD;
    size_ = size;
    if (posix_memalign(reinterpret_cast<void**>(&memory_), 256, size)) abort();
  }
  ~Copies() { free(memory_); }

  void fill() {
    unsigned char* at = memory_;
    memset(at, POISON, GUARD);
    for (int i = 0; i < launch_.buffers; ++i) {
      const Buffer& buffer = launch_.buffer[i];
      memcpy(at += GUARD, buffer.start, buffer.size);
      memset(at + buffer.size, POISON, padded(buffer.size) - buffer.size + GUARD);
      at += padded(buffer.size);
    }
  }
  unsigned char* start(int which) const {
    unsigned char* at = memory_ + GUARD;
    for (int i = 0; i < which; ++i) at += padded(launch_.buffer[i].size) + GUARD;
    return at;
  }
  void check_guards() const {
    const unsigned char* at = memory_;
    for (int i = 0; i <= launch_.buffers; ++i) {
      const unsigned char* next = i < launch_.buffers ? start(i) : memory_ + size_;
      for (; at < next; ++at)
        if (*at != POISON) {
          snprintf(machine->failure, sizeof machine->failure, "written outside of a buffer");
          return;
        }
      if (i < launch_.buffers) at = next + launch_.buffer[i].size;
    }
  }
  bool operator==(const Copies& other) const { return !memcmp(memory_, other.memory_, size_); }
  void give_back() const {
    for (int i = 0; i < launch_.buffers; ++i) memcpy(launch_.buffer[i].start, start(i), launch_.buffer[i].size);
  }

 private:
  static size_t padded(size_t size) { return (size + 255) / 256 * 256; }

  const Launch& launch_;
  unsigned char* memory_;
  size_t size_;
};

// Runs all schedules; the buffers are written only if nothing was wrong. What was wrong, or null.
template <typename... A>
inline const char* run(void (*kernel)(A...), void (*entry)(void**), Machine* shared_machine, const Launch& launch) {
  Machine& m = *(machine = shared_machine);
  *m.failure = 0;
  if (!arguments_fit(kernel, launch)) return m.failure;
  m.grid_size = launch.grid, m.block_size = launch.block, m.shared_size = launch.shared, m.entry = entry;
  if (posix_memalign(reinterpret_cast<void**>(&m.shared), 256, launch.shared + SHARED_GUARD)) abort();
  Copies first(launch), again(launch);
  uint64_t values[sizeof...(A) + 1];
  void* pointers[sizeof...(A) + 1];
  m.arguments = pointers;
  for (int schedule = FORWARD; schedule < SCHEDULES && !*m.failure; ++schedule) {
    Copies& copies = schedule ? again : first;
    copies.fill();
    for (int i = 0; i < launch.arguments; ++i) {
      const Argument& a = launch.argument[i];
      values[i] = a.buffer < 0 ? a.value : reinterpret_cast<uint64_t>(copies.start(a.buffer) + a.value);
      pointers[i] = &values[i];
    }
    run_grid(static_cast<Schedule>(schedule));
    if (!*m.failure) copies.check_guards();
    if (schedule && !*m.failure && !(first == again))
      snprintf(m.failure, sizeof m.failure, "a race: two orders of the threads give two results");
  }
  free(m.shared);
  if (*m.failure) return m.failure;
  first.give_back();
  return nullptr;
}

}  // namespace cpu

#define SAN_EXPORT extern "C" __attribute__((visibility("default")))
#define SAN_KERNEL(...)                                                                                       \
  SAN_EXPORT cpu::Machine* san_machine() { return cpu::make_machine(); }                                      \
  template <typename... A>                                                                                    \
  const char* san_run(void (*kernel)(A...), cpu::Machine* machine, const cpu::Launch& launch) {               \
    return cpu::run(                                                                                          \
        kernel, [](void** arguments) { cpu::apply(&__VA_ARGS__, arguments, std::index_sequence_for<A...>{}); }, \
        machine, launch);                                                                                     \
  }                                                                                                           \
  SAN_EXPORT const char* san_launch(cpu::Machine* machine, const cpu::Launch* launch) {                       \
    return san_run(&__VA_ARGS__, machine, *launch);                                                           \
  }
