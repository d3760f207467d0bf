/* Evaluates rows of inputs to labels or logits. Written for vectors of any width, and included by the file of
 * each instruction set.
 *
 * Every value is a sum over its inputs in their order, in one accumulator: skipped zeros and the number of rows
 * that are computed together change the speed and never a bit (but the sign of a zero). */

#include <string.h>

#include "network.h"
#include "simd.h"

enum { WORTH_COUNTING = 64 }; /* inputs below which zeros are not looked for */

INLINE ptrdiff_t at_most(ptrdiff_t count, ptrdiff_t most) { return count < most ? count : most; }

/* Return W of the panel of `n` vectors that begins at a column, from an input on. */
INLINE const float *panel_of(const Layer *layer, ptrdiff_t column, ptrdiff_t n, ptrdiff_t input)
{
    return layer->W + column * layer->inputs + input * n * LANES;
}

/* -- dense: z[r] += a[r] @ W ---------------------------------------------------------------------- */

/* The micro-kernel: `rows` x `n` vectors of sums stay in registers over `inputs` inputs. The sums start at zero
 * if `first`. */
INLINE void micro_kernel(const int rows, const int n, const float *const *a, ptrdiff_t from, ptrdiff_t inputs,
                         const float *W, float *const *z, ptrdiff_t column, int first)
{
    vec sum[MR][NR];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int i = 0; i < n; i++) sum[r][i] = first ? (vec){0} : load(z[r] + column + i * LANES);
    for (ptrdiff_t k = from; k < from + inputs; k++, W += n * LANES) {
        vec w[NR];
        UNROLL for (int i = 0; i < n; i++) w[i] = load(W + i * LANES);
        UNROLL for (int r = 0; r < rows; r++)
            UNROLL for (int i = 0; i < n; i++) sum[r][i] += a[r][k] * w[i];
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int i = 0; i < n; i++) store(z[r] + column + i * LANES, sum[r][i]);
}

INLINE void micro_kernel_of(const int rows, ptrdiff_t n, const float *const *a, ptrdiff_t from, ptrdiff_t inputs,
                            const float *W, float *const *z, ptrdiff_t column, int first)
{
#define CASE(n) case n: if (n <= NR) micro_kernel(rows, n, a, from, inputs, W, z, column, first); break;
    switch (n) { CASE(1) CASE(2) CASE(3) CASE(4) }
#undef CASE
}

/* Multiply inputs `from` to `to` of any number of rows by the panel of `n` vectors that begins at a column. KC
 * inputs at a time, so that all rows find this block of the panel in L1. The sums start at zero where `from`
 * is 0. */
static void multiply_panel(const Layer *layer, ptrdiff_t column, ptrdiff_t n, ptrdiff_t from, ptrdiff_t to,
                           int rows, const float *const *a, float *const *z, ptrdiff_t offset)
{
    ptrdiff_t blocks = (to - from + layer->KC - 1) / layer->KC, inputs = (to - from + blocks - 1) / blocks;
    for (ptrdiff_t k = from; k < to; k += inputs) {
        const float *W = panel_of(layer, column, n, k);
        for (int r = 0; r < rows; r += MR) {
#define CASE(rows) case rows: \
    micro_kernel_of(rows, n, a + r, k - offset, at_most(to - k, inputs), W, z + r, column, k == 0); break;
            switch (at_most(rows - r, MR)) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) }
#undef CASE
        }
    }
}

/* Multiply by the panels of columns `begin` to `end`; a[r][0] is input `from`. */
static void multiply_dense(const Layer *layer, ptrdiff_t from, ptrdiff_t to, int rows, const float *const *a,
                           float *const *z, ptrdiff_t begin, ptrdiff_t end)
{
    for (ptrdiff_t at = begin, n; at < end; at += n * LANES) {
        n = next_panel((layer->stride - at) / LANES, NR);
        multiply_panel(layer, at, n, from, to, rows, a, z, from);
    }
}

/* -- sparse: the same without the zeros of a -------------------------------------------------------- */

/* A chunk of one row, and which of its inputs are not zero. */
typedef struct {
    const void *x;
    float *z;
    int count;
    uint64_t bits[MAX_CHUNK / 64];
} Row;

INLINE void find_nonzero(Row *row, const Dtype dtype, int inputs)
{
    const void *x = row->x;
    int words = inputs / 64, rest = inputs % 64;
    row->count = 0;
    for (int i = 0; i < words; i++) row->bits[i] = nonzero(element(x, dtype, 64 * i), dtype);
    if (rest) { /* without a look behind the last row */
        float tail[64] = {0};
        memcpy(tail, element(x, dtype, 64 * words), (size_t)rest * size_of(dtype));
        row->bits[words] = nonzero(tail, dtype);
    }
    for (int i = 0; i < words + (rest > 0); i++) row->count += __builtin_popcountll(row->bits[i]);
}

/* These were tried for every width, and are what the cases below are written for. */
_Static_assert(MR == 6 && ((NR == 2 && (SPARSE_VECTORS == 4 || SPARSE_VECTORS == 8)) ||
                                  (NR == 4 && SPARSE_VECTORS == 8)), "panels that fit together");

/* The `n` vectors of some panels that begin at a column; all of these but the last are as wide as the first. */
INLINE void add_sparse(const int rows, const int n, const uint16_t *index, float (*value)[MAX_CHUNK], int count,
                       const Layer *layer, ptrdiff_t column, ptrdiff_t input, float *const *z)
{
    const int most = (int)next_panel(n, NR);
    vec sum[SPARSE_ROWS][SPARSE_VECTORS];
    const float *W[SPARSE_VECTORS];
    UNROLL for (int i = 0; i < n; i++)
        W[i / most] = panel_of(layer, column + i / most * most * LANES, at_most(n - i / most * most, most), input);
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int i = 0; i < n; i++) sum[r][i] = load(z[r] + i * LANES);
    for (int k = 0; k < count; k++)
        UNROLL for (int i = 0; i < n; i++) {
            const ptrdiff_t width = at_most(n - i / most * most, most) * LANES;
            const float *w = W[i / most] + index[k] * width + i % most * LANES;
            UNROLL for (int r = 0; r < rows; r++) sum[r][i] += value[r][k] * load(w);
        }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int i = 0; i < n; i++) store(z[r] + i * LANES, sum[r][i]);
}

/* One row or SPARSE_ROWS, with the inputs that are not zero in all of them: images have much of their
 * ground in common, and it is reading W from the second-level cache that takes the time. */
INLINE void multiply_sparse(const int rows, const Row *row, const Dtype dtype, const Layer *layer,
                            ptrdiff_t from, int inputs, ptrdiff_t begin, ptrdiff_t end)
{
    uint16_t index[MAX_CHUNK];
    float value[SPARSE_ROWS][MAX_CHUNK];
    int count = 0;
    for (int i = 0; 64 * i < inputs; i++) {
        uint64_t bits = row[0].bits[i];
        UNROLL for (int r = 1; r < rows; r++) bits |= row[r].bits[i];
        int found = __builtin_popcountll(bits);
        indices(bits, 64 * i, index + count);
        UNROLL for (int r = 0; r < rows; r++)
            take(row[r].x, dtype, bits, 64 * i, index + count, found, value[r] + count);
        count += found;
    }
    for (ptrdiff_t at = begin, n; at < end; at += n * LANES) {
        n = 0;
        for (ptrdiff_t more; at + n * LANES < end; n += more) {
            more = next_panel((layer->stride - at) / LANES - n, NR);
            if (n + more > SPARSE_VECTORS) break;
        }
        float *z[SPARSE_ROWS];
        UNROLL for (int r = 0; r < rows; r++) z[r] = row[r].z + at;
#define CASE(n) \
    case n: if (n <= SPARSE_VECTORS) add_sparse(rows, n, index, value, count, layer, at, from, z); break;
        switch (n) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) }
#undef CASE
    }
}

/* -- layers --------------------------------------------------------------------------------------- */

/* z (rows, stride) = x (rows, inputs) @ W, columns `begin` to `end`, each row dense or sparse by its own count of
 * zeros. */
INLINE void first_layer(const Layer *layer, const void *x, const Dtype dtype, int rows, float *z, ptrdiff_t begin,
                        ptrdiff_t end)
{
    _Alignas(ALIGNMENT) float cast[MR][MAX_CHUNK];
    const float *dense[MAX_ROWS];
    float *to[MAX_ROWS];
    /* Rows of bytes need room for what they are cast to. */
    const int most_dense = dtype == UINT8 ? MR : MAX_ROWS;
    if (layer->inputs >= WORTH_COUNTING)
        for (int r = 0; r < rows; r++) memset(z + r * layer->stride + begin, 0, (size_t)(end - begin) * sizeof(float));
    for (ptrdiff_t from = 0; from < layer->inputs; from += layer->chunk) {
        int inputs = (int)at_most(layer->inputs - from, layer->chunk);
        Row sparse[SPARSE_ROWS];
        int n_dense = 0, n_sparse = 0;
        for (int r = 0; r < rows; r++) {
            Row *row = &sparse[n_sparse];
            row->z = z + r * layer->stride;
            row->x = element(x, dtype, r * layer->inputs + from);
            if (inputs >= WORTH_COUNTING) find_nonzero(row, dtype, inputs);
            if (inputs >= WORTH_COUNTING && 2 * row->count <= inputs) {
                if (++n_sparse == SPARSE_ROWS) {
                    multiply_sparse(SPARSE_ROWS, sparse, dtype, layer, from, inputs, begin, end);
                    n_sparse = 0;
                }
                continue;
            }
            to[n_dense] = row->z;
            dense[n_dense] = row->x;
            if (dtype == UINT8) {
                for (int k = 0; k < inputs; k++) cast[n_dense][k] = ((const uint8_t *)row->x)[k];
                dense[n_dense] = cast[n_dense];
            }
            if (++n_dense == most_dense) {
                multiply_dense(layer, from, from + inputs, n_dense, dense, to, begin, end);
                n_dense = 0;
            }
        }
        for (int r = 0; r < n_sparse; r++) multiply_sparse(1, sparse + r, dtype, layer, from, inputs, begin, end);
        if (n_dense) multiply_dense(layer, from, from + inputs, n_dense, dense, to, begin, end);
    }
}

/* z (rows, stride) = a (rows, a_stride) @ W, columns `begin` to `end`. */
static void next_layer(const Layer *layer, const float *a, ptrdiff_t a_stride, int rows, float *z, ptrdiff_t begin,
                       ptrdiff_t end)
{
    const float *from[MAX_ROWS];
    float *to[MAX_ROWS];
    for (int r = 0; r < rows; r++) {
        from[r] = a + r * a_stride;
        to[r] = z + r * layer->stride;
    }
    multiply_dense(layer, 0, layer->inputs, rows, from, to, begin, end);
}

/* z (rows, stride) = a (rows, a_stride) @ W, columns `begin` to `end`, which are whole panels. */
static void multiply_by_vectors(const Layer *layer, int first, const void *a, ptrdiff_t a_stride, Dtype dtype, int rows,
                                float *z, ptrdiff_t begin, ptrdiff_t end)
{
    if (!first)
        next_layer(layer, a, a_stride, rows, z, begin, end);
    else if (dtype == UINT8)
        first_layer(layer, a, UINT8, rows, z, begin, end);
    else
        first_layer(layer, a, FLOAT32, rows, z, begin, end);
}

#if defined(TILES)
#include "tiles-inl.h"
enum { UNIT = PAIR };
#else
enum { UNIT = MR };
#endif

/* tanh(x) = x P(x^2) / Q(x^2), a minimax fit of relative error 2.2e-8 over |x| <= 9.02, where tanh is 1 in
 * float32. All terms have one sign, so that none cancels. NaN stays NaN. */
INLINE vec tanh_of(vec x)
{
    const vec most = (vec){0} + 9.02f;
    x = where(x > most, most, where(x < -most, -most, x));
    vec y = x * x;
    vec p = y * 1.33229841177e-8f + 2.0586597994e-5f;
    p = p * y + 3.49423622111e-3f;
    p = p * y + 0.1337989185f;
    p = p * y + 0.999999979706f;
    vec q = y * 7.76370821605e-7f + 3.2834140722e-4f;
    q = q * y + 2.58718529999e-2f;
    q = q * y + 0.467132073687f;
    q = q * y + 1.0f;
    return divide(x * p, q);
}

/* z = h(z + b) of `width` columns from one on. The bias comes last: where it is large, folded from the layer
 * before, to start a sum with it would cost every partial sum its precision. */
INLINE void finish(const Layer *layer, const Activation activation, ptrdiff_t column, ptrdiff_t width, int rows,
                   float *z)
{
    const vec zero = {0};
    z += column;
    for (int r = 0; r < rows; r++, z += layer->stride)
        for (ptrdiff_t i = 0; i < width; i += LANES) {
            vec v = load(z + i) + load(layer->b + column + i);
            if (activation == TANH) v = tanh_of(v);
            if (activation == RELU) v = relu(v);
            if (activation == LEAKY_RELU) v = where(v > zero, v, v * layer->slope);
            store(z + i, v);
        }
}

static void add_bias_and_activate(const Layer *layer, ptrdiff_t column, ptrdiff_t width, int rows, float *z)
{
#define CASE(activation) case activation: finish(layer, activation, column, width, rows, z); break;
    switch (layer->activation) { CASE(IDENTITY) CASE(RELU) CASE(LEAKY_RELU) CASE(TANH) }
#undef CASE
}

/* Return the index of the largest value, the lowest of a tie; of the first NaN where there is one. */
static int64_t argmax(const float *z, ptrdiff_t n)
{
#if defined(__AVX512F__)
    if (n <= LANES) return argmax_of_vector(z, (int)n);
#endif
    ptrdiff_t best = 0;
    for (ptrdiff_t i = 1; i < n; i++)
        if (!(z[i] <= z[best]) && z[best] == z[best]) best = i;
    return best;
}

/* -- rows ----------------------------------------------------------------------------------------- */

/* Compute columns `begin` to `end` of a layer for a block of rows: z (rows, stride) = h(a @ W + b), where a is x for the
 * first layer. `fresh` says that this thread has not computed other columns of this layer for these rows. */
static void evaluate_columns(const Network *network, ptrdiff_t number, const void *a, Dtype dtype, int rows, float *z,
                             void *tiles, ptrdiff_t begin, ptrdiff_t end, int fresh)
{
    const Layer *layer = network->layers + number;
    const ptrdiff_t a_stride = number ? layer[-1].stride : layer->inputs;
#if defined(TILES)
    if (dtype == FLOAT32 && layer->parts)
        multiply_by_parts(layer, number == 0, a, a_stride, rows, tiles, z, begin, end, fresh);
    else if (dtype == UINT8 && layer->digits)
        multiply_by_digits(layer, a, rows, tiles, z, begin, end);
    else
#endif
        multiply_by_vectors(layer, number == 0, a, a_stride, dtype, rows, z, begin, end);
    (void)tiles, (void)fresh;
    add_bias_and_activate(layer, begin, end - begin, rows, z);
}

/* Write labels or logits from the last layer's values. */
static void write_output(const Network *network, const float *z, int rows, Output out)
{
    const Layer *layer = network->layers + network->count - 1;
    for (int r = 0; r < rows; r++, z += layer->stride) {
        if (out.logits)
            memcpy(out.logits + r * layer->outputs, z, (size_t)layer->outputs * sizeof(float));
        else
            out.labels[r] = layer->outputs == 1 ? z[0] > network->cut : argmax(z, layer->outputs);
    }
}

static void evaluate(const Call *call, float *workspace)
{
    const Network *network = call->network;
    float *const buffers[2] = {workspace, workspace + network->rows * network->widest};
    void *const tiles = workspace + 2 * network->rows * network->widest;
    for (ptrdiff_t done = 0, rows; done < call->rows; done += rows) {
        rows = next_block(call, done, UNIT);
        const void *a = element(call->x, call->dtype, done * network->layers[0].inputs);
        Dtype dtype = call->dtype;
        for (ptrdiff_t i = 0; i < network->count; i++) {
            float *z = buffers[i % 2];
            evaluate_columns(network, i, a, dtype, (int)rows, z, tiles, 0, network->layers[i].stride, 1);
            a = z;
            dtype = FLOAT32;
        }
        write_output(network, a, (int)rows, output_from(call, done));
    }
}
