// Runs launches, as tests/emulator.py asks for them: three schedules on guarded copies of the buffers, which must
// agree in every bit. Compiled once; kernels are libraries of their own.
#include <cstdio>

#include "arena.h"
#include "scheduler.h"

namespace cpu {

struct Buffer {
  void* start;
  size_t size;
};

struct Argument {
  char type;       // of a number, or of what a pointer points to: see entry.h
  int buffer;      // -1: a number, or a null pointer
  uint64_t value;  // the number's bits, or the offset into the buffer
};

struct Launch {
  uint3 grid, block;
  size_t shared;
  int buffers, arguments;
  const Buffer* buffer;
  const Argument* argument;
};

Arena copies_memory[2], shared_memory;
char text[512];

const char* told(const char* message) {
  const uint3 b = machine->block, t = machine->now ? machine->now->thread : uint3{};
  int length = snprintf(text, sizeof text, "%s, block (%u, %u, %u)", message, b.x, b.y, b.z);
  if (machine->now) snprintf(text + length, sizeof text - length, ", thread (%u, %u, %u)", t.x, t.y, t.z);
  return text;
}

void fault(int number) {
  if (!machine->now) {  // not a kernel's: let it end the process
    signal(number, SIG_DFL);
    return;
  }
  fail(number == SIGFPE ? "a division by 0" : "an address outside of every buffer");
}

bool fits(const char* wanted, const Launch& launch) {
  const int count = strlen(wanted);
  if (launch.arguments != count) {
    snprintf(text, sizeof text, "%d arguments for a kernel of %d", launch.arguments, count);
    return false;
  }
  for (int i = 0; i < count; ++i) {
    const char given = launch.argument[i].type;
    const bool null = given == '0' && wanted[i] < 'a';
    if (wanted[i] == given || wanted[i] == '?' || null) continue;
    snprintf(text, sizeof text, "argument %d of the kernel has type %c and is given %c (see entry.h)", i, wanted[i],
             given);
    return false;
  }
  return true;
}

// Copies of all buffers in one stretch of memory, each between two guards.
class Copies {
 public:
  Copies(const Launch& launch, Arena& arena) : launch_(launch), memory_(arena.resized(start(launch.buffers))) {}

  bool failed() const { return !memory_; }
  unsigned char* address(int which) const { return memory_ + start(which); }

  void fill() {
    guard(memory_, GUARD, 0);
    for (int i = 0; i < launch_.buffers; ++i) {
      memcpy(address(i), launch_.buffer[i].start, launch_.buffer[i].size);
      guard(address(i) + launch_.buffer[i].size, room(i), i + 1);
    }
  }
  bool are_guarded() const {
    bool whole = is_guard(memory_, GUARD, 0);
    for (int i = 0; i < launch_.buffers; ++i)
      whole = whole && is_guard(address(i) + launch_.buffer[i].size, room(i), i + 1);
    return whole;
  }
  bool operator==(const Copies& other) const { return !memcmp(memory_, other.memory_, start(launch_.buffers)); }
  void give_back() const {
    for (int i = 0; i < launch_.buffers; ++i) memcpy(launch_.buffer[i].start, address(i), launch_.buffer[i].size);
  }

 private:
  size_t start(int which) const {
    size_t at = GUARD;
    for (int i = 0; i < which; ++i) at += launch_.buffer[i].size + room(i);
    return at;
  }
  // Of the guard behind a buffer: up to a multiple of 256, as torch's own memory starts at one.
  size_t room(int which) const { return GUARD - launch_.buffer[which].size % 256; }

  const Launch& launch_;
  unsigned char* memory_;
};

// Runs all schedules; the buffers are written only if nothing was wrong. What was wrong, or null.
const char* run(const char* codes, const Launch& launch) {
  Machine& m = *machine;
  m.now = nullptr, m.failure = nullptr;
  if (!fits(codes, launch)) return text;
  m.grid_size = launch.grid, m.block_size = launch.block, m.shared_size = launch.shared;
  const size_t shared = launch.shared + SHARED_GUARD;
  m.shared = shared_memory.resized(shared);
  Copies first(launch, copies_memory[0]), again(launch, copies_memory[1]);
  if (first.failed() || again.failed()) return "more memory than the emulator has";
  uint64_t values[64];
  void* pointers[64];
  arguments = pointers;
  const Faults faults(fault);
  for (int schedule = FORWARD; schedule < SCHEDULES; ++schedule) {
    Copies& copies = schedule ? again : first;
    copies.fill();
    for (int i = 0; i < launch.arguments; ++i) {
      const Argument& a = launch.argument[i];
      values[i] = a.buffer < 0 ? a.value : reinterpret_cast<uint64_t>(copies.address(a.buffer) + a.value);
      pointers[i] = &values[i];
    }
    run_grid(static_cast<Schedule>(schedule));
    if (m.failure) return told(m.failure);
    if (!copies.are_guarded()) return "written outside of a buffer";
    if (schedule && !(first == again)) return "a race: two orders of the threads give two results";
  }
  first.give_back();
  return nullptr;
}

}  // namespace cpu

extern "C" cpu::Machine* san_machine() {
  cpu::machine = static_cast<cpu::Machine*>(calloc(1, sizeof(cpu::Machine)));
  cpu::stacks = cpu::make_stacks(cpu::MOST_THREADS);
  return cpu::machine;
}

extern "C" const char* san_launch(void (*entry)(void**), const char* codes, const cpu::Launch* launch) {
  cpu::entry = entry;
  return cpu::run(codes, *launch);
}
