// How work that adds to padded rows is shared: parts of rows, of which two neighbours never run at once.
#pragma once

#include "layout.h"

namespace san {

constexpr int64_t SHARES = 32;  // enough for 16 cores in each of the two phases; more would cost partial sums

// Rows [first, last) of each part. A part reaches K - 1 padded rows into the next one, so parts are at least
// that high, and even ones run before odd ones: the order of all additions is fixed.
struct Parts {
    int64_t height, count;

    explicit Parts(const Maps& maps) : height(maps.height) {
        int64_t most = maps.height / larger(1, maps.kernel - 1);
        count = larger(1, smaller(most, SHARES / maps.groups));
    }
    int64_t first(int64_t part) const { return part * height / count; }
    int64_t last(int64_t part) const { return first(part + 1); }
};

// Calls work(group, part, block) for all of them, on many threads.
template <class Work>
void each_part(const Maps& maps, const Parts& parts, int64_t blocks, int64_t threads, Work work) {
    for (int64_t phase = 0; phase < 2; phase++) {
        int64_t in_phase = (parts.count + 1 - phase) / 2;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
        for (int64_t task = 0; task < maps.groups * in_phase * blocks; task++) {
            int64_t block = task % blocks, part = task / blocks % in_phase, group = task / blocks / in_phase;
            work(group, 2 * part + phase, block);
        }
    }
}

}  // namespace san
