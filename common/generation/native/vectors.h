// Functions of vectors of eight numbers, and of rows. The order of all sums depends only on the length of a row.
#pragma once

#include <immintrin.h>

#include <cmath>

namespace tidal {

inline float sum(__m256 v) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

// e^x with a relative error of about 1e-7: x = n ln 2 + r, and a polynomial of r on [−ln 2 / 2, ln 2 / 2] (Cephes).
// Below −87.3 the result is 0, because it would not be a normal number; NaN stays NaN.
inline __m256 exp(__m256 x) {
    const __m256 least = _mm256_set1_ps(-87.3f);
    __m256 bounded = _mm256_max_ps(_mm256_set1_ps(-88.0f), _mm256_min_ps(_mm256_set1_ps(88.3f), x));
    __m256 n = _mm256_round_ps(_mm256_mul_ps(bounded, _mm256_set1_ps(1.44269504f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), bounded);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.9875691500e-4f);
    for (float coefficient : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(coefficient));
    p = _mm256_add_ps(_mm256_fmadd_ps(_mm256_mul_ps(r, r), p, r), _mm256_set1_ps(1.0f));
    __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    __m256 result = _mm256_mul_ps(p, _mm256_castsi256_ps(power));
    result = _mm256_andnot_ps(_mm256_cmp_ps(x, least, _CMP_LT_OQ), result);
    return _mm256_blendv_ps(result, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
}

inline __m256 sigmoid(__m256 x) {
    const __m256 one = _mm256_set1_ps(1.0f);
    return _mm256_div_ps(one, _mm256_add_ps(one, exp(_mm256_sub_ps(_mm256_setzero_ps(), x))));
}

inline __m256 tanh(__m256 x) {
    const __m256 one = _mm256_set1_ps(1.0f);
    __m256 e = exp(_mm256_add_ps(x, x));
    return _mm256_sub_ps(one, _mm256_div_ps(_mm256_set1_ps(2.0f), _mm256_add_ps(e, one)));
}

// The exact GELU x/2 (1 + erf(x/√2)). erf has an absolute error of at most 1.5e-7 (Abramowitz and Stegun 7.1.26).
inline __m256 gelu(__m256 x) {
    const __m256 one = _mm256_set1_ps(1.0f), sign_bit = _mm256_set1_ps(-0.0f);
    __m256 z = _mm256_mul_ps(_mm256_andnot_ps(sign_bit, x), _mm256_set1_ps(0.70710678f));
    __m256 t = _mm256_div_ps(one, _mm256_fmadd_ps(_mm256_set1_ps(0.3275911f), z, one));
    __m256 p = _mm256_set1_ps(1.061405429f);
    for (float coefficient : {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f})
        p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(coefficient));
    __m256 tail = exp(_mm256_mul_ps(_mm256_sub_ps(_mm256_setzero_ps(), z), z));
    __m256 erf = _mm256_fnmadd_ps(_mm256_mul_ps(p, t), tail, one);
    erf = _mm256_or_ps(erf, _mm256_and_ps(sign_bit, x));  // the sign of x
    __m256 half = _mm256_mul_ps(_mm256_set1_ps(0.5f), x);
    return _mm256_fmadd_ps(half, erf, half);
}

inline __m256 relu_squared(__m256 x) {
    // max returns its second operand for NaN, so x stays NaN.
    __m256 positive = _mm256_max_ps(_mm256_setzero_ps(), x);
    return _mm256_mul_ps(positive, positive);
}

// Return the first `count` numbers of a row, followed by zeros.
inline __m256 first_of(const float* row, int count) {
    alignas(32) float numbers[8] = {};
    for (int i = 0; i < count; ++i) numbers[i] = row[i];
    return _mm256_load_ps(numbers);
}

// Call body(vector of eight, first, count) for a row of `length` numbers; missing numbers of the last vector are 0.
template <class Body>
inline void by_eight(const float* row, int length, Body body) {
    int at = 0;
    for (; at + 8 <= length; at += 8) body(_mm256_loadu_ps(row + at), at, 8);
    if (at < length) body(first_of(row + at, length - at), at, length - at);
}

inline void store(float* to, __m256 v, int count) {
    if (count == 8) {
        _mm256_storeu_ps(to, v);
        return;
    }
    alignas(32) float numbers[8];
    _mm256_store_ps(numbers, v);
    for (int i = 0; i < count; ++i) to[i] = numbers[i];
}

inline float sum_of_squares(const float* row, int length) {
    __m256 total = _mm256_setzero_ps();
    by_eight(row, length, [&](__m256 v, int, int) { total = _mm256_fmadd_ps(v, v, total); });
    return sum(total);
}

// Divide a row by its root mean square; `to` may be `row`.
inline void rms_norm(const float* row, float* to, int length, float eps) {
    __m256 factor = _mm256_set1_ps(1.0f / std::sqrt(sum_of_squares(row, length) / length + eps));
    by_eight(row, length, [&](__m256 v, int at, int count) { store(to + at, _mm256_mul_ps(v, factor), count); });
}

inline void layer_norm(const float* row, float* to, int length, const float* weight, const float* bias, float eps) {
    __m256 total = _mm256_setzero_ps();
    by_eight(row, length, [&](__m256 v, int, int) { total = _mm256_add_ps(total, v); });
    float mean = sum(total) / length, squares = 0.0f;
    total = _mm256_setzero_ps();
    by_eight(row, length, [&](__m256 v, int, int count) {
        __m256 d = _mm256_sub_ps(v, _mm256_set1_ps(mean));
        if (count < 8) {
            alignas(32) float rest[8];
            _mm256_store_ps(rest, d);
            for (int i = 0; i < count; ++i) squares += rest[i] * rest[i];
        } else {
            total = _mm256_fmadd_ps(d, d, total);
        }
    });
    float factor = 1.0f / std::sqrt((sum(total) + squares) / length + eps);
    for (int i = 0; i < length; ++i) to[i] = (row[i] - mean) * factor * weight[i] + bias[i];
}

}  // namespace tidal
