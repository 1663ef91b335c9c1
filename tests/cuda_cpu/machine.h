// A CUDA device in miniature, as its threads see it: each is a fiber that runs until it waits for others.
#pragma once
#include <cstddef>
#include <cstdint>

#include "fiber.h"

struct uint3 {
  unsigned x, y, z;
};
using dim3 = uint3;

namespace cpu {

constexpr int LANES = 32, MOST_THREADS = 1024, MOST_WARPS = MOST_THREADS / LANES;
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
  const char* failure;  // what went wrong, or null
  Fiber fibers[MOST_THREADS];
  Exchange exchange[MOST_WARPS][2];
};

inline Machine* machine;  // one for all libraries

inline void wait(Status status, const void* where) {
  machine->now->status = status;
  machine->now->where = where;
  switch_to(&machine->now->context, &machine->scheduler);
}

// Ends the launch with a message, from inside a thread.
inline void fail(const char* message) {
  machine->failure = message;
  wait(READY, nullptr);
}

}  // namespace cpu
