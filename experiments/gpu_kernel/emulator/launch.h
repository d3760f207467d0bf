// Behind the kernel's source: run it, block after block. Returns what went wrong, or an empty text.

static struct {
    const unsigned char *x, *packed;
    long long rows;
    void *out;
    float cut;
} arguments;

template <class Body>
static const char *launch(Body body, const unsigned char *x, long long rows, const unsigned char *packed, void *out,
    float cut, int blocks)
{
    using namespace emulator;
    *problem = 0;
    arguments = {x, packed, rows, out, cut};
    rows_begin = x, rows_end = x + rows * ROW_BYTES;
    packed_begin = packed, packed_end = packed + PACKED;
    memory.resize(PACKED / 16 + 64); // behind the weights stays what is not a number
    emulator::body = body;
    gridDim.x = blocks;
    for (blockIdx.x = 0; blockIdx.x < gridDim.x && !*problem; ++blockIdx.x)
        run_block();
    return problem;
}

extern "C" const char *emulate_labels(
    const unsigned char *x, long long rows, const unsigned char *packed, long long *out, float cut, int blocks)
{
    auto body = [] {
        labels(arguments.x, arguments.rows, arguments.packed, (long long *)arguments.out, arguments.cut);
    };
    return launch(static_cast<void (*)()>(body), x, rows, packed, out, cut, blocks);
}

extern "C" const char *emulate_logits(
    const unsigned char *x, long long rows, const unsigned char *packed, float *out, float cut, int blocks)
{
    auto body = [] { logits(arguments.x, arguments.rows, arguments.packed, (float *)arguments.out); };
    return launch(static_cast<void (*)()>(body), x, rows, packed, out, cut, blocks);
}
