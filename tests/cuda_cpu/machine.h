// A CUDA device in miniature: blocks one after another, each thread a fiber, in the order of a schedule.
//
// A launch runs under three schedules, each on a fresh copy of every buffer; results that differ in one bit are a
// race. Found besides: threads that wait for others in vain, barriers that not all of them reach, reads of shared
// memory that nobody wrote (it starts as NaN), writes outside of a buffer or of shared memory, arguments of
// another type than the kernel's.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "fiber.h"

struct uint3 {
  unsigned x, y, z;
};
using dim3 = uint3;

namespace cpu {

constexpr int LANES = 32, MOST_THREADS = 1024, MOST_WARPS = MOST_THREADS / LANES;
constexpr size_t GUARD = 16 << 10;  // bytes of canary around each buffer
constexpr size_t SHARED_GUARD = 1 << 10;
constexpr unsigned char POISON = 0xff;  // NaN in every floating type
enum Schedule { FORWARD, REVERSE, RANDOM, SCHEDULES };
enum Status { READY, AT_BARRIER, AT_WARP, DONE };

// What the lanes of a warp hand each other. There are two, taken in turns: a lane writes the next one while
// others still read this.
struct Exchange {
  alignas(16) unsigned char value[LANES][16];
  const void* address[LANES];
  float a[16][16], b[16][8];
};

struct Fiber {
  Context context;
  uint3 thread;
  int linear;
  Status status;
  const void* where;  // the barrier or collective that it waits at
  unsigned turn;      // of the exchange
};

struct Machine {
  Context scheduler;
  Fiber* now;
  uint3 block, block_size, grid_size;
  unsigned char* shared;
  size_t shared_size;
  void (*entry)(void**);
  void** arguments;
  unsigned dice;
  char failure[256];
  char* stacks;
  Fiber fibers[MOST_THREADS];
  Exchange exchange[MOST_WARPS][2];
};

inline Machine* machine;  // one for all libraries of kernels, handed over at each launch

// Ends the launch with a message, from inside a thread.
inline void fail(const char* message) {
  if (!*machine->failure) {
    const uint3 b = machine->block, t = machine->now->thread;
    snprintf(machine->failure, sizeof machine->failure, "%s, block (%u, %u, %u) thread (%u, %u, %u)", message, b.x,
             b.y, b.z, t.x, t.y, t.z);
  }
  switch_to(&machine->now->context, &machine->scheduler);
}

inline void wait(Status status, const void* where) {
  machine->now->status = status;
  machine->now->where = where;
  switch_to(&machine->now->context, &machine->scheduler);
}

inline void run_thread() {
  machine->entry(machine->arguments);
  machine->now->status = DONE;
  switch_to(&machine->now->context, &machine->scheduler);
  abort();
}

inline bool failed(const char* message) {
  if (!*machine->failure) {
    const uint3 b = machine->block;
    snprintf(machine->failure, sizeof machine->failure, "%s, block (%u, %u, %u)", message, b.x, b.y, b.z);
  }
  return true;
}

inline unsigned roll() { return (machine->dice = machine->dice * 1664525u + 1013904223u) >> 8; }

// Runs each lane that can run until it waits. Whether the warp can go on.
inline bool advance(int first, int lanes, Schedule schedule) {
  Machine& m = *machine;
  const unsigned stride = schedule == RANDOM ? roll() | 1 : 1, start = schedule == RANDOM ? roll() : 0;
  for (int step = 0; step < LANES; ++step) {
    const int lane = schedule == REVERSE ? LANES - 1 - step : (start + step * stride) % LANES;
    Fiber& fiber = m.fibers[first + lane];
    if (lane >= lanes || fiber.status != READY) continue;
    m.now = &fiber;
    switch_to(&m.scheduler, &fiber.context);
    if (*m.failure) return false;
  }
  int waiting = 0;
  const void* where = nullptr;
  for (int lane = 0; lane < lanes; ++lane) {
    const Fiber& fiber = m.fibers[first + lane];
    if (fiber.status != AT_WARP) continue;
    if (waiting++ && fiber.where != where) return !failed("lanes of a warp wait at different collectives");
    where = fiber.where;
  }
  if (!waiting) return false;
  if (waiting < LANES) return !failed("lanes of a warp wait for others that are not there");
  for (int lane = 0; lane < lanes; ++lane) m.fibers[first + lane].status = READY;
  return true;
}

// Lets everyone go on behind a barrier. Whether the block is still at work.
inline bool pass_barrier(int threads) {
  Machine& m = *machine;
  int waiting = 0;
  const void* where = nullptr;
  for (int i = 0; i < threads; ++i) {
    if (m.fibers[i].status != AT_BARRIER) continue;
    if (waiting++ && m.fibers[i].where != where) return !failed("threads wait at different __syncthreads()");
    where = m.fibers[i].where;
  }
  if (!waiting) return false;
  if (waiting < threads) return !failed("__syncthreads() that some threads never reach");
  for (int i = 0; i < threads; ++i) m.fibers[i].status = READY;
  return true;
}

// Every warp as far as it goes without the others.
inline void run_warps(int threads, Schedule schedule) {
  const int warps = (threads + LANES - 1) / LANES;
  auto lanes = [&](int warp) { return threads - warp * LANES < LANES ? threads - warp * LANES : LANES; };
  if (schedule != RANDOM) {
    for (int i = 0; i < warps && !*machine->failure; ++i) {
      const int warp = schedule == REVERSE ? warps - 1 - i : i;
      while (advance(warp * LANES, lanes(warp), schedule)) {
      }
    }
    return;
  }
  int runnable[MOST_WARPS], count = warps;
  for (int i = 0; i < warps; ++i) runnable[i] = i;
  while (count && !*machine->failure) {
    const int pick = roll() % count;
    if (!advance(runnable[pick] * LANES, lanes(runnable[pick]), schedule)) runnable[pick] = runnable[--count];
  }
}

inline void run_block(Schedule schedule) {
  Machine& m = *machine;
  const int threads = m.block_size.x * m.block_size.y * m.block_size.z;
  memset(m.shared, POISON, m.shared_size + SHARED_GUARD);
  for (int i = 0; i < threads; ++i) {
    Fiber& fiber = m.fibers[i];
    const unsigned x = i % m.block_size.x, rest = i / m.block_size.x;
    fiber.thread = {x, rest % m.block_size.y, rest / m.block_size.y};
    fiber.linear = i;
    fiber.status = READY;
    fiber.turn = 0;
    prepare(&fiber.context, m.stacks + i * STACK, run_thread);
  }
  do {
    run_warps(threads, schedule);
  } while (!*m.failure && pass_barrier(threads));
  for (size_t i = 0; i < SHARED_GUARD && !*m.failure; ++i)
    if (m.shared[m.shared_size + i] != POISON) failed("written behind the end of shared memory");
  for (int i = 0; i < threads && !*m.failure; ++i)
    if (!stack_is_whole(m.stacks + i * STACK)) failed("a thread's stack ran over");
}

inline void run_grid(Schedule schedule) {
  Machine& m = *machine;
  const uint3 grid = m.grid_size;
  const unsigned blocks = grid.x * grid.y * grid.z;
  m.dice = 12345;
  for (unsigned i = 0; i < blocks && !*m.failure; ++i) {
    const unsigned block = schedule == REVERSE ? blocks - 1 - i : i;
    m.block = {block % grid.x, block / grid.x % grid.y, block / grid.x / grid.y};
    run_block(schedule);
  }
}

inline Machine* make_machine() {
  auto* m = static_cast<Machine*>(calloc(1, sizeof(Machine)));
  m->stacks = make_stacks(MOST_THREADS);
  return m;
}

}  // namespace cpu
