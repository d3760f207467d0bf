/* Rows to labels or logits, written for vectors of any width; included by the file of each instruction set.
 *
 * Every value is a sum over its inputs in their order, in one accumulator: whether zeros were skipped,
 * and how many rows were computed together, changes speed and never a bit (but the sign of a zero). */

#include <string.h>

#include "network.h"
#include "simd.h"

enum {
    ROWS = 24,    /* computed together, at most: what they share is read from the cache once */
    CHUNK = 1024, /* inputs of the first layer taken at a time, at most: bounds the buffers */
    CHUNK_FLOATS = 65536, /* and what they have of W, so that all rows find it in the second-level cache */
    WORTH_COUNTING = 64, /* inputs below which all are taken for not zero */
};

/* How many vectors to take next: as many as there are registers for, or fewer, to leave even parts. */
INLINE ptrdiff_t panel(ptrdiff_t vectors, ptrdiff_t most)
{
    ptrdiff_t panels = (vectors + most - 1) / most;
    return (vectors + panels - 1) / panels;
}

/* -- dense: z[r] += a[r] @ W ---------------------------------------------------------------------- */

INLINE void add_dense(const int rows, const int n, const float *const *a, ptrdiff_t inputs, const float *W,
                      ptrdiff_t stride, float *const *z)
{
    vec sum[MOST_ROWS][MOST_VECTORS];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int i = 0; i < n; i++) sum[r][i] = load(z[r] + i * LANES);
    for (ptrdiff_t k = 0; k < inputs; k++, W += stride) {
        vec w[MOST_VECTORS];
        UNROLL for (int i = 0; i < n; i++) w[i] = load(W + i * LANES);
        UNROLL for (int r = 0; r < rows; r++)
            UNROLL for (int i = 0; i < n; i++) sum[r][i] += a[r][k] * w[i];
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int i = 0; i < n; i++) store(z[r] + i * LANES, sum[r][i]);
}

INLINE void dense_panel(const int rows, ptrdiff_t n, const float *const *a, ptrdiff_t inputs, const float *W,
                        ptrdiff_t stride, float *const *z)
{
#define CASE(n) case n: if (n <= MOST_VECTORS) add_dense(rows, n, a, inputs, W, stride, z); break;
    switch (n) { CASE(1) CASE(2) CASE(3) CASE(4) }
#undef CASE
}

/* Up to MOST_ROWS rows of `inputs` values, wherever they are. */
static void multiply_dense(int rows, const float *const *a, ptrdiff_t inputs, const float *W,
                           ptrdiff_t stride, float *const *z)
{
    for (ptrdiff_t at = 0, n; at < stride; at += n * LANES) {
        n = panel((stride - at) / LANES, MOST_VECTORS);
        float *to[MOST_ROWS] = {0};
        for (int r = 0; r < rows; r++) to[r] = z[r] + at;
#define CASE(rows) case rows: dense_panel(rows, n, a, inputs, W + at, stride, to); break;
        switch (rows) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) }
#undef CASE
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

INLINE void add_sparse(const int rows, const int n, const uint16_t *index, float (*value)[CHUNK],
                       int count, const float *W, ptrdiff_t stride, float *const *z)
{
    vec sum[SPARSE_ROWS][SPARSE_VECTORS];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int i = 0; i < n; i++) sum[r][i] = load(z[r] + i * LANES);
    for (int k = 0; k < count; k++) {
        const float *w = W + index[k] * stride;
        UNROLL for (int i = 0; i < n; i++)
            UNROLL for (int r = 0; r < rows; r++) sum[r][i] += value[r][k] * load(w + i * LANES);
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int i = 0; i < n; i++) store(z[r] + i * LANES, sum[r][i]);
}

/* One row or SPARSE_ROWS, with the inputs that are not zero in all of them: images have much of their
 * ground in common, and it is reading W from the second-level cache that takes the time. */
INLINE void multiply_sparse(const int rows, const Row *row, const Dtype dtype, int inputs, const float *W,
                            ptrdiff_t stride)
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
    for (ptrdiff_t at = 0, n; at < stride; at += n * LANES) {
        n = panel((stride - at) / LANES, SPARSE_VECTORS);
        float *z[SPARSE_ROWS];
        UNROLL for (int r = 0; r < rows; r++) z[r] = row[r].z + at;
#define CASE(n) \
    case n: if (n <= SPARSE_VECTORS) add_sparse(rows, n, index, value, count, W + at, stride, z); break;
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
    ptrdiff_t chunk = CHUNK_FLOATS / layer->stride / 64 * 64; /* 256 for the widest layer */
    if (chunk > CHUNK) chunk = CHUNK;
    for (ptrdiff_t from = 0; from < layer->inputs; from += chunk) {
        int inputs = (int)(layer->inputs - from < chunk ? layer->inputs - from : chunk);
        const float *W = layer->W + from * layer->stride, *dense[MOST_ROWS] = {0};
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
                    multiply_sparse(SPARSE_ROWS, sparse, dtype, inputs, W, layer->stride);
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
                multiply_dense(MOST_ROWS, dense, inputs, W, layer->stride, to);
                n_dense = 0;
            }
        }
        for (int r = 0; r < n_sparse; r++) multiply_sparse(1, sparse + r, dtype, inputs, W, layer->stride);
        if (n_dense) multiply_dense(n_dense, dense, inputs, W, layer->stride, to);
    }
}

/* z (rows, stride) = a (rows, a_stride) @ W. */
static void next_layer(const Layer *layer, const float *a, ptrdiff_t a_stride, int rows, float *z)
{
    memset(z, 0, (size_t)(rows * layer->stride) * sizeof(float));
    for (int done = 0, n; done < rows; done += n) {
        n = rows - done < MOST_ROWS ? rows - done : MOST_ROWS;
        const float *from[MOST_ROWS] = {0};
        float *to[MOST_ROWS] = {0};
        for (int r = 0; r < n; r++) {
            from[r] = a + (done + r) * a_stride;
            to[r] = z + (done + r) * layer->stride;
        }
        multiply_dense(n, from, layer->inputs, layer->W, layer->stride, to);
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
static void evaluate_some(const Network *network, const void *x, const Dtype dtype, int rows, Output out)
{
    _Alignas(ALIGNMENT) float buffers[2][ROWS * MAX_WIDTH];
    const Layer *layer = network->layers;
    float *z = buffers[0];
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
                     Output out)
{
    ptrdiff_t inputs = network->layers[0].inputs, outputs = network->layers[network->count - 1].outputs;
    for (ptrdiff_t done = 0, n; done < rows; done += n) {
        ptrdiff_t batch = batch_size - done % batch_size;
        n = batch < ROWS ? batch : ROWS;
        if (n > rows - done) n = rows - done;
        Output here = {out.labels ? out.labels + done : NULL, out.logits ? out.logits + done * outputs : NULL};
        evaluate_some(network, element(x, dtype, done * inputs), dtype, (int)n, here);
    }
}
