// 2x2 max-pooling of maps, channels last: where windows lie, and which of their four pixels is the largest.
#pragma once

#include "pixels.h"

namespace san {

// Windows in bands of two rows of an image. The last odd row and column are in no window.
struct Pooling {
    int64_t images, height, width, channels;

    int64_t rows() const { return height / 2; }
    int64_t columns() const { return width / 2; }
    int64_t pixels() const { return images * height * width; }
    int64_t bands() const { return images * rows(); }
    Split split() const { return Split(bands(), channels, 1); }
    // From the upper left pixel of a window to pixel k of it.
    int64_t step(int k) const { return (k / 2 * width + k % 2) * channels; }

    // Calls work(c, lanes, pixel, window) for each vector of channels [begin, begin + count) of each window of a band:
    // channel c of its upper left pixel is number `pixel` of the map, its own is number `window` of the pooled one.
    template <class Work> void each_window(int64_t band, int64_t begin, int64_t count, Work work) const {
        int64_t pixel = first_pixel(band) * channels + begin, window = band * columns() * channels + begin;
        for (int64_t j = 0; j < columns(); j++, pixel += 2 * channels, window += channels)
            each_vector(count, [&](int64_t c, auto lanes) { work(begin + c, lanes, pixel + c, window + c); });
    }
    // Calls work(c, lanes, pixel) for the pixels beside and, behind the last band of an image, below the windows.
    template <class Work> void each_left_out(int64_t band, Work work) const {
        for (int64_t y = 0; y < height_of(band); y++)
            for (int64_t x = y < 2 ? 2 * columns() : 0; x < width; x++) {
                int64_t pixel = (first_pixel(band) + y * width + x) * channels;
                each_vector(channels, [&](int64_t c, auto lanes) { work(c, lanes, pixel + c); });
            }
    }

    int64_t first_pixel(int64_t band) const { return (band / rows() * height + band % rows() * 2) * width; }
    // 2, or 3 where an odd last row follows.
    int64_t height_of(int64_t band) const { return band % rows() == rows() - 1 ? height - 2 * (rows() - 1) : 2; }
};

typedef decltype(Vec{} > Vec{}) Mask;

// The largest of four values, and which it is. NaN is larger than all; of equals it is the first: as in torch.
struct Largest {
    Vec value;
    Mask which = {};

    explicit Largest(Vec first) : value(first) {}

    // Takes pixel k where its value is larger, and says where.
    Mask compare(Vec next, int k) {
        Mask larger = (next > value) | (next != next);
        value = larger ? next : value;
        which = larger ? Mask{} + k : which;
        return larger;
    }
};

}  // namespace san
