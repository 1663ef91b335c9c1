// Maps laid out so that a step inside the footprint is a constant step along long rows of numbers.
//
// Images are taken `lanes` at a time, a group, and stand innermost: one pixel of a channel is `lanes` numbers.
//
//     compact [groups, channels, H, W, lanes]
//     padded  [groups, channels, H + K - 1, W + K - 1, lanes], the border reflected
//
// With as many lanes as a vector has, every window is aligned. Lanes beyond the last image hold 0. Channels
// lie an odd number of cache lines apart, so that the same pixel of many channels does not fall into one set.
#pragma once

#include "transpose.h"

namespace san {

// The index inside [0, size) that a reflected border shows, however far outside `index` lies.
inline int64_t reflect(int64_t index, int64_t size) {
    if (size == 1) return 0;
    int64_t period = 2 * (size - 1);
    index = (index < 0 ? -index : index) % period;
    return smaller(index, period - index);
}

// Rows of numbers, `apart` from row to row.
struct Rows {
    Real* data;
    int64_t apart;
    Real* operator[](int64_t row) const { return data + row * apart; }
};

// A piece of a group's compact positions: whole rows, or a part of one row.
struct Tile {
    int64_t group, y, x, rows, columns;  // in pixels
    int64_t size;                        // rows * columns * lanes
    int64_t begin;                       // its first compact position
};

struct Maps {
    int64_t images, height, width, kernel;
    int64_t lanes, groups, reach;

    Maps(int64_t images, int64_t height, int64_t width, int64_t kernel)
        : images(images), height(height), width(width), kernel(kernel), reach(kernel / 2) {
        groups = (images + MOST_LANES - 1) / MOST_LANES;
        lanes = (images + groups - 1) / groups;
    }

    static constexpr int64_t MOST_LANES = LANES < 8 ? 8 : LANES;
    static constexpr int64_t LINE = 64 / sizeof(Real);

    int64_t offsets() const { return kernel * kernel; }
    int64_t positions() const { return height * width * lanes; }
    int64_t padded_row() const { return (width + kernel - 1) * lanes; }
    int64_t padded_height() const { return height + kernel - 1; }
    int64_t used_lanes(int64_t group) const { return smaller(lanes, images - group * lanes); }
    // From channel to channel. Vectors may read, never write, up to LANES - 1 numbers behind a channel.
    int64_t compact() const { return odd_lines(positions()); }
    int64_t padded() const { return odd_lines(padded_height() * padded_row()); }
    // From the middle pixel of a footprint's corner to offset o of it, along padded rows.
    int64_t step(int64_t offset) const { return offset / kernel * padded_row() + offset % kernel * lanes; }

    static int64_t odd_lines(int64_t size) {
        int64_t lines = (size + LANES + LINE - 1) / LINE;
        return (lines | 1) * LINE;
    }

    // Tiles of at most `most` numbers, if a pixel is not more than that.
    int64_t tile_columns(int64_t most) const {
        int64_t pieces = (width * lanes + most - 1) / most;
        return (width + pieces - 1) / pieces;
    }
    int64_t tile_rows(int64_t most) const {
        return tile_columns(most) < width ? 1 : smaller(height, larger(1, most / (width * lanes)));
    }
    int64_t tile_size(int64_t most) const { return tile_rows(most) * tile_columns(most) * lanes; }

    // Calls work(tile) for each tile of rows [first, last) of a group, in order.
    template <class Work>
    void each_tile(int64_t group, int64_t first, int64_t last, int64_t most, Work work) const {
        int64_t rows = tile_rows(most), columns = tile_columns(most);
        for (int64_t y = first; y < last; y += rows)
            for (int64_t x = 0; x < width; x += columns) {
                Tile tile{group, y, x, smaller(rows, last - y), smaller(columns, width - x), 0, 0};
                tile.size = tile.rows * tile.columns * lanes;
                tile.begin = (y * width + x) * lanes;
                work(tile);
            }
    }
    // Calls work(padded, at, count) for each row of a tile: where the corner of its first footprint lies in a
    // padded channel, where the row begins in the tile, and how many numbers it has.
    template <class Work> void each_row(const Tile& tile, Work work) const {
        int64_t count = tile.columns * lanes;
        for (int64_t row = 0; row < tile.rows; row++)
            work((tile.y + row) * padded_row() + tile.x * lanes, row * count, count);
    }
};

// Maps as torch holds them, channels last: `stride` numbers from pixel to pixel.
template <class Stored> struct ChannelsLast {
    Stored* data;
    int64_t stride;
    Stored* pixel(const Maps& maps, int64_t image, int64_t y, int64_t x) const {
        return data + ((image * maps.height + y) * maps.width + x) * stride;
    }
};

// A run of pixels of one row, `columns` from (y, x) on, of a group.
struct Run {
    int64_t group, y, x, columns;
};

// Where positions [p, p + LANES) of a run stand in channels-last maps; null where there is no pixel or image.
template <class Stored>
void find_pixels(const Maps& maps, Run run, int64_t p, ChannelsLast<Stored> at, Stored* (&pixels)[LANES]) {
    int64_t x = p / maps.lanes, n = p % maps.lanes, used = maps.used_lanes(run.group);
    for (int i = 0; i < LANES; i++) {
        bool there = x < run.columns && n < used;
        pixels[i] = there ? at.pixel(maps, run.group * maps.lanes + n, run.y, run.x + x) : nullptr;
        if (++n == maps.lanes) n = 0, x++;
    }
}

// `channels` channels of a run into rows `to`.
template <class Stored>
void gather(const Maps& maps, Run run, int64_t channels, ChannelsLast<const Stored> from, Rows to) {
    int64_t count = run.columns * maps.lanes;
    for (int64_t p = 0; p < count; p += LANES) {
        const Stored* pixels[LANES];
        find_pixels(maps, run, p, from, pixels);
        for (int64_t c = 0; c < channels; c += LANES) {
            Vec block[LANES];
            for (int i = 0; i < LANES; i++)
                block[i] = pixels[i] ? load_first(pixels[i] + c, channels - c) : Vec{};
            transpose(block);
            for (int i = 0; i < LANES && c + i < channels; i++) store_first(to[c + i] + p, block[i], count - p);
        }
    }
}

// The opposite.
template <class Stored>
void scatter(const Maps& maps, Run run, int64_t channels, Rows from, ChannelsLast<Stored> to) {
    for (int64_t p = 0; p < run.columns * maps.lanes; p += LANES) {
        Stored* pixels[LANES];
        find_pixels(maps, run, p, to, pixels);
        for (int64_t c = 0; c < channels; c += LANES) {
            Vec block[LANES];
            for (int i = 0; i < LANES; i++) block[i] = c + i < channels ? load(from[c + i] + p) : Vec{};
            transpose(block);
            for (int i = 0; i < LANES; i++)
                if (pixels[i]) store_first_as(pixels[i] + c, block[i], channels - c);
        }
    }
}

template <class Stored>
void pack(const Maps& maps, int64_t channels, ChannelsLast<const Stored> from, Real* compact, int64_t threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t row = 0; row < maps.groups * maps.height; row++) {
        int64_t group = row / maps.height, y = row % maps.height;
        Real* to = compact + group * channels * maps.compact() + y * maps.width * maps.lanes;
        gather(maps, {group, y, 0, maps.width}, channels, from, {to, maps.compact()});
    }
}

template <class Stored>
void unpack(const Maps& maps, int64_t channels, Real* compact, ChannelsLast<Stored> to, int64_t threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t row = 0; row < maps.groups * maps.height; row++) {
        int64_t group = row / maps.height, y = row % maps.height;
        Real* from = compact + group * channels * maps.compact() + y * maps.width * maps.lanes;
        scatter(maps, {group, y, 0, maps.width}, channels, {from, maps.compact()}, to);
    }
}

// Into `channels` channels of a padded layout that has `all` of them in each group.
template <class Stored>
void pad(const Maps& maps, int64_t channels, int64_t all, ChannelsLast<const Stored> from, Real* padded,
         int64_t threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t row = 0; row < maps.groups * maps.padded_height(); row++) {
        int64_t group = row / maps.padded_height(), y = row % maps.padded_height(), lanes = maps.lanes;
        Real* to = padded + group * all * maps.padded() + y * maps.padded_row();
        Real* inner = to + maps.reach * lanes;
        Run run{group, reflect(y - maps.reach, maps.height), 0, maps.width};
        gather(maps, run, channels, from, {inner, maps.padded()});
        for (int64_t c = 0; c < channels; c++)
            for (int64_t out = 1; out <= maps.reach; out++) {
                Real* at = inner + c * maps.padded();
                int64_t left = -out, right = maps.width - 1 + out, bytes = lanes * sizeof(Real);
                std::memcpy(at + left * lanes, at + reflect(left, maps.width) * lanes, bytes);
                std::memcpy(at + right * lanes, at + reflect(right, maps.width) * lanes, bytes);
            }
    }
}

// The transpose of `pad`: adds each reflected pixel to the one that it shows, in place, and writes the map.
template <class Stored>
void fold(const Maps& maps, int64_t channels, int64_t all, Real* padded, ChannelsLast<Stored> to,
          int64_t threads) {
    int64_t row = maps.padded_row(), lanes = maps.lanes, reach = maps.reach;
#pragma omp parallel for num_threads(threads)
    for (int64_t task = 0; task < maps.groups * channels; task++) {
        Real* map = padded + (task / channels * all + task % channels) * maps.padded();
        auto add_row = [&](int64_t y) {
            const Real* from = map + (y + reach) * row;
            Real* onto = map + (reflect(y, maps.height) + reach) * row;
            for (int64_t i = 0; i < row; i++) onto[i] += from[i];
        };
        for (int64_t out = 1; out <= reach; out++) add_row(-out), add_row(maps.height - 1 + out);
        for (int64_t y = 0; y < maps.height; y++) {
            Real* inner = map + (y + reach) * row + reach * lanes;
            auto add_column = [&](int64_t x) {
                Real* onto = inner + reflect(x, maps.width) * lanes;
                for (int64_t n = 0; n < lanes; n++) onto[n] += inner[x * lanes + n];
            };
            for (int64_t out = 1; out <= reach; out++) add_column(-out), add_column(maps.width - 1 + out);
        }
    }
#pragma omp parallel for num_threads(threads)
    for (int64_t line = 0; line < maps.groups * maps.height; line++) {
        int64_t group = line / maps.height, y = line % maps.height;
        Real* from = padded + group * all * maps.padded() + (y + reach) * row + reach * lanes;
        scatter(maps, {group, y, 0, maps.width}, channels, {from, maps.padded()}, to);
    }
}

}  // namespace san
