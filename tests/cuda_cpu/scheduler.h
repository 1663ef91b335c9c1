// Blocks one after another, the threads of each in the order of a schedule, until they end or wait in vain.
#pragma once
#include <cstring>

#include "guard.h"
#include "machine.h"

namespace cpu {

constexpr unsigned char POISON = 0xff;  // NaN in every floating type
constexpr size_t SHARED_GUARD = 1 << 10;
enum Schedule { FORWARD, REVERSE, RANDOM, SCHEDULES };

inline char* stacks;
inline unsigned dice;
inline void (*entry)(void**);  // the kernel, and the addresses of its arguments
inline void** arguments;

inline void run_thread() {
  entry(arguments);
  machine->now->status = DONE;
  switch_to(&machine->now->context, &machine->scheduler);
  abort();
}

inline bool failed(const char* message) {
  machine->failure = message;
  machine->now = nullptr;  // no single thread's fault
  return true;
}

inline unsigned roll() { return (dice = dice * 1664525u + 1013904223u) >> 8; }

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
    if (m.failure) return false;
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
    for (int i = 0; i < warps && !machine->failure; ++i) {
      const int warp = schedule == REVERSE ? warps - 1 - i : i;
      while (advance(warp * LANES, lanes(warp), schedule)) {
      }
    }
    return;
  }
  int runnable[MOST_WARPS], count = warps;
  for (int i = 0; i < warps; ++i) runnable[i] = i;
  while (count && !machine->failure) {
    const int pick = roll() % count;
    if (!advance(runnable[pick] * LANES, lanes(runnable[pick]), schedule)) runnable[pick] = runnable[--count];
  }
}

inline void run_block(Schedule schedule) {
  Machine& m = *machine;
  const int threads = m.block_size.x * m.block_size.y * m.block_size.z;
  memset(m.shared, POISON, m.shared_size);
  guard(m.shared + m.shared_size, SHARED_GUARD, 0);
  for (int i = 0; i < threads; ++i) {
    Fiber& fiber = m.fibers[i];
    const unsigned x = i % m.block_size.x, rest = i / m.block_size.x;
    fiber.thread = {x, rest % m.block_size.y, rest / m.block_size.y};
    fiber.linear = i;
    fiber.status = READY;
    fiber.turn = 0;
    prepare(&fiber.context, stacks + i * STACK, run_thread);
  }
  do {
    run_warps(threads, schedule);
  } while (!m.failure && pass_barrier(threads));
  if (!m.failure && !is_guard(m.shared + m.shared_size, SHARED_GUARD, 0))
    failed("written behind the end of shared memory");
  for (int i = 0; i < threads && !m.failure; ++i)
    if (!stack_is_whole(stacks + i * STACK)) failed("a thread's stack ran over");
}

inline void run_grid(Schedule schedule) {
  Machine& m = *machine;
  const uint3 grid = m.grid_size;
  const unsigned blocks = grid.x * grid.y * grid.z;
  dice = 12345;
  for (unsigned i = 0; i < blocks && !m.failure; ++i) {
    const unsigned block = schedule == REVERSE ? blocks - 1 - i : i;
    m.block = {block % grid.x, block / grid.x % grid.y, block / grid.x / grid.y};
    run_block(schedule);
  }
}

}  // namespace cpu
