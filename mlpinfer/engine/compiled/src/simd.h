/* What differs between instruction sets: the vectors' width, and how what is not zero is found.
 *
 * Arithmetic is written with the vector extensions of GCC and Clang. Their width must be the
 * machine's: wider ones are taken apart badly. And every set needs a compilation of its own: where one
 * function is compiled for several (`target_clones`), its inlined helpers are made for the least. */
#ifndef MLPINFER_SIMD_H
#define MLPINFER_SIMD_H

#include <stddef.h>
#include <stdint.h>

#include "network.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

/* Sums that are held in registers: MR x NR vectors of dense rows, beside as many weights and an input;
 * SPARSE_ROWS x SPARSE_VECTORS of rows whose zeros are skipped. */
#if defined(__AVX512F__)
enum { LANES = 16, MR = 6, NR = 4, SPARSE_ROWS = 2, SPARSE_VECTORS = 8 };
#elif defined(__AVX2__)
enum { LANES = 8, MR = 6, NR = 2, SPARSE_ROWS = 2, SPARSE_VECTORS = 4 };
#elif defined(__x86_64__)
enum { LANES = 4, MR = 6, NR = 2, SPARSE_ROWS = 1, SPARSE_VECTORS = 8 };
#else
enum { LANES = 4, MR = 6, NR = 4, SPARSE_ROWS = 2, SPARSE_VECTORS = 8 };
#endif

#define INLINE static inline __attribute__((always_inline))
/* Counts are constants after inlining: whole loops become registers. */
#define UNROLL _Pragma("GCC unroll 16")

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t mask __attribute__((vector_size(4 * LANES)));

INLINE vec load(const float *p) { return *(const vec *)p; }
INLINE void store(float *p, vec v) { *(vec *)p = v; }
INLINE vec to_float(const int32_t *p) { return __builtin_convertvector(*(const mask *)p, vec); }
INLINE vec where(mask m, vec a, vec b) { return (vec)((m & (mask)a) | (~m & (mask)b)); }

/* NaN stays NaN. */
INLINE vec relu(vec x)
{
#if defined(__AVX512F__)
    return (vec)_mm512_max_ps(_mm512_setzero_ps(), (__m512)x);
#elif defined(__AVX2__)
    return (vec)_mm256_max_ps(_mm256_setzero_ps(), (__m256)x);
#else
    const vec zero = {0};
    return where(x < zero, zero, x);
#endif
}

/* Return x / y for y from 1 on; y is finite or NaN. */
INLINE vec divide(vec x, vec y)
{
#if defined(__AVX512F__)
    /* A step of Newton's method each for an estimate of 1 / y and for the quotient: faster than a division, and rounded
     * as one but for rare cases. So tanh is 1 where a division gives 1. */
    vec inverse = (vec)_mm512_rcp14_ps((__m512)y);
    inverse += inverse * (1.0f - y * inverse);
    const vec quotient = x * inverse;
    return quotient + (x - quotient * y) * inverse;
#else
    return x / y;
#endif
}

INLINE size_t size_of(const Dtype dtype) { return dtype == UINT8 ? sizeof(uint8_t) : sizeof(float); }
INLINE const void *element(const void *x, const Dtype dtype, ptrdiff_t i)
{
    return (const char *)x + i * (ptrdiff_t)size_of(dtype);
}

/* Bit i is set where x[i] is not zero, of 64; NaN is not zero. */
INLINE uint64_t nonzero(const void *x, const Dtype dtype)
{
    uint64_t bits = 0;
#if defined(__AVX512BW__)
    if (dtype == UINT8) return _mm512_test_epi8_mask(_mm512_loadu_si512(x), _mm512_loadu_si512(x));
    UNROLL for (int i = 0; i < 4; i++) {
        __m512 values = _mm512_loadu_ps((const float *)x + 16 * i);
        bits |= (uint64_t)_mm512_cmp_ps_mask(values, _mm512_setzero_ps(), _CMP_NEQ_UQ) << 16 * i;
    }
#elif defined(__AVX2__)
    if (dtype == UINT8) {
        UNROLL for (int i = 0; i < 2; i++) {
            __m256i values = _mm256_loadu_si256((const __m256i *)x + i);
            __m256i zero = _mm256_cmpeq_epi8(values, _mm256_setzero_si256());
            bits |= (uint64_t)(uint32_t)~_mm256_movemask_epi8(zero) << 32 * i;
        }
        return bits;
    }
    UNROLL for (int i = 0; i < 8; i++) {
        __m256 values = _mm256_loadu_ps((const float *)x + 8 * i);
        bits |= (uint64_t)_mm256_movemask_ps(_mm256_cmp_ps(values, _mm256_setzero_ps(), _CMP_NEQ_UQ)) << 8 * i;
    }
#else
    for (int i = 0; i < 64; i++)
        bits |= (uint64_t)(dtype == UINT8 ? ((const uint8_t *)x)[i] != 0 : ((const float *)x)[i] != 0) << i;
#endif
    return bits;
}

#if defined(__AVX512F__)
/* Return the index of the largest of `n` <= 16 values, the lowest of a tie; of the first NaN where there is one. */
INLINE int argmax_of_vector(const float *z, int n)
{
    const __mmask16 valid = (__mmask16)(0xFFFF >> (16 - n));
    __m512 values = _mm512_loadu_ps(z);
    __mmask16 nan = _mm512_mask_cmp_ps_mask(valid, values, values, _CMP_UNORD_Q);
    if (nan) return __builtin_ctz(nan);
    __m512 most = _mm512_set1_ps(_mm512_mask_reduce_max_ps(valid, values));
    return __builtin_ctz(_mm512_mask_cmp_ps_mask(valid, values, most, _CMP_EQ_OQ));
}
#endif

/* Write base + i for every bit i that is set, in order. Sixteen inputs may overwrite sixteen places: an array
 * with a place for every input is large enough. */
INLINE void indices(uint64_t bits, int base, uint16_t *index)
{
#if defined(__AVX512F__)
    const __m512i step = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    UNROLL for (int i = 0; i < 4; i++) {
        __mmask16 word = (__mmask16)(bits >> 16 * i);
        __m512i all = _mm512_add_epi32(step, _mm512_set1_epi32(base + 16 * i));
        __m256i found = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(word, all));
        _mm256_storeu_si256((__m256i *)index, found);
        index += __builtin_popcount(word);
    }
#else
    for (; bits; bits &= bits - 1) *index++ = (uint16_t)(base + __builtin_ctzll(bits));
#endif
}

/* Write the values of a row at the `count` inputs in `index`, those of `bits` from `base` on; the places as
 * for `indices`. */
INLINE void take(const void *x, const Dtype dtype, uint64_t bits, int base, const uint16_t *index, int count,
                 float *value)
{
#if defined(__AVX512F__)
    (void)index, (void)count;
    x = element(x, dtype, base);
    UNROLL for (int i = 0; i < 4; i++) {
        __mmask16 word = (__mmask16)(bits >> 16 * i); /* nothing is read beside it */
        __m512 all;
        if (dtype == UINT8) {
            __m128i bytes = _mm_maskz_loadu_epi8(word, (const uint8_t *)x + 16 * i);
            all = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
        } else
            all = _mm512_maskz_loadu_ps(word, (const float *)x + 16 * i);
        _mm512_storeu_ps(value, _mm512_maskz_compress_ps(word, all));
        value += __builtin_popcount(word);
    }
#else
    (void)bits, (void)base;
    for (int k = 0; k < count; k++)
        value[k] = dtype == UINT8 ? (float)((const uint8_t *)x)[index[k]] : ((const float *)x)[index[k]];
#endif
}

#endif
