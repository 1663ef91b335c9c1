// The footprints of TILE neighbouring positions of a group: all that a step of pairwise attention works on.
//
// Two vectors of positions, whatever the shape of the map: rows that are shorter than a vector are put together
// from pieces, so that no lane stays empty but at a group's end. Tiles of numbers are rows of TILE.
#pragma once

#include <type_traits>

#include "layout.h"

namespace san {

constexpr int64_t TILE = 2 * LANES;

using Mask = decltype(Vec{} > Vec{});

// A compact tile has room behind it for what its last vector writes.
inline int64_t tiles_of(const Maps& maps) { return (maps.positions() + TILE - 1) / TILE; }

class Footprints {
  public:
    int64_t group, begin, size;  // of TILE positions, those before `size` exist
    bool whole;                  // each vector is a piece of one row: the usual case, and the fast one

    Footprints(const Maps& maps, int64_t group, int64_t tile) : group(group), begin(tile * TILE) {
        size = smaller(TILE, maps.positions() - begin);
        for (int v = 0; v < 2; v++) cut(maps, v);
        whole = size == TILE && count_[0] == 1 && count_[1] == 1;
        int64_t lane = begin % maps.lanes, pixel = begin / maps.lanes, pixels = maps.height * maps.width;
        for (int64_t i = 0; i < TILE; i++) {
            int64_t image = group * maps.lanes + lane;
            pixel_[i] = i < size && image < maps.images ? image * pixels + pixel : -1;
            exist_[i / LANES][i % LANES] = pixel_[i] < 0 ? 0 : -1;
            if (++lane == maps.lanes) lane = 0, pixel++;
        }
    }

    // Vector v of a padded channel, seen through the offset that `from` is moved by. Lanes that do not exist
    // hold any number that lies there.
    template <bool WHOLE> Vec load(const Real* from, int v) const {
        Vec x = san::load(from + from_[v][0]);
        if constexpr (!WHOLE)
            for (int i = 1; i < count_[v]; i++) x = mask_[v][i] ? san::load(from + from_[v][i]) : x;
        return x;
    }
    // Adds to where `load` reads; `at` is from the channel's first number, which need not be in memory.
    template <bool WHOLE> void add(Real* channel, int64_t at, int v, Vec x) const {
        if constexpr (WHOLE) {
            Real* to = channel + (at + from_[v][0]);
            store(to, san::load(to) + x);
        } else {
            for (int i = 0; i < count_[v]; i++) {
                Real* to = channel + (at + from_[v][i]);
                store(to, san::load(to) + (mask_[v][i] ? x : Vec{}));
            }
        }
    }
    // Calls work(std::true_type or std::false_type): whether `load` and `add` may take the fast way.
    template <class Work> void ways(Work work) const { whole ? work(std::true_type{}) : work(std::false_type{}); }

    // Channels [0, channels) of the positions' pixels into a tile; 0 where there is no image.
    template <class Stored> void read(int64_t channels, ChannelsLast<const Stored> from, Real* tile) const {
        for (int64_t first = 0; first < channels; first += NEAR)
            for (int64_t i = 0; i < TILE; i++) {
                const Stored* pixel = from.data + pixel_[i] * from.stride;
                int64_t last = smaller(first + NEAR, channels);
                for (int64_t c = first; c < last; c++) tile[c * TILE + i] = pixel_[i] < 0 ? 0 : to_real(pixel[c]);
            }
    }
    // The opposite.
    template <class Stored> void write(int64_t channels, const Real* tile, ChannelsLast<Stored> to) const {
        for (int64_t first = 0; first < channels; first += NEAR)
            for (int64_t i = 0; i < TILE; i++) {
                if (pixel_[i] < 0) continue;
                Stored* pixel = to.data + pixel_[i] * to.stride;
                int64_t last = smaller(first + NEAR, channels);
                for (int64_t c = first; c < last; c++) pixel[c] = to_stored<Stored>(tile[c * TILE + i]);
            }
    }
    // The lanes of vector v that show an image.
    Mask exist(int v) const { return exist_[v]; }

  private:
    static constexpr int64_t NEAR = 128;  // channels whose tiles stay in the first cache meanwhile

    int64_t from_[2][LANES], pixel_[TILE];
    int count_[2];
    Mask mask_[2][LANES], exist_[2];

    // The pieces of vector v: where lane 0 would lie if the piece went on to the left, and its own lanes.
    void cut(const Maps& maps, int v) {
        int64_t row = maps.width * maps.lanes, first = v * LANES, last = smaller(first + LANES, size);
        count_[v] = 0, from_[v][0] = 0;
        for (int64_t at = first; at < last;) {
            int64_t y = (begin + at) / row, x = (begin + at) % row, stop = smaller(at + row - x, last);
            from_[v][count_[v]] = y * maps.padded_row() + x - (at - first);
            for (int64_t lane = 0; lane < LANES; lane++)
                mask_[v][count_[v]][lane] = lane >= at - first && lane < stop - first ? -1 : 0;
            count_[v]++, at = stop;
        }
    }
};

// Numbers behind a padded channel are read by vectors that go on too far, and must not be NaN.
inline void clear_gap(const Maps& maps, Real* padded) {
    int64_t size = maps.padded_height() * maps.padded_row();
    std::memset(padded + size, 0, (maps.padded() - size) * sizeof(Real));
}

// `pad`, for maps that are read as footprints.
template <class Stored>
void pad_footprints(const Maps& maps, int64_t channels, ChannelsLast<const Stored> from, Real* padded,
                    int64_t threads) {
    pad(maps, channels, channels, from, padded, threads);
    for (int64_t c = 0; c < maps.groups * channels; c++) clear_gap(maps, padded + c * maps.padded());
}

// How the tiles of all groups are shared: always the same parts, whatever the number of threads.
struct Shares {
    static constexpr int64_t LEAST = 16;  // for as many cores; each costs sums and padded rows of its own

    const Maps& maps;
    int64_t tiles, each_group, count;

    explicit Shares(const Maps& maps) : maps(maps), tiles(tiles_of(maps)) {
        each_group = smaller(tiles, larger(FEW, (LEAST + maps.groups - 1) / maps.groups));
        count = maps.groups * each_group;
    }
    static constexpr int64_t FEW = 4;

    int64_t group(int64_t share) const { return share / each_group; }
    int64_t first(int64_t share) const { return share % each_group * tiles / each_group; }
    int64_t last(int64_t share) const { return (share % each_group + 1) * tiles / each_group; }
    // The padded rows that the footprints of a share lie in: [top, top + rows).
    int64_t top(int64_t share) const { return first(share) * TILE / (maps.width * maps.lanes); }
    int64_t rows(int64_t share) const {
        int64_t end = smaller(last(share) * TILE, maps.positions());
        return (end - 1) / (maps.width * maps.lanes) - top(share) + maps.kernel;
    }
    int64_t most_rows() const {
        int64_t most = 0;
        for (int64_t share = 0; share < each_group; share++) most = larger(most, rows(share));
        return most;
    }
    // Calls work(share) for all of them, on many threads.
    template <class Work> void each(int64_t threads, Work work) const {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
        for (int64_t share = 0; share < count; share++) work(share);
    }
    // Calls work(footprints) for each tile of a share, in order.
    template <class Work> void each_tile(int64_t share, Work work) const {
        for (int64_t tile = first(share); tile < last(share); tile++) work(Footprints(maps, group(share), tile));
    }
};

// Room of one thread for a tile: rows of TILE numbers.
class Rooms {
  public:
    Rooms(Scratch& scratch, int64_t rows, int64_t threads)
        : each_(rows * TILE), data_(scratch.take<Real>(threads * each_)) {}
    Real* mine() const { return data_ + thread() * each_; }

  private:
    int64_t each_;
    Real* data_;
};

// Padded rows that shares add to: each to rows of its own, so that none waits for another and the sum of
// all is always taken in the same order.
struct Strips {
    const Shares& shares;
    int64_t channels, apart;
    Real* data;

    static Strips take(Scratch& scratch, const Shares& shares, int64_t channels) {
        int64_t apart = Maps::odd_lines(shares.most_rows() * shares.maps.padded_row());
        return {shares, channels, apart, scratch.take<Real>(shares.count * channels * apart)};
    }
    void clear(int64_t share) const {
        std::memset(data + share * channels * apart, 0, channels * apart * sizeof(Real));
    }
    // A channel of a share; offsets into a padded channel begin at `shift` there.
    Real* channel(int64_t share, int64_t c) const { return data + (share * channels + c) * apart; }
    int64_t shift(int64_t share) const { return -shares.top(share) * shares.maps.padded_row(); }

    // The sum of all shares as one padded channel of a group.
    void collect(int64_t group, int64_t c, Real* padded) const {
        int64_t row = shares.maps.padded_row();
        std::memset(padded, 0, shares.maps.padded() * sizeof(Real));
        for (int64_t i = 0; i < shares.each_group; i++) {
            int64_t share = group * shares.each_group + i, count = shares.rows(share) * row;
            const Real* from = channel(share, c);
            Real* to = padded + shares.top(share) * row;
            for (int64_t at = 0; at < count; at++) to[at] += from[at];
        }
    }
    void collect_all(Real* padded, int64_t threads) const {
#pragma omp parallel for num_threads(threads)
        for (int64_t i = 0; i < shares.maps.groups * channels; i++)
            collect(i / channels, i % channels, padded + i * shares.maps.padded());
    }
};

}  // namespace san
