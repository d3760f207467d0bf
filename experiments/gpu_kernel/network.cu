// A whole folded network in one launch: rows in, labels or logits out, nothing between in the device's memory.
//
// A warp takes ROW_TILES x 16 rows at a time through all layers, by products of (16, 16) and (16, 8) on the tensor
// cores: halves in, floats summed. The weights stay in shared memory, in the order in which a warp reads them; rows
// are read straight into registers, AHEAD groups before they are needed, those of the next tile among them.
//
// Which of the 16 inputs of a step stands where does not matter, as long as weights agree. So each of the four lanes
// of a row takes 16 bytes that lie together, and the weights of the first layer are packed in that order.
// What a layer computes lies as the next layer reads it: see multiply_add in instructions.cuh.
//
// The compiler is told (experiments/gpu_kernel/fused.py):
//   WIDTHS       features, then units of each layer: 784, 50, 100, 10
//   ACTIVATIONS  of each layer: TANH, TANH, IDENTITY
//   SLOPES       of each layer, read where it is a LEAKY_RELU
//   ITEM         bytes of an input: 1 an unsigned integer, 2 a half, 4 a float
//   WARPS        in a block
//   ROW_TILES    1 or 2: with 2, weights are read from shared memory half as often
//   AHEAD        groups of 64 bytes a row that are on their way

enum Activation { IDENTITY, RELU, LEAKY_RELU, TANH };

constexpr int width[] = {WIDTHS};
constexpr Activation activation[] = {ACTIVATIONS};
constexpr float slope[] = {SLOPES};
constexpr int LAYERS = sizeof width / sizeof *width - 1;

constexpr int FRAGMENT = 256; // bytes of (16, 8) weights
constexpr int AFFINE = 64;    // bytes of scale and bias of 8 units

__host__ __device__ constexpr int steps(int layer) { return (width[layer] + 15) / 16; }
__host__ __device__ constexpr int tiles(int layer) { return (width[layer + 1] + 7) / 8; }

// Where a layer's weights begin, and behind all of them its scales and biases, in bytes.
__host__ __device__ constexpr int weights_of(int layer)
{
    int at = 0;
    for (int i = 0; i < layer; ++i)
        at += steps(i) * tiles(i) * FRAGMENT;
    return at;
}

__host__ __device__ constexpr int affine_of(int layer)
{
    int at = weights_of(LAYERS);
    for (int i = 0; i < layer; ++i)
        at += tiles(i) * AFFINE;
    return at;
}

constexpr int PACKED = affine_of(LAYERS);

// A group is 64 bytes of a row, 16 for each of its four lanes; the last may have fewer steps.
constexpr int STEPS = 4 / ITEM;
constexpr int GROUPS = steps(0) / STEPS;
constexpr int LAST_STEPS = steps(0) % STEPS;
constexpr int ROW_BYTES = width[0] * ITEM;
constexpr int TILE_ROWS = 16 * ROW_TILES;
constexpr int BUFFERS = AHEAD < GROUPS ? AHEAD : GROUPS;

typedef long long Index;

// The rows of a tile that a lane reads: g and g + 8 of each 16, the last row instead of those behind it.
struct Rows {
    const unsigned char *at[ROW_TILES][2];

    __device__ Rows(const unsigned char *x, Index rows, Index tile, int lane)
    {
        for (int m = 0; m < ROW_TILES; ++m)
            for (int half = 0; half < 2; ++half) {
                Index row = tile * TILE_ROWS + 16 * m + 8 * half + lane / 4;
                at[m][half] = x + (row < rows ? row : rows - 1) * ROW_BYTES;
            }
    }
};

// Read what a lane needs of a row for some steps: 4 inputs a step. Behind the row's end, zeros.
template <int COUNT>
__device__ inline void read(unsigned (&words)[4], const unsigned char *row, int group, int lane)
{
    constexpr int BYTES = 4 * COUNT * ITEM;
    constexpr bool WHOLE = width[0] % 16 == 0;
    const int begin = 64 * group + BYTES * (lane % 4);
    if constexpr (BYTES == 16 && ROW_BYTES % 16 == 0) {
        if (WHOLE || begin < ROW_BYTES)
            read_16(words, row + begin);
        else
            words[0] = words[1] = words[2] = words[3] = 0;
    } else if constexpr (ROW_BYTES % 4 == 0) {
#pragma unroll
        for (int i = 0; i < BYTES / 4; ++i)
            words[i] = WHOLE || begin + 4 * i < ROW_BYTES ? read_4(row + begin + 4 * i) : 0;
    } else {
#pragma unroll
        for (int i = 0; i < BYTES / 4; ++i) {
            words[i] = 0;
#pragma unroll
            for (int j = 4 * i; j < 4 * i + 4; ++j)
                if (WHOLE || begin + j < ROW_BYTES)
                    words[i] |= read_1(row + begin + j) << 8 * (j % 4);
        }
    }
}

template <int COUNT>
__device__ inline void read(unsigned (&words)[ROW_TILES][2][4], const Rows &rows, int group, int lane)
{
#pragma unroll
    for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half)
            read<COUNT>(words[m][half], rows.at[m][half], group, lane);
}

// Turn the inputs of a step in two rows into halves. A byte is widened by zeros and so becomes a subnormal half:
// itself times 2^-24, exactly. The weights' scale has the 2^24. That tensor cores take subnormal halves as they are
// has been measured by others (docs/devices.md); it is not in the PTX ISA.
__device__ inline void to_operand(unsigned (&a)[4], const unsigned (&words)[2][4], int step)
{
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const unsigned(&from)[4] = words[half];
        if constexpr (ITEM == 1) {
            a[half] = __byte_perm(from[step], 0, 0x4140);
            a[half + 2] = __byte_perm(from[step], 0, 0x4342);
        } else if constexpr (ITEM == 2) {
            a[half] = from[2 * step];
            a[half + 2] = from[2 * step + 1];
        } else {
            a[half] = to_halves(__uint_as_float(from[0]), __uint_as_float(from[1]));
            a[half + 2] = to_halves(__uint_as_float(from[2]), __uint_as_float(from[3]));
        }
    }
}

// Add products of some steps to the sums of every unit. Fragments lie in pairs, a lane's 16 bytes together; a last
// one without a partner has 8.
template <int COUNT, int TILES>
__device__ inline void multiply(float (&sums)[ROW_TILES][TILES][4], const unsigned (&a)[ROW_TILES][COUNT][4],
    const unsigned char *weights, int lane)
{
    uint4 b = {0, 0, 0, 0};
#pragma unroll
    for (int s = 0; s < COUNT; ++s)
#pragma unroll
        for (int n = 0; n < TILES; ++n) {
            const int f = s * TILES + n;
            if (f % 2 == 0 && f + 1 < COUNT * TILES) {
                b = *(const uint4 *)(weights + f * FRAGMENT + 16 * lane);
            } else if (f % 2 == 0) {
                uint2 alone = *(const uint2 *)(weights + f * FRAGMENT + 8 * lane);
                b.x = alone.x, b.y = alone.y;
            }
#pragma unroll
            for (int m = 0; m < ROW_TILES; ++m)
                multiply_add(sums[m][n], a[m][s], f % 2 ? b.z : b.x, f % 2 ? b.w : b.y);
        }
}

template <int COUNT>
__device__ inline void multiply_inputs(float (&sums)[ROW_TILES][tiles(0)][4],
    const unsigned (&words)[ROW_TILES][2][4], const unsigned char *weights, int lane)
{
    unsigned a[ROW_TILES][COUNT][4];
#pragma unroll
    for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
        for (int s = 0; s < COUNT; ++s)
            to_operand(a[m][s], words[m], s);
    multiply<COUNT>(sums, a, weights, lane);
}

template <int LAYER>
__device__ inline float activate(float z)
{
    if constexpr (activation[LAYER] == TANH)
        return fast_tanh(z);
    else if constexpr (activation[LAYER] == RELU)
        return z < 0 ? 0 : z;
    else if constexpr (activation[LAYER] == LEAKY_RELU)
        return z > 0 ? z : z * slope[LAYER];
    else
        return z;
}

// Scale, bias and activation of the eight units of a tile, in two rows. Units that only fill the tile become zero,
// even where inputs are infinite.
template <int LAYER>
__device__ inline void finish(float (&z)[4], const float (&sums)[4], int n, int lane)
{
    const int t = lane % 4;
    const float4 affine = *(const float4 *)(shared_memory() + affine_of(LAYER) + n * AFFINE + 16 * t);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        z[i] = activate<LAYER>(i % 2 ? sums[i] * affine.z + affine.w : sums[i] * affine.x + affine.y);
        if (8 * n + 8 > width[LAYER + 1] && 8 * n + 2 * t + i % 2 >= width[LAYER + 1])
            z[i] = 0;
    }
}

// NaN counts as the largest, and of equals the lowest index wins: as NumPy's argmax.
__device__ inline bool beats(float z, int label, float best, int best_label)
{
    const bool nan = z != z, best_nan = best != best, lower = label < best_label;
    return nan ? !best_nan | lower : (z > best) | ((z == best) & lower);
}

// What is written of the last layer's values: first of some units after the other, then what is known of all.
struct Labels {
    Index *out;
    float cut; // with one output, the logit above which the label is 1
    float best[ROW_TILES][2];
    int label[ROW_TILES][2];

    __device__ Labels(Index *out, float cut) : out(out), cut(cut) {}

    __device__ void take(int m, int n, const float (&z)[4], Index, Index, int lane)
    {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int column = 8 * n + 2 * (lane % 4) + i % 2;
            float &top = best[m][i / 2];
            int &top_label = label[m][i / 2];
            const bool wins = (column < width[LAYERS]) & beats(z[i], column, top, top_label);
            top = (n == 0 && i % 2 == 0) || wins ? z[i] : top;
            top_label = (n == 0 && i % 2 == 0) || wins ? column : top_label;
        }
    }

    __device__ void write(int m, Index first, Index rows, int lane)
    {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float top = best[m][half];
            int top_label = label[m][half];
#pragma unroll
            for (int mask = 1; mask < 4; mask *= 2) {
                const float other = __shfl_xor_sync(0xffffffff, top, mask);
                const int other_label = __shfl_xor_sync(0xffffffff, top_label, mask);
                // A lane whose columns all only fill a tile has nothing to say; the first lane has one that counts.
                const bool wins = (other_label < width[LAYERS]) & beats(other, other_label, top, top_label);
                top = wins ? other : top;
                top_label = wins ? other_label : top_label;
            }
            const Index row = first + 8 * half + lane / 4;
            if (lane % 4 == 0 && row < rows)
                out[row] = width[LAYERS] == 1 ? top > cut : top_label;
        }
    }
};

struct Logits {
    float *out;

    __device__ void take(int, int n, const float (&z)[4], Index first, Index rows, int lane)
    {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int column = 8 * n + 2 * (lane % 4) + i % 2;
            const Index row = first + 8 * (i / 2) + lane / 4;
            if (column < width[LAYERS] && row < rows)
                out[row * width[LAYERS] + column] = z[i];
        }
    }

    __device__ void write(int, Index, Index, int) {}
};

// From the sums of one or two tiles of a layer's units to the next layer's operand, or to what is written.
template <int LAYER, int TILES, int STEPS_OF_NEXT, class Out>
__device__ inline void pass_on(unsigned (&next)[ROW_TILES][STEPS_OF_NEXT][4],
    const float (&sums)[ROW_TILES][TILES][4], int begin, Out &out, Index first, Index rows, int lane)
{
#pragma unroll
    for (int m = 0; m < ROW_TILES; ++m)
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
            const int n = begin + i;
            float z[4];
            finish<LAYER>(z, sums[m][i], n, lane);
            if constexpr (LAYER == LAYERS - 1) {
                out.take(m, n, z, first + 16 * m, rows, lane);
            } else {
                next[m][n / 2][2 * (n % 2)] = to_halves(z[0], z[1]);
                next[m][n / 2][2 * (n % 2) + 1] = to_halves(z[2], z[3]);
            }
        }
}

// A layer behind the first: two tiles of its units at a time, so that few sums need registers.
template <int LAYER, class Out>
__device__ inline void later_layers(
    const unsigned (&a)[ROW_TILES][steps(LAYER)][4], Out &out, Index first, Index rows, int lane)
{
    constexpr int TILES = tiles(LAYER), COUNT = steps(LAYER);
    unsigned next[ROW_TILES][(TILES + 1) / 2][4] = {};
    const unsigned char *const weights = shared_memory() + weights_of(LAYER);
#pragma unroll
    for (int n = 0; n + 1 < TILES; n += 2) {
        float sums[ROW_TILES][2][4] = {};
        multiply<COUNT>(sums, a, weights + n * COUNT * FRAGMENT, lane);
        pass_on<LAYER>(next, sums, n, out, first, rows, lane);
    }
    if constexpr (TILES % 2 != 0) {
        float sums[ROW_TILES][1][4] = {};
        multiply<COUNT>(sums, a, weights + (TILES - 1) * COUNT * FRAGMENT, lane);
        pass_on<LAYER>(next, sums, TILES - 1, out, first, rows, lane);
    }
    if constexpr (LAYER < LAYERS - 1)
        later_layers<LAYER + 1>(next, out, first, rows, lane);
}

template <class Out>
__device__ inline void evaluate(const unsigned char *x, Index rows, const unsigned char *packed, Out out)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    unsigned char *const weights = shared_memory();
    // A small batch is spread over all blocks before a block's second warp has work.
    const Index stride = (Index)gridDim.x * WARPS, end = (rows + TILE_ROWS - 1) / TILE_ROWS;
    Index tile = blockIdx.x + (Index)gridDim.x * warp;

    for (int at = 16 * threadIdx.x; at < PACKED; at += 16 * 32 * WARPS)
        begin_copy(weights + at, packed + at);
    unsigned ahead[BUFFERS + 1][ROW_TILES][2][4], last[ROW_TILES][2][4]; // one more, as none would be no array
    Rows from(x, rows, tile, lane);
#pragma unroll
    for (int i = 0; i < BUFFERS; ++i)
        read<STEPS>(ahead[i], from, i, lane);
    if constexpr (LAST_STEPS != 0)
        read<LAST_STEPS>(last, from, GROUPS, lane);
    finish_copies();

    for (; tile < end; tile += stride) {
        asm volatile("" ::: "memory"); // weights are read for every tile anew: there are no registers for them
        float sums[ROW_TILES][tiles(0)][4] = {};
#pragma unroll 1
        for (int begin = 0; begin < GROUPS; begin += BUFFERS) {
#pragma unroll
            for (int i = 0; i < BUFFERS; ++i) {
                const int group = begin + i;
                if (group < GROUPS) {
                    multiply_inputs<STEPS>(
                        sums, ahead[i], weights + group * STEPS * tiles(0) * FRAGMENT, lane);
                    if (group + BUFFERS == GROUPS)
                        from = Rows(x, rows, tile + stride, lane);
                    read<STEPS>(ahead[i], from, group + BUFFERS < GROUPS ? group + BUFFERS : i, lane);
                }
            }
        }
        if constexpr (LAST_STEPS != 0) {
            multiply_inputs<LAST_STEPS>(sums, last, weights + GROUPS * STEPS * tiles(0) * FRAGMENT, lane);
            if constexpr (GROUPS == 0)
                from = Rows(x, rows, tile + stride, lane);
            read<LAST_STEPS>(last, from, GROUPS, lane);
        }
        const Index first = tile * TILE_ROWS;
        unsigned a[ROW_TILES][(tiles(0) + 1) / 2][4] = {};
        pass_on<0>(a, sums, 0, out, first, rows, lane);
        if constexpr (LAYERS > 1)
            later_layers<1>(a, out, first, rows, lane);
#pragma unroll
        for (int m = 0; m < ROW_TILES; ++m)
            out.write(m, first + 16 * m, rows, lane);
    }
}

// The arrays begin at multiples of 16 bytes and are contiguous; `rows` is 1 or more.
extern "C" __global__ void __launch_bounds__(32 * WARPS, 1)
    labels(const unsigned char *x, Index rows, const unsigned char *packed, Index *out, float cut)
{
    evaluate(x, rows, packed, Labels(out, cut));
}

extern "C" __global__ void __launch_bounds__(32 * WARPS, 1)
    logits(const unsigned char *x, Index rows, const unsigned char *packed, float *out)
{
    evaluate(x, rows, packed, Logits{out});
}
