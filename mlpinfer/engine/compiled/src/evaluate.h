/* Rows to labels or logits, written for vectors of any width; included by the file of each instruction set.
 *
 * Every value is a sum over its inputs in their order, in one accumulator: whether zeros were skipped,
 * and how many rows were computed together, changes speed and never a bit (but the sign of a zero). */

#include <string.h>

#include "network.h"
#include "simd.h"

enum {
    CHUNK = 1024, /* inputs taken at a time, at most: bounds buffers, and what a panel has of W */
    CHUNK_FLOATS = 65536, /* of W that the first layer takes, for all rows to find in the second-level cache,
                             or what 64 inputs have */
    WORTH_COUNTING = 64, /* inputs below which all are taken for not zero */
};

INLINE ptrdiff_t at_most(ptrdiff_t count, ptrdiff_t most) { return count < most ? count : most; }

/* W of the panel of `n` vectors that begins at a column, from an input on. */
INLINE const float *panel_of(const Layer *layer, ptrdiff_t column, ptrdiff_t n, ptrdiff_t input)
{
    return layer->W + column * layer->inputs + input * n * LANES;
}

/* -- dense: z[r] += a[r] @ W ---------------------------------------------------------------------- */

INLINE void add_dense(const int rows, const int n, const float *const *a, ptrdiff_t inputs, const float *W,
                      float *const *z, ptrdiff_t column)
{
    vec sum[MOST_ROWS][MOST_VECTORS];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int i = 0; i < n; i++) sum[r][i] = load(z[r] + column + i * LANES);
    for (ptrdiff_t k = 0; k < inputs; k++, W += n * LANES) {
        vec w[MOST_VECTORS];
        UNROLL for (int i = 0; i < n; i++) w[i] = load(W + i * LANES);
        UNROLL for (int r = 0; r < rows; r++)
            UNROLL for (int i = 0; i < n; i++) sum[r][i] += a[r][k] * w[i];
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int i = 0; i < n; i++) store(z[r] + column + i * LANES, sum[r][i]);
}

INLINE void dense_panel(const int rows, ptrdiff_t n, const float *const *a, ptrdiff_t inputs, const float *W,
                        float *const *z, ptrdiff_t column)
{
#define CASE(n) case n: if (n <= MOST_VECTORS) add_dense(rows, n, a, inputs, W, z, column); break;
    switch (n) { CASE(1) CASE(2) CASE(3) CASE(4) }
#undef CASE
}

/* Of up to MOST_ROWS rows, wherever they are: `inputs` inputs of a layer from one on, and the panel of `n`
 * vectors that begins at a column. */
static void multiply_panel(const Layer *layer, ptrdiff_t column, ptrdiff_t n, ptrdiff_t from, ptrdiff_t inputs,
                           int rows, const float *const *a, float *const *z)
{
    const float *W = panel_of(layer, column, n, from);
#define CASE(rows) case rows: dense_panel(rows, n, a, inputs, W, z, column); break;
    switch (rows) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) }
#undef CASE
}

/* The same for any number of rows, panel by panel: what a panel has of W stays in the second-level cache. */
static void multiply_dense(const Layer *layer, ptrdiff_t from, ptrdiff_t inputs, int rows, const float *const *a,
                           float *const *z)
{
    for (ptrdiff_t at = 0, n; at < layer->stride; at += n * LANES) {
        n = next_panel((layer->stride - at) / LANES, MOST_VECTORS);
        for (int r = 0; r < rows; r += MOST_ROWS)
            multiply_panel(layer, at, n, from, inputs, (int)at_most(rows - r, MOST_ROWS), a + r, z + r);
    }
}

/* -- sparse: the same without the zeros of a -------------------------------------------------------- */

/* A chunk of one row, and which of its inputs are not zero. */
typedef struct {
    const void *x;
    float *z;
    int count;
    uint64_t bits[CHUNK / 64];
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
_Static_assert(MOST_ROWS == 6 && ((MOST_VECTORS == 2 && (SPARSE_VECTORS == 4 || SPARSE_VECTORS == 8)) ||
                                  (MOST_VECTORS == 4 && SPARSE_VECTORS == 8)), "panels that fit together");

/* The `n` vectors of some panels that begin at a column; all of these but the last are as wide as the first. */
INLINE void add_sparse(const int rows, const int n, const uint16_t *index, float (*value)[CHUNK], int count,
                       const Layer *layer, ptrdiff_t column, ptrdiff_t input, float *const *z)
{
    const int most = (int)next_panel(n, MOST_VECTORS);
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
                            ptrdiff_t from, int inputs)
{
    uint16_t index[CHUNK];
    float value[SPARSE_ROWS][CHUNK];
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
    for (ptrdiff_t at = 0, n; at < layer->stride; at += n * LANES) {
        n = 0;
        for (ptrdiff_t left = (layer->stride - at) / LANES, more; left; n += more, left -= more) {
            more = next_panel(left, MOST_VECTORS);
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

/* z (rows, stride) = x (rows, inputs) @ W, each row dense or sparse by its own count of zeros. */
INLINE void first_layer(const Layer *layer, const void *x, const Dtype dtype, int rows, float *z)
{
    _Alignas(ALIGNMENT) float cast[MOST_ROWS][CHUNK];
    memset(z, 0, (size_t)(rows * layer->stride) * sizeof(float));
    ptrdiff_t chunk = CHUNK_FLOATS / layer->stride / 64 * 64;
    chunk = chunk < 64 ? 64 : at_most(chunk, CHUNK);
    for (ptrdiff_t from = 0; from < layer->inputs; from += chunk) {
        int inputs = (int)(layer->inputs - from < chunk ? layer->inputs - from : chunk);
        const float *dense[MOST_ROWS] = {0};
        float *to[MOST_ROWS] = {0};
        Row sparse[SPARSE_ROWS];
        int n_dense = 0, n_sparse = 0;
        for (int r = 0; r < rows; r++) {
            Row *row = &sparse[n_sparse];
            row->z = z + r * layer->stride;
            row->x = element(x, dtype, r * layer->inputs + from);
            if (inputs >= WORTH_COUNTING) find_nonzero(row, dtype, inputs);
            if (inputs >= WORTH_COUNTING && 2 * row->count <= inputs) {
                if (++n_sparse == SPARSE_ROWS) {
                    multiply_sparse(SPARSE_ROWS, sparse, dtype, layer, from, inputs);
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
            if (++n_dense == MOST_ROWS) {
                multiply_dense(layer, from, inputs, MOST_ROWS, dense, to);
                n_dense = 0;
            }
        }
        for (int r = 0; r < n_sparse; r++) multiply_sparse(1, sparse + r, dtype, layer, from, inputs);
        if (n_dense) multiply_dense(layer, from, inputs, n_dense, dense, to);
    }
}

/* z (rows, stride) = a (rows, a_stride) @ W. */
static void next_layer(const Layer *layer, const float *a, ptrdiff_t a_stride, int rows, float *z)
{
    memset(z, 0, (size_t)(rows * layer->stride) * sizeof(float));
    for (ptrdiff_t from = 0; from < layer->inputs; from += CHUNK) {
        const float *values[ROWS];
        float *to[ROWS];
        for (int r = 0; r < rows; r++) {
            values[r] = a + r * a_stride + from;
            to[r] = z + r * layer->stride;
        }
        multiply_dense(layer, from, at_most(layer->inputs - from, CHUNK), rows, values, to);
    }
}

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
    return x * p / q;
}

/* z = h(z + b). The bias comes last: where it is large, folded from the layer before, to start a sum with
 * it would cost every partial sum its precision. */
INLINE void finish(const Layer *layer, const Activation activation, int rows, float *z)
{
    const vec zero = {0};
    for (int r = 0; r < rows; r++)
        for (ptrdiff_t i = 0; i < layer->stride; i += LANES, z += LANES) {
            vec v = load(z) + load(layer->b + i);
            if (activation == TANH) v = tanh_of(v);
            if (activation == RELU) v = where(v < zero, zero, v); /* NaN stays NaN */
            if (activation == LEAKY_RELU) v = where(v > zero, v, v * layer->slope);
            store(z, v);
        }
}

static void add_bias_and_activate(const Layer *layer, int rows, float *z)
{
#define CASE(activation) case activation: finish(layer, activation, rows, z); break;
    switch (layer->activation) { CASE(IDENTITY) CASE(RELU) CASE(LEAKY_RELU) CASE(TANH) }
#undef CASE
}

/* The index of the largest value, the lowest of a tie; of the first NaN where there is one. */
static int64_t argmax(const float *z, ptrdiff_t n)
{
    ptrdiff_t best = 0;
    for (ptrdiff_t i = 1; i < n; i++)
        if (!(z[i] <= z[best]) && z[best] == z[best]) best = i;
    return best;
}

/* -- rows ----------------------------------------------------------------------------------------- */

/* Up to ROWS rows of one batch. */
static void evaluate_some(const Network *network, const void *x, const Dtype dtype, int rows, float *workspace,
                          Output out)
{
    const Layer *layer = network->layers;
    float *const buffers[2] = {workspace, workspace + ROWS * network->widest}, *z = buffers[0];
    if (dtype == UINT8)
        first_layer(layer, x, UINT8, rows, z);
    else
        first_layer(layer, x, FLOAT32, rows, z);
    add_bias_and_activate(layer, rows, z);
    for (ptrdiff_t i = 1; i < network->count; i++) {
        float *a = z;
        z = buffers[i % 2];
        next_layer(layer + 1, a, layer->stride, rows, z);
        add_bias_and_activate(++layer, rows, z);
    }
    for (int r = 0; r < rows; r++, z += layer->stride) {
        if (out.logits)
            memcpy(out.logits + r * layer->outputs, z, (size_t)layer->outputs * sizeof(float));
        else
            out.labels[r] = layer->outputs == 1 ? z[0] > network->cut : argmax(z, layer->outputs);
    }
}

static void evaluate(const Network *network, const void *x, Dtype dtype, ptrdiff_t rows, ptrdiff_t batch_size,
                     float *workspace, Output out)
{
    ptrdiff_t inputs = network->layers[0].inputs, outputs = network->layers[network->count - 1].outputs;
    for (ptrdiff_t done = 0, n; done < rows; done += n) {
        ptrdiff_t batch = batch_size - done % batch_size;
        n = batch < ROWS ? batch : ROWS;
        if (n > rows - done) n = rows - done;
        Output here = {out.labels ? out.labels + done : NULL, out.logits ? out.logits + done * outputs : NULL};
        evaluate_some(network, element(x, dtype, done * inputs), dtype, (int)n, workspace, here);
    }
}
