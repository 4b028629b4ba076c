// Linear layers with packed weights: y = x W + b for rows x.
//
// The outputs are divided into panels of 16. A panel of float32 weights has the layout [in][16]; one of int8 weights has
// [in / 2][16][2], so that one instruction multiplies pairs. A sum adds its products in the order of the inputs, with any
// number of rows, so a row's result is the same to the last bit in any batch.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "vectors.h"

namespace tidal {

constexpr int PANEL = 16;
constexpr int GROUP = 4;  // panels that are computed together for a single row, to hide the latency of the additions
constexpr int ROWS = 6;   // rows that are computed together: 6 rows of 2 vectors, 2 of weights and 1 input fit in 16

struct Linear {
    std::int32_t in, out;
    const float* weight;         // packed float32 weights, or null
    const std::int8_t* weight8;  // packed int8 weights, or null
    const float* scale;          // per output, of the int8 weights
    const float* bias;           // per output, or null
};

inline int panels(const Linear& layer) { return (layer.out + PANEL - 1) / PANEL; }

// The rows that a layer multiplies: float32, and for int8 weights also as integers with a scale per row.
struct Rows {
    const float* values;
    const std::int16_t* steps;  // rows of `padded_width(in)` numbers of −127 … 127
    const float* scale;
    int count;
};

inline int padded_width(int in) { return (in + 1) & ~1; }

// Write a row as integers, and return their scale.
inline float quantise(const float* row, int length, std::int16_t* steps) {
    const __m256 sign_bit = _mm256_set1_ps(-0.0f);
    __m256 largest = _mm256_setzero_ps(), all = _mm256_setzero_ps();
    by_eight(row, length, [&](__m256 v, int, int) {
        largest = _mm256_max_ps(largest, _mm256_andnot_ps(sign_bit, v));
        all = _mm256_fmadd_ps(v, _mm256_setzero_ps(), all);  // NaN if one of the numbers is not finite
    });
    alignas(32) float numbers[8];
    _mm256_store_ps(numbers, largest);
    float scale = *std::max_element(numbers, numbers + 8) / 127.0f + sum(all);
    float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
    for (int i = 0; i < length; ++i) steps[i] = static_cast<std::int16_t>(std::lrintf(row[i] * inverse));
    if (length & 1) steps[length] = 0;
    return scale;
}

// The sums of both functions are local arrays whose loops are unrolled, because the compiler keeps only these in
// registers.
#define UNROLL _Pragma("GCC unroll 16")

template <int R, int P>
inline void multiply_panels(const float* x, int in, const float* weight, __m256 (&result)[R][P][2]) {
    __m256 total[R][P][2];
    UNROLL for (int r = 0; r < R; ++r)
        UNROLL for (int p = 0; p < P; ++p) total[r][p][0] = total[r][p][1] = _mm256_setzero_ps();
    for (int k = 0; k < in; ++k) {
        UNROLL for (int p = 0; p < P; ++p) {
            const float* at = weight + (static_cast<std::size_t>(p) * in + k) * PANEL;
            __m256 low = _mm256_loadu_ps(at), high = _mm256_loadu_ps(at + 8);
            UNROLL for (int r = 0; r < R; ++r) {
                __m256 value = _mm256_broadcast_ss(x + static_cast<std::size_t>(r) * in + k);
                total[r][p][0] = _mm256_fmadd_ps(value, low, total[r][p][0]);
                total[r][p][1] = _mm256_fmadd_ps(value, high, total[r][p][1]);
            }
        }
    }
    UNROLL for (int r = 0; r < R; ++r)
        UNROLL for (int p = 0; p < P; ++p) {
            result[r][p][0] = total[r][p][0];
            result[r][p][1] = total[r][p][1];
        }
}

template <int R, int P>
inline void multiply_panels(const std::int16_t* x, int in, const std::int8_t* weight, __m256i (&result)[R][P][2]) {
    __m256i total[R][P][2];
    UNROLL for (int r = 0; r < R; ++r)
        UNROLL for (int p = 0; p < P; ++p) total[r][p][0] = total[r][p][1] = _mm256_setzero_si256();
    for (int k = 0; k < in; k += 2) {
        UNROLL for (int p = 0; p < P; ++p) {
            const std::int8_t* at = weight + (static_cast<std::size_t>(p) * in + k) * PANEL;
            __m256i low = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
            __m256i high = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at + 16)));
            UNROLL for (int r = 0; r < R; ++r) {
                std::int32_t pair;
                __builtin_memcpy(&pair, x + static_cast<std::size_t>(r) * in + k, sizeof pair);
                __m256i value = _mm256_set1_epi32(pair);
                total[r][p][0] = _mm256_add_epi32(total[r][p][0], _mm256_madd_epi16(value, low));
                total[r][p][1] = _mm256_add_epi32(total[r][p][1], _mm256_madd_epi16(value, high));
            }
        }
    }
    UNROLL for (int r = 0; r < R; ++r)
        UNROLL for (int p = 0; p < P; ++p) {
            result[r][p][0] = total[r][p][0];
            result[r][p][1] = total[r][p][1];
        }
}

// Multiply R rows from `row` on with P panels from `panel` on, and call write(row, first output, vector, count).
template <int R, int P, class Write>
inline void multiply_block(const Linear& layer, const Rows& rows, int row, int panel, Write write) {
    __m256 total[R][P][2];
    if (layer.weight8) {
        __m256i sums[R][P][2];
        int in = padded_width(layer.in);
        multiply_panels<R, P>(rows.steps + static_cast<std::size_t>(row) * in, in,
                              layer.weight8 + static_cast<std::size_t>(panel) * in * PANEL, sums);
        for (int r = 0; r < R; ++r)
            for (int p = 0; p < P; ++p)
                for (int half = 0; half < 2; ++half) {
                    const float* scale = layer.scale + (panel + p) * PANEL + 8 * half;
                    total[r][p][half] = _mm256_mul_ps(
                        _mm256_cvtepi32_ps(sums[r][p][half]),
                        _mm256_mul_ps(_mm256_set1_ps(rows.scale[row + r]), _mm256_loadu_ps(scale)));
                }
    } else {
        multiply_panels<R, P>(rows.values + static_cast<std::size_t>(row) * layer.in, layer.in,
                              layer.weight + static_cast<std::size_t>(panel) * layer.in * PANEL, total);
    }
    for (int r = 0; r < R; ++r)
        for (int p = 0; p < P; ++p)
            for (int half = 0; half < 2; ++half) {
                int first = (panel + p) * PANEL + 8 * half, count = std::min(8, layer.out - first);
                if (count <= 0) continue;
                __m256 y = total[r][p][half];
                if (layer.bias) y = _mm256_add_ps(y, _mm256_loadu_ps(layer.bias + first));
                write(row + r, first, y, count);
            }
}

template <class Write>
inline void multiply_rows(const Linear& layer, const Rows& rows, int panel, Write write) {
    int row = 0;
    for (; row + ROWS <= rows.count; row += ROWS) multiply_block<ROWS, 1>(layer, rows, row, panel, write);
    switch (rows.count - row) {
        case 5: multiply_block<5, 1>(layer, rows, row, panel, write); break;
        case 4: multiply_block<4, 1>(layer, rows, row, panel, write); break;
        case 3: multiply_block<3, 1>(layer, rows, row, panel, write); break;
        case 2: multiply_block<2, 1>(layer, rows, row, panel, write); break;
        case 1: multiply_block<1, 1>(layer, rows, row, panel, write); break;
    }
}

// Multiply all rows with the panels of one group.
template <class Write>
inline void multiply_group(const Linear& layer, const Rows& rows, int group, Write write) {
    int first = group * GROUP, last = std::min(first + GROUP, panels(layer));
    if (rows.count == 1 && last - first == GROUP) {
        multiply_block<1, GROUP>(layer, rows, 0, first, write);
        return;
    }
    for (int panel = first; panel < last; ++panel) multiply_rows(layer, rows, panel, write);
}

}  // namespace tidal
