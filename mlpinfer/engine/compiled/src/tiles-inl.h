/* Products of layers by tiles, with the accuracy of float32; included by `evaluate-inl.h` where TILES is defined.
 *
 * Inputs of float32 and their weights are sums of three bfloat16 parts each. Of the nine products of parts the six
 * largest are added up in float32: what is left out is less than 2^-21 of a product. Rows of bytes are multiplied by
 * three signed digits of 8 bits of each weight, whose scale is that of a column; these sums are exact.
 *
 * A tile's sums depend on its own row alone and are added in one order, so that the rows beside it change no bit. */

#include "tiles.h"

enum {
    PARTS = 3,
    PART_INPUTS = 32,   /* of a tile of parts */
    DIGITS = 3,
    DIGIT_INPUTS = 64,  /* of a tile of digits */
    MOST_DIGIT_INPUTS = 65536, /* 255 x 127 x inputs must fit 31 bits */
    PAIR = 2 * TILE_ROWS, /* columns of two tiles, which are multiplied together; rows likewise */
};
/* Values outside have parts that bfloat16 loses, or sums that may overflow. */
#define SMALLEST_IN_PARTS 0x1p-100f
#define LARGEST_IN_PARTS 0x1p100f

INLINE ptrdiff_t steps_of(ptrdiff_t inputs, ptrdiff_t step) { return (inputs + step - 1) / step; }

/* -- packing -------------------------------------------------------------------------------------- */

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static float value_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

INLINE int fits_parts(float value)
{
    const float size = __builtin_fabsf(value);
    return size == 0 || (size >= SMALLEST_IN_PARTS && size <= LARGEST_IN_PARTS);
}

/* Write the tiles of each pair of columns one behind the other: (steps, PARTS, 1 or 2 tiles). */
static void pack_parts(const Layer *layer, const float *W, uint16_t *parts)
{
    const ptrdiff_t steps = steps_of(layer->inputs, PART_INPUTS);
    for (ptrdiff_t column = 0; column < layer->outputs; column++) {
        const ptrdiff_t pair = column / PAIR, n = at_most(2, layer->stride / TILE_ROWS - 2 * pair);
        for (ptrdiff_t k = 0; k < layer->inputs; k++) {
            float left = W[k * layer->outputs + column];
            for (int p = 0; p < PARTS; p++) {
                const uint32_t bits = bits_of(left), rounded = bits + 0x7FFF + (bits >> 16 & 1);
                const ptrdiff_t tile = pair * steps * PARTS * 2 + (k / PART_INPUTS * PARTS + p) * n + column % PAIR / TILE_ROWS;
                parts[tile * TILE_BYTES / 2 + k % PART_INPUTS / 2 * 32 + column % TILE_ROWS * 2 + k % 2] =
                    (uint16_t)(rounded >> 16);
                left -= value_of(rounded & 0xFFFF0000);
            }
        }
    }
}

/* Write the tiles of each pair of columns one behind the other, (DIGITS, steps, 1 or 2 tiles), the largest digits
 * first, and the scale of each column. Return 0 where a column's largest weight is so large that the others would
 * lose more than float32 sums do. */
static int pack_digits(const Layer *layer, const float *W, int8_t *digits, float *scales)
{
    const ptrdiff_t steps = steps_of(layer->inputs, DIGIT_INPUTS);
    for (ptrdiff_t column = 0; column < layer->outputs; column++) {
        const ptrdiff_t pair = column / PAIR, n = at_most(2, layer->stride / TILE_ROWS - 2 * pair);
        double most = 0, sum = 0, count = 0;
        for (ptrdiff_t k = 0; k < layer->inputs; k++) {
            const double size = __builtin_fabs((double)W[k * layer->outputs + column]);
            if (size > most) most = size;
            sum += size;
            count += size != 0;
        }
        if (most * count > 64 * sum) return 0;
        scales[column] = (float)(most / (127 * 65536));
        for (ptrdiff_t k = 0; k < layer->inputs; k++) {
            const double scaled = most > 0 ? W[k * layer->outputs + column] / (double)scales[column] : 0;
            int32_t left = (int32_t)(scaled + (scaled < 0 ? -0.5 : 0.5));
            for (int d = DIGITS - 1; d >= 0; d--) {
                const int8_t digit = (int8_t)left;
                const ptrdiff_t tile = pair * steps * DIGITS * 2 + (d * steps + k / DIGIT_INPUTS) * n + column % PAIR / TILE_ROWS;
                digits[tile * TILE_BYTES + k % DIGIT_INPUTS / 4 * 64 + column % TILE_ROWS * 4 + k % 4] = digit;
                left = (left - digit) / 256;
            }
        }
    }
    return 1;
}

/* Pack a layer's weights as tiles where they allow it. `memory` has `tile_bytes` zero bytes, aligned. */
static void pack_tiles(Layer *layer, const float *W, int first, void *memory)
{
    const ptrdiff_t tiles = layer->stride / TILE_ROWS;
    int fit = 1;
    for (ptrdiff_t i = 0; i < layer->inputs * layer->outputs; i++) fit &= fits_parts(W[i]);
    if (!fit) return;
    pack_parts(layer, W, memory);
    layer->parts = memory;
    if (!first || layer->inputs > MOST_DIGIT_INPUTS) return;
    int8_t *digits = (int8_t *)memory + tiles * steps_of(layer->inputs, PART_INPUTS) * PARTS * TILE_BYTES;
    float *scales = (float *)(digits + tiles * steps_of(layer->inputs, DIGIT_INPUTS) * DIGITS * TILE_BYTES);
    if (pack_digits(layer, W, digits, scales)) {
        layer->digits = digits;
        layer->scales = scales;
    }
}

static ptrdiff_t tile_bytes(const Layer *layer, int first)
{
    const ptrdiff_t tiles = layer->stride / TILE_ROWS, size = sizeof(float);
    ptrdiff_t bytes = tiles * steps_of(layer->inputs, PART_INPUTS) * PARTS * TILE_BYTES;
    if (first) bytes += tiles * steps_of(layer->inputs, DIGIT_INPUTS) * DIGITS * TILE_BYTES + layer->stride * size;
    return bytes;
}

/* -- float32 -------------------------------------------------------------------------------------- */

#if defined(__AVX512BW__) && !defined(TILES_EMULATED)

/* The largest of the sizes that were seen, and the smallest but zero. The size of a float is its bits without the
 * sign, which are in the order of its absolute value. */
typedef struct {
    __m512i largest, smallest;
} Sizes;

INLINE void see(Sizes *sizes, __m512 values)
{
    const __m512i size = _mm512_slli_epi32(_mm512_castps_si512(values), 1);
    sizes->largest = _mm512_max_epu32(sizes->largest, size);
    /* Zero becomes the largest of all. */
    sizes->smallest = _mm512_min_epu32(sizes->smallest, _mm512_sub_epi32(size, _mm512_set1_epi32(1)));
}

/* Write the parts of 32 values into three tiles. They are truncated, so that none is rounded to infinity. */
INLINE void split_step(__m512 first, __m512 second, Sizes *sizes, char *to)
{
    const __m512i upper = _mm512_set1_epi32((int)0xFFFF0000);
    const __m512i odd = _mm512_add_epi32(
        _mm512_set1_epi32(0x00030001),
        _mm512_slli_epi32(_mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                                             _mm512_set1_epi32(0x00010001)), 2));
    see(sizes, first);
    see(sizes, second);
    UNROLL for (int p = 0; p < PARTS; p++, to += TILE_BYTES) {
        const __m512i a = _mm512_castps_si512(first), b = _mm512_castps_si512(second);
        _mm512_store_si512(to, _mm512_permutex2var_epi16(a, odd, b));
        first = _mm512_sub_ps(first, _mm512_castsi512_ps(_mm512_and_si512(a, upper)));
        second = _mm512_sub_ps(second, _mm512_castsi512_ps(_mm512_and_si512(b, upper)));
    }
}

/* Split `count` values of a row into one row of as many tiles as they need, zeros behind them. Return 0 if a value
 * does not fit. */
INLINE int split(const float *x, ptrdiff_t count, char *to)
{
    Sizes sizes = {_mm512_setzero_si512(), _mm512_set1_epi32(-1)};
    for (; count >= PART_INPUTS; count -= PART_INPUTS, x += PART_INPUTS, to += PARTS * TILE_BYTES)
        split_step(_mm512_loadu_ps(x), _mm512_loadu_ps(x + 16), &sizes, to);
    if (count) {
        const uint32_t valid = (1u << count) - 1;
        const __m512 first = _mm512_maskz_loadu_ps((__mmask16)valid, x);
        split_step(first, count > 16 ? _mm512_maskz_loadu_ps((__mmask16)(valid >> 16), x + 16) : _mm512_setzero_ps(), &sizes,
                   to);
    }
    const __m512i least = _mm512_set1_epi32((int)(2 * bits_of(SMALLEST_IN_PARTS) - 1)),
                  most = _mm512_set1_epi32((int)(2 * bits_of(LARGEST_IN_PARTS)));
    return !(_mm512_cmplt_epu32_mask(sizes.smallest, least) | _mm512_cmpgt_epu32_mask(sizes.largest, most));
}

#else

INLINE int split(const float *x, ptrdiff_t count, char *to)
{
    int fit = 1;
    for (ptrdiff_t k = 0; k < (count + PART_INPUTS - 1) / PART_INPUTS * PART_INPUTS; k++) {
        float left = k < count ? x[k] : 0;
        fit &= fits_parts(left);
        for (int p = 0; p < PARTS; p++) {
            const uint32_t bits = bits_of(left);
            const uint16_t part = (uint16_t)(bits >> 16);
            memcpy(to + (k / PART_INPUTS * PARTS + p) * TILE_BYTES + k % PART_INPUTS * 2, &part, sizeof(part));
            left -= value_of(bits & 0xFFFF0000);
        }
    }
    return fit;
}

#endif

/* z[16 r, 16 c] (+)= a @ W for `groups` x `columns` tiles of sums, 1 or 2 each. */
INLINE void parts_kernel(const int groups, const int columns, const char *a, ptrdiff_t steps, const char *W, float *z,
                         ptrdiff_t stride, int first)
{
    const ptrdiff_t row = stride * (ptrdiff_t)sizeof(float), group = steps * PARTS * TILE_BYTES;
    float *const below = z + TILE_ROWS * stride;
    if (first) {
        TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
    } else {
        TILE_LOAD(0, z, row);
        if (columns == 2) TILE_LOAD(1, z + TILE_ROWS, row);
        if (groups == 2) TILE_LOAD(2, below, row);
        if (groups == 2 && columns == 2) TILE_LOAD(3, below + TILE_ROWS, row);
    }
    for (ptrdiff_t k = 0; k < steps; k++, a += PARTS * TILE_BYTES, W += PARTS * columns * TILE_BYTES) {
#define INPUTS(p) \
    TILE_LOAD(4, a + p * TILE_BYTES, 64); \
    if (groups == 2) TILE_LOAD(5, a + group + p * TILE_BYTES, 64);
#define WEIGHTS(p) \
    TILE_LOAD(6, W + p * columns * TILE_BYTES, 64); \
    if (columns == 2) TILE_LOAD(7, W + (p * columns + 1) * TILE_BYTES, 64);
#define MULTIPLY \
    TILE_BF16(0, 4, 6); \
    if (columns == 2) TILE_BF16(1, 4, 7); \
    if (groups == 2) TILE_BF16(2, 5, 6); \
    if (groups == 2 && columns == 2) TILE_BF16(3, 5, 7);
        /* Each product has one operand in common with the one before it. */
        INPUTS(0) WEIGHTS(2) MULTIPLY
        WEIGHTS(1) MULTIPLY
        INPUTS(1) MULTIPLY
        WEIGHTS(0) MULTIPLY
        INPUTS(2) MULTIPLY
        INPUTS(0) MULTIPLY
#undef INPUTS
#undef WEIGHTS
#undef MULTIPLY
    }
    TILE_STORE(0, z, row);
    if (columns == 2) TILE_STORE(1, z + TILE_ROWS, row);
    if (groups == 2) TILE_STORE(2, below, row);
    if (groups == 2 && columns == 2) TILE_STORE(3, below + TILE_ROWS, row);
}

/* Multiply inputs `from` on, in `steps` steps, of rows that have been split, by all columns. */
static void multiply_parts(const Layer *layer, ptrdiff_t from, ptrdiff_t steps, int rows, const char *split, float *z)
{
    const ptrdiff_t all = steps_of(layer->inputs, PART_INPUTS);
    /* Whole pairs of groups of rows first, then the rest with tiles of its own size. */
    for (int done = 0, now; done < rows; done += now) {
        const int left = rows - done;
        now = left >= PAIR ? left / PAIR * PAIR : left;
        const int groups = now > TILE_ROWS ? 2 : 1;
        tiles_configure(now >= PAIR ? TILE_ROWS : (int)at_most(now, TILE_ROWS), now >= PAIR ? TILE_ROWS : now - TILE_ROWS * (groups - 1));
        for (ptrdiff_t at = 0; at < layer->stride; at += PAIR) {
            const ptrdiff_t columns = at_most(2, (layer->stride - at) / TILE_ROWS);
            const char *W = (const char *)layer->parts + (at / TILE_ROWS * all + from / PART_INPUTS * columns) * PARTS * TILE_BYTES;
            for (int r = done; r < done + now; r += PAIR) {
                const char *a = split + r / TILE_ROWS * steps * PARTS * TILE_BYTES;
                float *to = z + r * layer->stride + at;
#define CASE(g, c) \
    if (groups == g && columns == c) parts_kernel(g, c, a, steps, W, to, layer->stride, from == 0);
                CASE(2, 2) CASE(2, 1) CASE(1, 2) CASE(1, 1)
#undef CASE
            }
        }
    }
    tiles_release();
}

/* z (rows, stride) = a (rows, a_stride) @ W; rows with values that do not fit are computed without tiles. */
static void multiply_by_parts(const Layer *layer, const float *a, ptrdiff_t a_stride, int rows, char *workspace, float *z)
{
    uint8_t lost[MAX_ROWS] = {0};
    for (ptrdiff_t from = 0; from < layer->inputs; from += MAX_CHUNK) {
        const ptrdiff_t inputs = at_most(layer->inputs - from, MAX_CHUNK), steps = steps_of(inputs, PART_INPUTS);
        for (int r = 0; r < rows; r++) {
            char *to = workspace + r / TILE_ROWS * steps * PARTS * TILE_BYTES + r % TILE_ROWS * 64;
            lost[r] |= !split(a + r * a_stride + from, inputs, to);
        }
        multiply_parts(layer, from, steps, rows, workspace, z);
    }
    for (int r = 0; r < rows; r++)
        if (lost[r]) {
            const float *from = a + r * a_stride;
            float *to = z + r * layer->stride;
            multiply_dense(layer, 0, layer->inputs, 1, &from, &to);
        }
}

/* -- bytes ---------------------------------------------------------------------------------------- */

/* The sums of one digit for `groups` x `columns` tiles. `rest` has the last inputs of each row, and zeros. */
INLINE void digits_kernel(const int groups, const int columns, const uint8_t *x, ptrdiff_t inputs, const uint8_t *rest,
                          const int8_t *W, int32_t *sums)
{
    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
    for (ptrdiff_t k = 0; k < inputs; k += DIGIT_INPUTS, W += columns * TILE_BYTES) {
        const int whole = k + DIGIT_INPUTS <= inputs;
        const uint8_t *const a = whole ? x + k : rest;
        const ptrdiff_t stride = whole ? inputs : DIGIT_INPUTS;
        TILE_LOAD(4, a, stride);
        if (groups == 2) TILE_LOAD(5, a + TILE_ROWS * stride, stride);
        TILE_LOAD(6, W, 64);
        TILE_U8S8(0, 4, 6);
        if (groups == 2) TILE_U8S8(2, 5, 6);
        if (columns == 2) {
            TILE_LOAD(7, W + TILE_BYTES, 64);
            TILE_U8S8(1, 4, 7);
            if (groups == 2) TILE_U8S8(3, 5, 7);
        }
    }
    TILE_STORE(0, sums, PAIR * 4);
    if (columns == 2) TILE_STORE(1, sums + TILE_ROWS, PAIR * 4);
    if (groups == 2) TILE_STORE(2, sums + TILE_ROWS * PAIR, PAIR * 4);
    if (groups == 2 && columns == 2) TILE_STORE(3, sums + TILE_ROWS * PAIR + TILE_ROWS, PAIR * 4);
}

/* z (rows, stride) = x (rows, inputs) @ W for rows of bytes. */
static void multiply_by_digits(const Layer *layer, const uint8_t *x, int rows, float *z)
{
    _Alignas(64) int32_t sums[DIGITS][PAIR * PAIR];
    _Alignas(64) uint8_t rest[PAIR * DIGIT_INPUTS] = {0};
    const ptrdiff_t inputs = layer->inputs, steps = steps_of(inputs, DIGIT_INPUTS), tail = inputs % DIGIT_INPUTS;
    for (int done = 0; done < rows; done += PAIR) {
        const int now = (int)at_most(rows - done, PAIR), groups = now > TILE_ROWS ? 2 : 1;
        if (done == 0 || now < PAIR) tiles_configure((int)at_most(now, TILE_ROWS), now - TILE_ROWS * (groups - 1));
        const uint8_t *from = x + done * inputs;
        for (int r = 0; r < now && tail; r++)
            memcpy(rest + r * DIGIT_INPUTS, from + (r + 1) * inputs - tail, (size_t)tail);
        for (ptrdiff_t at = 0; at < layer->stride; at += PAIR) {
            const ptrdiff_t columns = at_most(2, (layer->stride - at) / TILE_ROWS);
            const int8_t *W = layer->digits + at / TILE_ROWS * steps * DIGITS * TILE_BYTES;
            for (int d = 0; d < DIGITS; d++, W += steps * columns * TILE_BYTES) {
#define CASE(g, c) \
    if (groups == g && columns == c) digits_kernel(g, c, from, inputs, rest, W, sums[d]);
                CASE(2, 2) CASE(2, 1) CASE(1, 2) CASE(1, 1)
#undef CASE
            }
            for (int r = 0; r < now; r++)
                for (ptrdiff_t i = 0; i < columns * TILE_ROWS; i += LANES) {
                    const ptrdiff_t cell = r * PAIR + i;
                    vec sum = to_float(sums[0] + cell) * 65536.0f + (to_float(sums[1] + cell) * 256.0f + to_float(sums[2] + cell));
                    store(z + (done + r) * layer->stride + at + i, sum * load(layer->scales + at + i));
                }
        }
    }
    tiles_release();
}
