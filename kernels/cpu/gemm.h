// Small matrix products on tiles that lie in the cache: what attention spends most of its time in.
#pragma once

#include "layout.h"

namespace san {

// `rows` in as few blocks of at most `most` as can be, all about as large.
inline int64_t even_block(int64_t rows, int64_t most) {
    int64_t blocks = (rows + most - 1) / most;
    return (rows + blocks - 1) / blocks;
}

// c[m, p] = start + sum over s of a(s, m) * b[s, p] for ROWS rows and VECTORS vectors of positions.
// start is c itself (add), bias[m], or 0.
template <int ROWS, int VECTORS>
inline void product_block(int64_t steps, const Real* a, int64_t a_step, int64_t a_row, const Real* b,
                          int64_t b_step, Real* c, int64_t c_row, bool add, const Real* bias) {
    Vec total[ROWS][VECTORS];
    for (int m = 0; m < ROWS; m++)
        for (int v = 0; v < VECTORS; v++)
            total[m][v] = add ? load(c + m * c_row + v * LANES) : bias ? broadcast(bias[m]) : Vec{};
    for (int64_t s = 0; s < steps; s++) {
        Vec right[VECTORS];
        for (int v = 0; v < VECTORS; v++) right[v] = load(b + s * b_step + v * LANES);
        for (int m = 0; m < ROWS; m++) {
            Vec left = broadcast(a[s * a_step + m * a_row]);
            for (int v = 0; v < VECTORS; v++) total[m][v] += left * right[v];
        }
    }
    for (int m = 0; m < ROWS; m++)
        for (int v = 0; v < VECTORS; v++) store(c + m * c_row + v * LANES, total[m][v]);
}

template <int VECTORS, int ROWS = 8>
inline void product_rows(int64_t rows, int64_t steps, const Real* a, int64_t a_step, int64_t a_row, const Real* b,
                         int64_t b_step, Real* c, int64_t c_row, bool add, const Real* bias) {
    if constexpr (ROWS > 0) {
        if (rows == ROWS)
            product_block<ROWS, VECTORS>(steps, a, a_step, a_row, b, b_step, c, c_row, add, bias);
        else
            product_rows<VECTORS, ROWS - 1>(rows, steps, a, a_step, a_row, b, b_step, c, c_row, add, bias);
    }
}

// A matrix whose element (step, row) is data[step * by_step + row * by_row].
struct Left {
    const Real* data;
    int64_t by_step, by_row;
};

// c[m, p] (+)= sum over s of a(s, m) * b[s, p] (+ bias[m]), for `rows` rows m and `steps` steps s.
// Whole vectors are computed: rows of b and c must go on for LANES - 1 numbers after `positions`.
inline void product(int64_t rows, int64_t steps, int64_t positions, Left a, Rows b, Rows c, bool add,
                    const Real* bias = nullptr) {
    constexpr int64_t MOST_ROWS = MANY_REGISTERS ? 8 : 4;
    int64_t block = even_block(rows, MOST_ROWS);
    for (int64_t m = 0; m < rows; m += block) {
        int64_t count = smaller(block, rows - m), p = 0;
        const Real *left = a.data + m * a.by_row, *start = bias ? bias + m : nullptr;
        for (; p + LANES < positions; p += 2 * LANES)
            product_rows<2>(count, steps, left, a.by_step, a.by_row, b.data + p, b.apart, c[m] + p, c.apart, add,
                            start);
        if (p < positions)
            product_rows<1>(count, steps, left, a.by_step, a.by_row, b.data + p, b.apart, c[m] + p, c.apart, add,
                            start);
    }
}

template <int ROWS, int COLUMNS>
inline void dots_block(int64_t positions, const Real* a, int64_t a_row, const Real* b, int64_t b_row, Real* c,
                       int64_t c_row) {
    Vec total[ROWS][COLUMNS] = {};
    for (int64_t p = 0; p < positions; p += LANES) {
        Vec right[COLUMNS];
        for (int n = 0; n < COLUMNS; n++) right[n] = load(b + n * b_row + p);
        for (int m = 0; m < ROWS; m++) {
            Vec left = in_register(load(a + m * a_row + p));
            for (int n = 0; n < COLUMNS; n++) total[m][n] += left * right[n];
        }
    }
    constexpr int COUNT = ROWS * COLUMNS;
    for (int first = 0; first < COUNT; first += LANES) {
        Vec block[LANES] = {};
        for (int i = 0; i < LANES && first + i < COUNT; i++) block[i] = total[(first + i) / COLUMNS][(first + i) % COLUMNS];
        Vec found = sums(block);
        for (int i = 0; i < LANES && first + i < COUNT; i++)
            c[(first + i) / COLUMNS * c_row + (first + i) % COLUMNS] += found[i];
    }
}

template <int COLUMNS, int ROWS = 7>
inline void dots_rows(int64_t rows, int64_t positions, const Real* a, int64_t a_row, const Real* b, int64_t b_row,
                      Real* c, int64_t c_row) {
    if constexpr (ROWS > 0) {
        if (rows == ROWS)
            dots_block<ROWS, COLUMNS>(positions, a, a_row, b, b_row, c, c_row);
        else
            dots_rows<COLUMNS, ROWS - 1>(rows, positions, a, a_row, b, b_row, c, c_row);
    }
}

// c[m, n] += sum over p of a[m, p] * b[n, p]. Rows must be 0 from `positions` to the next whole vector.
inline void dots(int64_t rows, int64_t columns, int64_t positions, Rows a, Rows b, Real* c, int64_t c_row) {
    constexpr int64_t MOST_ROWS = MANY_REGISTERS ? 7 : 4, MOST_COLUMNS = MANY_REGISTERS ? 3 : 2;
    int64_t row_block = even_block(rows, MOST_ROWS);
    for (int64_t m = 0; m < rows; m += row_block) {
        int64_t count = smaller(row_block, rows - m), n = 0;
        for (; n + MOST_COLUMNS <= columns; n += MOST_COLUMNS)
            dots_rows<MOST_COLUMNS>(count, positions, a[m], a.apart, b[n], b.apart, c + m * c_row + n, c_row);
        if (columns - n == 2)
            dots_rows<2>(count, positions, a[m], a.apart, b[n], b.apart, c + m * c_row + n, c_row);
        else if (columns - n == 1)
            dots_rows<1>(count, positions, a[m], a.apart, b[n], b.apart, c + m * c_row + n, c_row);
    }
}

}  // namespace san
