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
    PART_STEP = PARTS * TILE_BYTES,
    DIGITS = 3,
    DIGIT_INPUTS = 64,  /* of a tile of digits */
    MOST_DIGIT_INPUTS = 65536, /* 255 x 127 x inputs must fit 31 bits */
    FEW_ROWS = 5, /* of bytes: fewer are multiplied one by one without tiles */
    PAIR = 2 * TILE_ROWS, /* columns of two tiles, which are multiplied together; rows likewise */
};
/* Values outside have parts that are subnormal, which AMX takes for zero, or products whose sums may overflow. */
#define SMALLEST_IN_PARTS 0x1p-100f
#define LARGEST_IN_PARTS 0x1p50f

/* Rows of inputs as tiles, and which rows are not to be multiplied by tiles. */
typedef struct {
    uint8_t apart[MAX_ROWS];
    _Alignas(64) char inputs[];
} TileWorkspace;

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

/* Write (steps, PARTS) tiles for every 16 columns. */
static void pack_parts(const Layer *layer, const float *W, uint16_t *parts)
{
    const ptrdiff_t steps = steps_of(layer->inputs, PART_INPUTS);
    for (ptrdiff_t column = 0; column < layer->outputs; column++) {
        for (ptrdiff_t k = 0; k < layer->inputs; k++) {
            float left = W[k * layer->outputs + column];
            for (int p = 0; p < PARTS; p++) {
                const uint32_t bits = bits_of(left), rounded = bits + 0x7FFF + (bits >> 16 & 1);
                const ptrdiff_t tile = (column / TILE_ROWS * steps + k / PART_INPUTS) * PARTS + p;
                parts[tile * TILE_BYTES / 2 + k % PART_INPUTS / 2 * 32 + column % TILE_ROWS * 2 + k % 2] =
                    (uint16_t)(rounded >> 16);
                left -= value_of(rounded & 0xFFFF0000);
            }
        }
    }
}

/* Write (DIGITS, steps) tiles for every 16 columns, the largest digits first, and the scale of each column. Return 0
 * where a column's largest weight is so large that the others would lose more than float32 sums do. */
static int pack_digits(const Layer *layer, const float *W, int8_t *digits, float *scales)
{
    const ptrdiff_t steps = steps_of(layer->inputs, DIGIT_INPUTS);
    for (ptrdiff_t column = 0; column < layer->outputs; column++) {
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
                const ptrdiff_t tile = (column / TILE_ROWS * DIGITS + d) * steps + k / DIGIT_INPUTS;
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
    /* Measured on Sapphire Rapids: in smaller layers, vectors are as fast for many rows and faster for few. */
    if (layer->inputs >= 64 && layer->stride >= 112) {
        pack_parts(layer, W, memory);
        layer->parts = memory;
    }
    if (!first || layer->inputs > MOST_DIGIT_INPUTS || layer->stride < PAIR) return;
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

/* Return the bytes that a block of rows takes, in parts or as bytes. */
static ptrdiff_t tile_workspace(const Network *network)
{
    ptrdiff_t steps = 0, bytes = 0;
    for (ptrdiff_t i = 0; i < network->count; i++) {
        const ptrdiff_t here = steps_of(at_most(network->layers[i].inputs, MAX_CHUNK), PART_INPUTS);
        if (network->layers[i].parts && here > steps) steps = here;
    }
    if (network->layers[0].digits) bytes = PAIR * DIGIT_INPUTS * steps_of(network->layers[0].inputs, DIGIT_INPUTS);
    const ptrdiff_t parts = network->rows / TILE_ROWS * steps * PART_STEP;
    return (ptrdiff_t)sizeof(TileWorkspace) + (parts > bytes ? parts : bytes);
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

/* -- kernels -------------------------------------------------------------------------------------- */

/* Where tiles lie, and the bytes from a row to the next, from a group of 16 rows to the next, from 16 columns to the
 * next, and from a step to the next. Parts of one step follow each other. */
typedef struct {
    char *at;
    ptrdiff_t row, group;
} Sums;
typedef struct {
    const char *at;
    ptrdiff_t group, step;
} Inputs;
typedef struct {
    const char *at;
    ptrdiff_t column, step;
} Weights;
typedef enum { PARTS_OF_FLOATS, DIGIT_OF_BYTES } Operands;

/* Call TILE_ZERO, TILE_LOAD or TILE_STORE on the sums of 1 or 2 groups by 1 or 2 columns. */
#define EACH_SUM(groups, columns, sums, CALL) \
    CALL(0, sums.at, sums.row); \
    if (columns == 2) { CALL(1, sums.at + 64, sums.row); } \
    if (groups == 2) { CALL(2, sums.at + sums.group, sums.row); } \
    if (groups == 2 && columns == 2) { CALL(3, sums.at + sums.group + 64, sums.row); }

INLINE void begin_sums(const int groups, const int columns, Sums sums, int first)
{
    if (first) {
        TILE_ZERO(0);
        TILE_ZERO(1);
        TILE_ZERO(2);
        TILE_ZERO(3);
    } else {
        EACH_SUM(groups, columns, sums, TILE_LOAD)
    }
}

INLINE void end_sums(const int groups, const int columns, Sums sums)
{
    EACH_SUM(groups, columns, sums, TILE_STORE)
}

/* Add products of 1 or 2 groups of rows by 1 or 2 times 16 columns. */
INLINE void add_products(const Operands operands, const int groups, const int columns, Inputs a, Weights W, ptrdiff_t steps)
{
    for (ptrdiff_t k = 0; k < steps; k++, a.at += a.step, W.at += W.step) {
#define INPUTS(p) \
    TILE_LOAD(4, a.at + p * TILE_BYTES, 64); \
    if (groups == 2) { TILE_LOAD(5, a.at + a.group + p * TILE_BYTES, 64); }
#define WEIGHTS(p) \
    TILE_LOAD(6, W.at + p * TILE_BYTES, 64); \
    if (columns == 2) { TILE_LOAD(7, W.at + W.column + p * TILE_BYTES, 64); }
#define DOT(sums, a, w) \
    if (operands == PARTS_OF_FLOATS) { TILE_BF16(sums, a, w); } else { TILE_U8S8(sums, a, w); }
#define MULTIPLY \
    DOT(0, 4, 6) \
    if (columns == 2) { DOT(1, 4, 7) } \
    if (groups == 2) { DOT(2, 5, 6) } \
    if (groups == 2 && columns == 2) { DOT(3, 5, 7) }
        if (operands == DIGIT_OF_BYTES) {
            INPUTS(0) WEIGHTS(0) MULTIPLY
        } else {
            /* Each product has one operand in common with the one before it. */
            INPUTS(0) WEIGHTS(2) MULTIPLY
            WEIGHTS(1) MULTIPLY
            INPUTS(1) MULTIPLY
            WEIGHTS(0) MULTIPLY
            INPUTS(2) MULTIPLY
            INPUTS(0) MULTIPLY
        }
#undef INPUTS
#undef WEIGHTS
#undef DOT
#undef MULTIPLY
    }
}

/* Call KERNEL(groups, columns, row, column) on blocks that cover `rows` rows and the columns from `begin` to `end`: of
 * two by two tiles first, then what is left below. A last group of fewer than 16 rows needs tiles of its own size. */
#define EACH_BLOCK(rows, begin, end, KERNEL) \
    do { \
        const int pairs = rows / PAIR * PAIR; \
        if (rows >= TILE_ROWS) tiles_configure(TILE_ROWS); \
        for (ptrdiff_t column = begin; pairs && column < end; column += PAIR) \
            for (int row = 0; row < pairs; row += PAIR) { \
                if (column + PAIR <= end) KERNEL(2, 2, row, column); \
                else KERNEL(2, 1, row, column); \
            } \
        for (int row = pairs; row < rows; row += TILE_ROWS) { \
            if (rows - row < TILE_ROWS) tiles_configure(rows - row); \
            for (ptrdiff_t column = begin; column < end; column += PAIR) { \
                if (column + PAIR <= end) KERNEL(1, 2, row, column); \
                else KERNEL(1, 1, row, column); \
            } \
        } \
        tiles_release(); \
    } while (0)

/* -- layers --------------------------------------------------------------------------------------- */

/* Multiply groups of rows that have been split by tiles of columns, in `steps` steps. */
INLINE void multiply_block(const int groups, const int columns, const Layer *layer, const char *rows, ptrdiff_t steps,
                           const char *weights, float *z, int first)
{
    const ptrdiff_t row = layer->stride * (ptrdiff_t)sizeof(float);
    const Sums sums = {(char *)z, row, TILE_ROWS * row};
    const Inputs a = {rows, steps * PART_STEP, PART_STEP};
    const Weights W = {weights, steps_of(layer->inputs, PART_INPUTS) * PART_STEP, PART_STEP};
    begin_sums(groups, columns, sums, first);
    add_products(PARTS_OF_FLOATS, groups, columns, a, W, steps);
    end_sums(groups, columns, sums);
}

/* Multiply inputs `from` on, in `steps` steps, of rows that have been split. */
static void multiply_parts(const Layer *layer, ptrdiff_t from, ptrdiff_t steps, int rows, const char *split, float *z,
                           ptrdiff_t begin, ptrdiff_t end)
{
    const ptrdiff_t all = steps_of(layer->inputs, PART_INPUTS);
    const char *const weights = (const char *)layer->parts + from / PART_INPUTS * PART_STEP;
#define KERNEL(groups, columns, row, column) \
    multiply_block(groups, columns, layer, split + (row) / TILE_ROWS * steps * PART_STEP, steps, \
                   weights + (column) / TILE_ROWS * all * PART_STEP, z + (row) * layer->stride + (column), from == 0)
    EACH_BLOCK(rows, begin, end, KERNEL);
#undef KERNEL
}

/* Return whether at least half of a row is zero. */
static int is_sparse(const float *x, ptrdiff_t inputs)
{
    Row row;
    ptrdiff_t count = 0;
    for (ptrdiff_t from = 0; from < inputs; from += MAX_CHUNK) {
        row.x = x + from;
        find_nonzero(&row, FLOAT32, (int)at_most(inputs - from, MAX_CHUNK));
        count += row.count;
    }
    return 2 * count <= inputs;
}

/* z (rows, stride) = a (rows, a_stride) @ W, columns `begin` to `end`. Rows whose zeros are worth to be skipped, in the
 * first layer, and rows with values that do not fit into parts are multiplied by vectors. The rows need not be split
 * again if the workspace is still that of the call before. */
static void multiply_by_parts(const Layer *layer, int first, const float *a, ptrdiff_t a_stride, int rows,
                              TileWorkspace *workspace, float *z, ptrdiff_t begin, ptrdiff_t end, int fresh)
{
    uint8_t *const apart = workspace->apart;
    for (int r = 0; r < rows && fresh; r++) apart[r] = (uint8_t)(first && is_sparse(a + r * a_stride, layer->inputs));
    for (ptrdiff_t from = 0; from < layer->inputs && memchr(apart, 0, (size_t)rows); from += MAX_CHUNK) {
        const ptrdiff_t inputs = at_most(layer->inputs - from, MAX_CHUNK), steps = steps_of(inputs, PART_INPUTS);
        for (int r = 0; r < rows && (fresh || layer->inputs > MAX_CHUNK); r++) {
            char *to = workspace->inputs + (r / TILE_ROWS * steps * PARTS * TILE_ROWS + r % TILE_ROWS) * 64;
            if (!apart[r]) apart[r] = !split(a + r * a_stride + from, inputs, to);
        }
        multiply_parts(layer, from, steps, rows, workspace->inputs, z, begin, end);
    }
    for (int r = 0, n; r < rows; r += n) {
        for (n = 1; r + n < rows && apart[r + n] == apart[r]; n++) {}
        if (apart[r])
            multiply_by_vectors(layer, first, a + r * a_stride, a_stride, FLOAT32, n, z + r * layer->stride, begin, end);
    }
}

/* Copy rows of bytes into (groups, steps) tiles, zeros behind each row. So they are read once, one after the other, and
 * nothing is loaded from behind the last. */
static void copy_bytes(const uint8_t *x, ptrdiff_t inputs, int rows, char *to)
{
    const ptrdiff_t steps = steps_of(inputs, DIGIT_INPUTS), tail = inputs % DIGIT_INPUTS;
    for (int r = 0; r < rows; r++) {
        char *at = to + (r / TILE_ROWS * steps * TILE_ROWS + r % TILE_ROWS) * DIGIT_INPUTS;
        for (ptrdiff_t k = 0; k + DIGIT_INPUTS <= inputs; k += DIGIT_INPUTS, x += DIGIT_INPUTS, at += TILE_BYTES)
            memcpy(at, x, DIGIT_INPUTS);
        if (tail) {
            memset(at, 0, DIGIT_INPUTS);
            memcpy(at, x, (size_t)tail);
            x += tail;
        }
    }
}

/* z = the sums of each digit, (DIGITS, count), put together, for `count` columns from one on. */
INLINE void join_digits(const Layer *layer, const int32_t *sums, ptrdiff_t digit, ptrdiff_t column, const ptrdiff_t count,
                        float *z)
{
    UNROLL for (ptrdiff_t i = 0; i < count; i += LANES) {
        const vec smaller = to_float(sums + digit + i) * 256.0f + to_float(sums + 2 * digit + i);
        store(z + i, (to_float(sums + i) * 65536.0f + smaller) * load(layer->scales + column + i));
    }
}

/* Multiply groups of rows that have been copied by tiles of columns, and put the digits together. */
INLINE void multiply_bytes_block(const int groups, const int columns, const Layer *layer, const char *inputs, int rows,
                                 ptrdiff_t column, float *z)
{
    _Alignas(64) int32_t sums[DIGITS][PAIR * PAIR];
    const ptrdiff_t steps = steps_of(layer->inputs, DIGIT_INPUTS);
    const Inputs a = {inputs, steps * TILE_BYTES, TILE_BYTES};
    Weights W = {(const char *)layer->digits + column / TILE_ROWS * DIGITS * steps * TILE_BYTES, DIGITS * steps * TILE_BYTES,
                 TILE_BYTES};
    for (int d = 0; d < DIGITS; d++, W.at += steps * TILE_BYTES) {
        const Sums to = {(char *)sums[d], columns * 64, columns * TILE_BYTES};
        begin_sums(groups, columns, to, 1);
        add_products(DIGIT_OF_BYTES, groups, columns, a, W, steps);
        end_sums(groups, columns, to);
    }
    z += column;
    for (int r = 0; r < rows; r++, z += layer->stride)
        join_digits(layer, sums[0] + r * columns * TILE_ROWS, PAIR * PAIR, column, columns * TILE_ROWS, z);
}

/* Sixteen sums, of a column each, and the products of four inputs with their weights, (16, 4), added to them. */
#if defined(__AVX512VNNI__) && !defined(TILES_EMULATED)
typedef __m512i Dots;

INLINE Dots add_dots(Dots sums, const uint8_t *x, const int8_t *W)
{
    int32_t four;
    memcpy(&four, x, sizeof(four));
    return _mm512_dpbusd_epi32(sums, _mm512_set1_epi32(four), _mm512_load_si512(W));
}
#else
typedef struct {
    int32_t of[TILE_ROWS];
} Dots;

INLINE Dots add_dots(Dots sums, const uint8_t *x, const int8_t *W)
{
    for (int i = 0; i < 4 * TILE_ROWS; i++) sums.of[i / 4] += x[i % 4] * W[i];
    return sums;
}
#endif

/* Multiply the inputs at `count` places, four from each on, of a row of bytes by `tiles` times 16 columns. */
INLINE void multiply_bytes_by_vectors(const int tiles, const Layer *layer, const uint8_t *x, const uint16_t *index, int count,
                                      ptrdiff_t column, float *z)
{
    const ptrdiff_t digit = steps_of(layer->inputs, DIGIT_INPUTS) * TILE_BYTES;
    const int8_t *W = layer->digits + column / TILE_ROWS * DIGITS * digit;
    _Alignas(64) Dots sums[DIGITS][4] = {0};
    for (int k = 0; k < count; k++)
        UNROLL for (int i = 0; i < tiles; i++)
            UNROLL for (int d = 0; d < DIGITS; d++)
                sums[d][i] = add_dots(sums[d][i], x + index[k], W + (i * DIGITS + d) * digit + 16 * index[k]);
    join_digits(layer, (const int32_t *)sums, 4 * TILE_ROWS, column, tiles * TILE_ROWS, z + column);
}

/* Multiply one row of bytes without tiles, by the inputs that are not zero. The sums are exact, so that they are those
 * of tiles. */
static void multiply_row_of_bytes(const Layer *layer, const uint8_t *x, TileWorkspace *workspace, float *z, ptrdiff_t begin,
                                  ptrdiff_t end)
{
    const ptrdiff_t inputs = layer->inputs, padded = steps_of(inputs, DIGIT_INPUTS) * DIGIT_INPUTS;
    uint8_t *const row = (uint8_t *)workspace->inputs;
    uint16_t *const index = (uint16_t *)(row + padded);
    int count = 0;
    memset(row + padded - DIGIT_INPUTS, 0, DIGIT_INPUTS);
    memcpy(row, x, (size_t)inputs);
    for (ptrdiff_t k = 0; k < padded; k += DIGIT_INPUTS) {
        uint64_t bits = nonzero(row + k, UINT8);
        bits |= bits >> 1;
        bits = (bits | bits >> 2) & 0x1111111111111111;
        indices(bits, (int)k, index + count);
        count += __builtin_popcountll(bits);
    }
    for (ptrdiff_t column = begin, tiles; column < end; column += tiles * TILE_ROWS) {
        tiles = at_most((end - column) / TILE_ROWS, 4);
#define CASE(tiles) case tiles: multiply_bytes_by_vectors(tiles, layer, row, index, count, column, z); break;
        switch (tiles) { CASE(1) CASE(2) CASE(3) CASE(4) }
#undef CASE
    }
}

/* z (rows, stride) = x (rows, inputs) @ W for rows of bytes, columns `begin` to `end`. */
static void multiply_by_digits(const Layer *layer, const uint8_t *x, int rows, TileWorkspace *workspace, float *z,
                               ptrdiff_t begin, ptrdiff_t end)
{
    const ptrdiff_t group = steps_of(layer->inputs, DIGIT_INPUTS) * TILE_BYTES;
    for (int done = 0, now; done < rows; done += now, z += now * layer->stride) {
        now = (int)at_most(rows - done, PAIR);
        if (now < FEW_ROWS) {
            now = 1;
            multiply_row_of_bytes(layer, x + done * layer->inputs, workspace, z, begin, end);
            continue;
        }
        copy_bytes(x + done * layer->inputs, layer->inputs, now, workspace->inputs);
#define KERNEL(groups, columns, row, column) \
    multiply_bytes_block(groups, columns, layer, workspace->inputs + (row) / TILE_ROWS * group, \
                         (int)at_most(now - (row), groups * TILE_ROWS), column, z + (row) * layer->stride)
        EACH_BLOCK(now, begin, end, KERNEL);
#undef KERNEL
    }
}
