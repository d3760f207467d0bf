/* The tile instructions of AMX that the evaluator needs, or the same in plain C where TILES_EMULATED is defined.
 *
 * Tiles are numbered 0 to 7. Tiles 0 to 3 hold sums, (rows, 16) of 32 bits each; the others hold inputs or weights. A
 * row of a tile is 64 bytes. All have 16 rows, but where a group of fewer rows of inputs is multiplied, the sums and
 * tile 4 have as many rows as the group. */
#ifndef MLPINFER_TILES_H
#define MLPINFER_TILES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "simd.h"

enum { TILE_ROWS = 16, TILE_BYTES = 1024 };

#if !defined(TILES_EMULATED)

#include <immintrin.h>

#define TILE_ZERO(t) _tile_zero(t)
#define TILE_LOAD(t, from, stride) _tile_loadd(t, from, (size_t)(stride))
#define TILE_STORE(t, to, stride) _tile_stored(t, to, (size_t)(stride))
#define TILE_BF16(sums, rows, weights) _tile_dpbf16ps(sums, rows, weights)
#define TILE_U8S8(sums, rows, weights) _tile_dpbusd(sums, rows, weights)

/* The configuration belongs to the calling thread, and the kernel saves it with the thread's registers. */
static inline void tiles_configure(int rows)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = 64;
        config.rows[i] = (uint8_t)(i <= 4 ? rows : TILE_ROWS);
    }
    _tile_loadconfig(&config);
}

/* Give the tiles back, so that switches of context need not save them. */
static inline void tiles_release(void) { _tile_release(); }

#else

/* The registers of this thread. */
static _Thread_local struct {
    uint8_t rows[8];
    _Alignas(64) unsigned char bytes[8][TILE_BYTES];
} tiles;

static inline void tiles_configure(int rows)
{
    for (int i = 0; i < 8; i++) tiles.rows[i] = (uint8_t)(i <= 4 ? rows : TILE_ROWS);
    memset(tiles.bytes, 0, sizeof(tiles.bytes));
}

/* Sums that nobody should read any more become NaN. */
static inline void tiles_release(void) { memset(&tiles, 0xFF, sizeof(tiles)); }

static inline void TILE_ZERO(int t) { memset(tiles.bytes[t], 0, TILE_BYTES); }

static inline void TILE_LOAD(int t, const void *from, ptrdiff_t stride)
{
    for (int r = 0; r < tiles.rows[t]; r++) memcpy(tiles.bytes[t] + 64 * r, (const char *)from + r * stride, 64);
}

static inline void TILE_STORE(int t, void *to, ptrdiff_t stride)
{
    for (int r = 0; r < tiles.rows[t]; r++) memcpy((char *)to + r * stride, tiles.bytes[t] + 64 * r, 64);
}

/* A bfloat16 is the upper half of a float. Subnormal numbers count as zero. */
static inline float tile_float(const unsigned char *at)
{
    uint16_t half;
    memcpy(&half, at, sizeof(half));
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return (bits & 0x7F800000) ? value : 0 * value;
}

INLINE vec tile_flush(vec x)
{
    const vec least = (vec){0} + 0x1p-126f;
    return where((x > -least) & (x < least), 0 * x, x);
}

/* Even and odd inputs are summed apart, by fused multiply-adds, and both sums are added to what is there. */
static inline void TILE_BF16(int sums, int rows, int weights)
{
    _Alignas(64) float W[2 * TILE_ROWS][16];
    for (int k = 0; k < 2 * TILE_ROWS; k++)
        for (int i = 0; i < 16; i++) W[k][i] = tile_float(tiles.bytes[weights] + 64 * (k / 2) + 4 * i + 2 * (k % 2));
    for (int r = 0; r < tiles.rows[sums]; r++) {
        float a[2 * TILE_ROWS];
        for (int k = 0; k < 2 * TILE_ROWS; k++) a[k] = tile_float(tiles.bytes[rows] + 64 * r + 2 * k);
        for (int i = 0; i < 16; i += LANES) {
            float *const sum = (float *)(tiles.bytes[sums] + 64 * r) + i;
            vec even = {0}, odd = {0};
            for (int k = 0; k < 2 * TILE_ROWS; k += 2) {
                even = tile_flush(even + a[k] * load(W[k] + i));
                odd = tile_flush(odd + a[k + 1] * load(W[k + 1] + i));
            }
            store(sum, tile_flush(load(sum) + tile_flush(even + odd)));
        }
    }
}

static inline void TILE_U8S8(int sums, int rows, int weights)
{
    for (int r = 0; r < tiles.rows[sums]; r++) {
        int32_t sum[16];
        memcpy(sum, tiles.bytes[sums] + 64 * r, 64);
        for (int k = 0; k < 64; k++)
            for (int i = 0; i < 16; i++)
                sum[i] += tiles.bytes[rows][64 * r + k] *
                          (int8_t)tiles.bytes[weights][64 * (k / 4) + 4 * i + k % 4];
        memcpy(tiles.bytes[sums] + 64 * r, sum, 64);
    }
}

#endif

#endif
