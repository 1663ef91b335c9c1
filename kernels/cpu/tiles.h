// Matrix products on tiles of positions (footprints.h), with what is done to each result folded in.
#pragma once

#include "footprints.h"
#include "gemm.h"

namespace san {

constexpr int PRODUCT_ROWS = MANY_REGISTERS ? 8 : 4;
constexpr int DOT_ROWS = MANY_REGISTERS ? 7 : 3, DOT_COLUMNS = 3;

template <int ROWS, class Finish>
inline void tile_product_block(int64_t first, int64_t rows, int64_t steps, const Real* a, const Real* b,
                               const Real* bias, Finish finish) {
    Vec total[ROWS][2];
    for (int m = 0; m < ROWS; m++) total[m][0] = total[m][1] = bias ? broadcast(bias[first + m]) : Vec{};
    const Real* left = a + first;
    for (int64_t s = 0; s < steps; s++, left += rows, b += TILE) {
        Vec right0 = load(b), right1 = load(b + LANES);
        for (int m = 0; m < ROWS; m++) {
            Vec one = broadcast(left[m]);
            total[m][0] += one * right0;
            total[m][1] += one * right1;
        }
    }
    for (int m = 0; m < ROWS; m++) finish(first + m, total[m][0], total[m][1]);
}

template <int ROWS = PRODUCT_ROWS, class Finish>
inline void tile_product_rows(int64_t count, int64_t first, int64_t rows, int64_t steps, const Real* a,
                              const Real* b, const Real* bias, Finish finish) {
    if constexpr (ROWS > 0) {
        if (count == ROWS)
            tile_product_block<ROWS>(first, rows, steps, a, b, bias, finish);
        else
            tile_product_rows<ROWS - 1>(count, first, rows, steps, a, b, bias, finish);
    }
}

// finish(m, x0, x1) for each of `rows` rows m, with x the two vectors of
// bias[m] + sum over s of a[s, m] * b[s]; `a` [steps, rows], `b` a tile of `steps` rows.
template <class Finish>
inline void tile_product(int64_t rows, int64_t steps, const Real* a, const Real* b, const Real* bias,
                         Finish finish) {
    int64_t block = even_block(rows, PRODUCT_ROWS);
    for (int64_t m = 0; m < rows; m += block)
        tile_product_rows(smaller(block, rows - m), m, rows, steps, a, b, bias, finish);
}

// `count` tiles, `apart` numbers from one to the next.
struct Tiles {
    const Real* data;
    int64_t apart;
};

// sums[m] += sum over tiles and positions of row m, for `rows` rows.
inline void tile_sums(int64_t rows, int64_t count, Tiles a, double* sums) {
    for (int64_t m = 0; m < rows; m++) {
        Vec total = {};
        for (int64_t i = 0; i < count; i++) {
            const Real* row = a.data + i * a.apart + m * TILE;
            total += load(row) + load(row + LANES);
        }
        sums[m] += double(sum(total));
    }
}

template <int ROWS, int COLUMNS>
inline void tile_dots_block(int64_t count, Tiles a, Tiles b, double* c, int64_t c_row) {
    Vec total[ROWS][COLUMNS] = {};
    const Real *left = a.data, *right = b.data;
    for (int64_t i = 0; i < count; i++, left += a.apart, right += b.apart)
        for (int v = 0; v < 2; v++) {
            Vec others[COLUMNS];
            for (int n = 0; n < COLUMNS; n++) others[n] = load(right + n * TILE + v * LANES);
            for (int m = 0; m < ROWS; m++) {
                Vec one = in_register(load(left + m * TILE + v * LANES));
                for (int n = 0; n < COLUMNS; n++) total[m][n] += one * others[n];
            }
        }
#pragma GCC unroll 8  // as a loop it would keep all sums in memory
    for (int m = 0; m < ROWS; m++)
#pragma GCC unroll 8
        for (int n = 0; n < COLUMNS; n++) c[m * c_row + n] += double(sum(total[m][n]));
}

template <int COLUMNS, int ROWS = DOT_ROWS>
inline void tile_dots_rows(int64_t rows, int64_t count, Tiles a, Tiles b, double* c, int64_t c_row) {
    if constexpr (ROWS > 0) {
        if (rows == ROWS)
            tile_dots_block<ROWS, COLUMNS>(count, a, b, c, c_row);
        else
            tile_dots_rows<COLUMNS, ROWS - 1>(rows, count, a, b, c, c_row);
    }
}

// c[m, n] += sum over tiles and positions of a[m] * b[n], for `rows` rows m of tiles `a` and `columns` rows n of
// tiles `b`; c_row numbers from row to row of c. Where `half`, a and b are the same, and of c[m, n] = c[n, m]
// those with n < m may be left out.
inline void tile_dots(int64_t rows, int64_t columns, int64_t count, Tiles a, Tiles b, double* c, int64_t c_row,
                      bool half = false) {
    constexpr int64_t NEAR = 25;  // tiles whose 7 + 3 rows of 128 bytes stay in the first cache
    int64_t block = even_block(rows, DOT_ROWS);
    for (int64_t first = 0; first < count; first += NEAR) {
        int64_t near = smaller(NEAR, count - first);
        Tiles near_a{a.data + first * a.apart, a.apart}, near_b{b.data + first * b.apart, b.apart};
        for (int64_t m = 0; m < rows; m += block) {
            int64_t height = smaller(block, rows - m), n = half ? m : 0;
            Tiles left{near_a.data + m * TILE, a.apart};
            auto right = [&] { return Tiles{near_b.data + n * TILE, b.apart}; };
            for (; n + 3 <= columns; n += 3) tile_dots_rows<3>(height, near, left, right(), c + m * c_row + n, c_row);
            if (n + 2 == columns) tile_dots_rows<2>(height, near, left, right(), c + m * c_row + n, c_row);
            if (n + 1 == columns) tile_dots_rows<1>(height, near, left, right(), c + m * c_row + n, c_row);
        }
    }
}

}  // namespace san
