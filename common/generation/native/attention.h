// Attention of one query to the positions of its sequence.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cmath>

#include "vectors.h"

namespace tidal {

inline float dot(const float* a, const float* b, int length) {
    __m256 total = _mm256_setzero_ps();
    int at = 0;
    for (; at + 8 <= length; at += 8)
        total = _mm256_fmadd_ps(_mm256_loadu_ps(a + at), _mm256_loadu_ps(b + at), total);
    float rest = 0.0f;
    for (; at < length; ++at) rest += a[at] * b[at];
    return sum(total) + rest;
}

// Compute the dot products of a query with four neighbouring keys of a width that is a multiple of 8.
inline __m128 four_dots(const float* query, const float* keys, int width) {
    __m256 total[4];
    for (auto& one : total) one = _mm256_setzero_ps();
    for (int at = 0; at < width; at += 8) {
        __m256 q = _mm256_loadu_ps(query + at);
        for (int i = 0; i < 4; ++i)
            total[i] = _mm256_fmadd_ps(q, _mm256_loadu_ps(keys + static_cast<std::size_t>(i) * width + at), total[i]);
    }
    __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(total[0], total[1]), _mm256_hadd_ps(total[2], total[3]));
    return _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
}

// Write softmax(query · keys / √width) · values to `to`. Keys and values have `length` rows of `width` numbers.
// `weights` has room for `length` numbers.
inline void attend(const float* query, const float* keys, const float* values, int length, int width, float* weights,
                   float* to) {
    const float factor = 1.0f / std::sqrt(static_cast<float>(width));
    int t = 0;
    if (width % 8 == 0)
        for (; t + 4 <= length; t += 4)
            _mm_storeu_ps(weights + t, _mm_mul_ps(four_dots(query, keys + static_cast<std::size_t>(t) * width, width),
                                                  _mm_set1_ps(factor)));
    for (; t < length; ++t) weights[t] = dot(query, keys + static_cast<std::size_t>(t) * width, width) * factor;
    float largest = weights[0];
    for (int i = 1; i < length; ++i) largest = std::max(largest, weights[i]);
    __m256 total = _mm256_setzero_ps();
    by_eight(weights, length, [&](__m256 v, int at, int count) {
        __m256 weight = exp(_mm256_sub_ps(v, _mm256_set1_ps(largest)));
        store(weights + at, weight, count);
        if (count < 8) {  // the missing numbers do not count
            alignas(32) float rest[8];
            _mm256_store_ps(rest, weight);
            std::fill(rest + count, rest + 8, 0.0f);
            weight = _mm256_load_ps(rest);
        }
        total = _mm256_add_ps(total, weight);
    });
    float inverse = 1.0f / sum(total);
    int at = 0;
    for (; at + 32 <= width; at += 32) {
        __m256 out[4];
        for (auto& one : out) one = _mm256_setzero_ps();
        for (int i = 0; i < length; ++i) {
            __m256 weight = _mm256_broadcast_ss(weights + i);
            const float* value = values + static_cast<std::size_t>(i) * width + at;
            for (int j = 0; j < 4; ++j) out[j] = _mm256_fmadd_ps(weight, _mm256_loadu_ps(value + 8 * j), out[j]);
        }
        for (int j = 0; j < 4; ++j) _mm256_storeu_ps(to + at + 8 * j, _mm256_mul_ps(out[j], _mm256_set1_ps(inverse)));
    }
    for (; at < width; ++at) {
        float number = 0.0f;
        for (int i = 0; i < length; ++i) number += weights[i] * values[static_cast<std::size_t>(i) * width + at];
        to[at] = number * inverse;
    }
}

}  // namespace tidal
