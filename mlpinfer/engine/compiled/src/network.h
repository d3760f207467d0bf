/* A folded network in memory, and who evaluates it: one `InstructionSet` each. */
#ifndef MLPINFER_NETWORK_H
#define MLPINFER_NETWORK_H

#include <stddef.h>
#include <stdint.h>

enum {
    MAX_WIDTH = 4096, /* outputs of a layer */
    MAX_ROWS = 240,   /* of a block that goes through all layers together: what they share of W is read once */
    MAX_CHUNK = 1024, /* inputs of the first layer that are taken at a time */
    ALIGNMENT = 64,   /* bytes: the longest vector, and a cache line */
};

typedef enum { IDENTITY, RELU, LEAKY_RELU, TANH } Activation;

typedef struct {
    ptrdiff_t inputs, outputs;
    ptrdiff_t stride; /* floats from one row of results to the next: outputs, rounded up to whole vectors */
    Activation activation;
    float slope;    /* of leaky ReLU */
    ptrdiff_t KC;    /* inputs that are multiplied at a time: a block of a panel, KC x NR vectors, stays in L1 */
    ptrdiff_t chunk; /* inputs of the first layer that are taken at a time: chunk x stride of W stays in L2 */
    const float *W; /* panels of columns, one behind the other, each (inputs, panel); zero behind the outputs */
    const float *b; /* (stride,), likewise */
    /* Tiles of W, NULL where there are none: parts for inputs of float32, digits and the columns' scales for bytes. */
    const uint16_t *parts;
    const int8_t *digits;
    const float *scales;
    void *tiles; /* what holds them */
} Layer;

typedef struct {
    ptrdiff_t count;
    ptrdiff_t widest; /* stride */
    ptrdiff_t rows;   /* of a block: their values stay in L2 */
    ptrdiff_t tile_workspace; /* bytes for a block of rows in tiles */
    const Layer *layers;
    float cut; /* with one output: the logit above which the label is 1 */
} Network;

typedef enum { UINT8, FLOAT32 } Dtype;

/* How many vectors the next panel has, of those that are left: as even parts as they can be. */
static inline ptrdiff_t next_panel(ptrdiff_t vectors, ptrdiff_t most)
{
    ptrdiff_t panels = (vectors + most - 1) / most;
    return (vectors + panels - 1) / panels;
}

/* Where results go, one of two: labels (rows,) or logits (rows, outputs). The other is NULL. */
typedef struct {
    int64_t *labels;
    float *logits;
} Output;

/* Contiguous rows to evaluate, no two batches together. */
typedef struct {
    const Network *network;
    const void *x;
    Dtype dtype;
    ptrdiff_t rows, batch_size;
    Output out;
} Call;

/* Return how many rows from `done` on are evaluated together: even blocks of what is left of the batch, of whole units. */
static inline ptrdiff_t next_block(const Call *call, ptrdiff_t done, ptrdiff_t unit)
{
    ptrdiff_t left = call->rows - done, batch = call->batch_size - done % call->batch_size;
    if (batch > left) batch = left;
    ptrdiff_t blocks = (batch + call->network->rows - 1) / call->network->rows;
    ptrdiff_t rows = ((batch + blocks - 1) / blocks + unit - 1) / unit * unit;
    return rows < batch ? rows : batch;
}

/* Return where results go from row `done` on. */
static inline Output output_from(const Call *call, ptrdiff_t done)
{
    const ptrdiff_t outputs = call->network->layers[call->network->count - 1].outputs;
    Output out = {call->out.labels ? call->out.labels + done : NULL, call->out.logits ? call->out.logits + done * outputs : NULL};
    return out;
}

/* Evaluates all rows in a workspace of 2 x `network->rows` x widest floats and `network->tile_workspace` bytes,
 * aligned. Cannot fail. */
typedef void Evaluate(const Call *call, float *workspace);

typedef struct {
    const char *name;
    int lanes; /* floats in a vector */
    int NR;    /* vectors of a panel */
    int unit;  /* rows that are computed together, or a multiple: blocks are cut into these */
    Evaluate *evaluate;
    /* Where products are made by tiles: bytes that a layer's weights take, and what fills them, which are zero. */
    ptrdiff_t (*tile_bytes)(const Layer *layer, int first);
    void (*pack_tiles)(Layer *layer, const float *W, int first, void *memory);
    /* Bytes of a workspace for a block of rows in tiles. */
    ptrdiff_t (*tile_workspace)(const Network *network);
} InstructionSet;

extern const InstructionSet amx_emulated;

#if defined(__x86_64__)
extern const InstructionSet x86_64_v2, x86_64_v3, x86_64_v4, amx;
#elif defined(__aarch64__)
extern const InstructionSet neon;
#endif

#endif
