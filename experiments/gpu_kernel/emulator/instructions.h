// What `experiments/gpu_kernel/instructions.cuh` declares, on a CPU: the lanes of a block are contexts with stacks of
// their own, which take turns where a warp or the block must come together. Written from the PTX ISA, not from the
// kernel. Reads of rows, and what is copied to shared memory, are checked for place and alignment.

#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include <ucontext.h>

#define __host__
#define __device__
#define __global__
#define __launch_bounds__(threads, blocks)

struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };

static struct { unsigned x; } threadIdx, blockIdx, gridDim;

namespace emulator {

constexpr int LANES = 32, THREADS = LANES * WARPS;
constexpr size_t STACK = 128 * 1024;
// Lanes that wait for others take turns without end where those never come.
constexpr long PATIENCE = 100'000'000;

struct Exchange { // what the lanes of a warp bring to an instruction, and take from it
    unsigned a[LANES][4], b[LANES][2], word[LANES];
    float c[LANES][4];
};

struct Warp {
    Exchange exchanges[2]; // one is still read while the next is filled
    int arrived = 0, generation = 0, left = 0;
};

struct Thread {
    jmp_buf place;
    ucontext_t begin;
    bool started = false, done = false;
    std::unique_ptr<unsigned char[]> stack{new unsigned char[STACK]};
};

static char problem[200];
static std::vector<Thread> threads(THREADS);
static std::vector<Warp> warps;
static ucontext_t outside;
static unsigned current;
static int arrived, generation, left;
static long waits;
static void (*body)();
static std::vector<uint4> memory;
static const unsigned char *rows_begin, *rows_end, *packed_begin, *packed_end;

static void fail(const char *text)
{
    if (!*problem)
        snprintf(problem, sizeof problem, "%s (block %u, thread %u)", text, blockIdx.x, threadIdx.x);
}

static void enter()
{
    body();
    Thread &me = threads[current];
    me.done = true;
    ++left, ++warps[current / LANES].left;
    if (warps[current / LANES].arrived || arrived)
        fail("a thread ended where others wait for it");
    setcontext(&outside);
}

// Let another thread run; `from` is the first of those that take turns, of which there are `count`.
static void yield(unsigned from, unsigned count)
{
    if (++waits > PATIENCE) {
        fail("threads wait for each other for ever");
        setcontext(&outside);
    }
    Thread &me = threads[current];
    unsigned next = current;
    do
        next = from + (next - from + 1) % count;
    while (threads[next].done && next != current);
    if (next == current || _setjmp(me.place))
        return;
    current = threadIdx.x = next;
    if (threads[next].started)
        _longjmp(threads[next].place, 1);
    threads[next].started = true;
    setcontext(&threads[next].begin);
}

// Come together with the other lanes of the warp; the last one calls `all` on what everyone brought.
template <class Bring, class All>
static Exchange &together(Bring bring, All all)
{
    Warp &warp = warps[current / LANES];
    const int mine = warp.generation;
    Exchange &exchange = warp.exchanges[mine % 2];
    bring(exchange, current % LANES);
    if (warp.left)
        fail("lanes of a warp have ended before an instruction of all");
    if (++warp.arrived == LANES) {
        all(exchange);
        warp.arrived = 0, ++warp.generation, waits = 0;
    }
    while (warp.generation == mine && !*problem)
        yield(current / LANES * LANES, LANES);
    return exchange;
}

static void start(unsigned thread)
{
    Thread &t = threads[thread];
    getcontext(&t.begin);
    t.begin.uc_stack.ss_sp = t.stack.get(), t.begin.uc_stack.ss_size = STACK, t.begin.uc_link = nullptr;
    t.started = t.done = false;
    makecontext(&t.begin, enter, 0);
}

static void run_block()
{
    warps.assign(WARPS, Warp());
    arrived = generation = left = 0, waits = 0;
    memset(memory.data(), 0xff, memory.size() * sizeof memory[0]); // not a number, whatever reads it
    for (unsigned i = 0; i < THREADS; ++i)
        start(i);
    while (left < THREADS && !*problem) { // a thread that ends comes back here, and another goes on
        volatile unsigned next = 0;
        while (threads[next].done)
            ++next;
        volatile bool back = false;
        getcontext(&outside);
        if (back)
            continue;
        back = true;
        current = threadIdx.x = next;
        if (threads[next].started)
            _longjmp(threads[next].place, 1);
        threads[next].started = true;
        setcontext(&threads[next].begin);
    }
}

static void check(const void *at, const unsigned char *begin, const unsigned char *end, int bytes, const char *what)
{
    auto address = (const unsigned char *)at;
    if (address < begin || address + bytes > end || ((uintptr_t)address) % bytes)
        fail(what);
}

static float from_half(unsigned bits)
{
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float size = exponent == 31 ? (fraction ? NAN : INFINITY)
        : exponent ? ldexpf(1024 + fraction, exponent - 25) : ldexpf(fraction, -24);
    return bits >> 15 & 1 ? -size : size;
}

static unsigned to_half(float x) // to nearest, ties to even
{
    const unsigned sign = std::signbit(x) ? 0x8000 : 0;
    const float size = fabsf(x);
    if (std::isnan(x))
        return 0x7fff;
    if (size >= 65520)
        return sign | 0x7c00;
    if (size < ldexpf(1, -14))
        return sign | (unsigned)nearbyintf(ldexpf(size, 24));
    int exponent;
    const float fraction = frexpf(size, &exponent); // in [1/2, 1)
    return sign | (((exponent + 14) << 10) + (unsigned)nearbyintf(ldexpf(fraction, 11)) - 1024);
}

static const float *halves()
{
    static std::vector<float> table;
    if (table.empty())
        for (unsigned bits = 0; bits < 65536; ++bits)
            table.push_back(from_half(bits));
    return table.data();
}

// D = A B + C, by the tables of fragments for mma.m16n8k16 with .f16 in the PTX ISA.
static void multiply_add(Exchange &e)
{
    const float *value = halves();
    float a[16][16], b[16][8];
    for (int lane = 0; lane < LANES; ++lane) {
        const int group = lane >> 2, in_group = lane & 3;
        for (int i = 0; i < 8; ++i) {
            const int row = i < 2 || (i >= 4 && i < 6) ? group : group + 8;
            const int column = in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
            a[row][column] = value[e.a[lane][i / 2] >> 16 * (i & 1) & 0xffff];
        }
        for (int i = 0; i < 4; ++i)
            b[in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0)][group] = value[e.b[lane][i / 2] >> 16 * (i & 1) & 0xffff];
    }
    for (int lane = 0; lane < LANES; ++lane)
        for (int i = 0; i < 4; ++i) {
            const int row = (lane >> 2) + (i < 2 ? 0 : 8), column = (lane & 3) * 2 + (i & 1);
            float sum = e.c[lane][i];
            for (int k = 0; k < 16; ++k)
                sum += a[row][k] * b[k][column];
            e.c[lane][i] = sum;
        }
}

} // namespace emulator

static unsigned char *shared_memory() { return (unsigned char *)emulator::memory.data(); }

static void begin_copy(unsigned char *shared, const unsigned char *global)
{
    using namespace emulator;
    check(global, packed_begin, packed_end, 16, "a copy begins or ends outside the weights");
    check(shared, shared_memory(), shared_memory() + (packed_end - packed_begin), 16, "a copy misses shared memory");
    if (!*problem)
        memcpy(shared, global, 16);
}

static void __syncthreads()
{
    using namespace emulator;
    const int mine = generation;
    if (++arrived == THREADS)
        arrived = 0, ++generation, waits = 0;
    while (generation == mine && !*problem)
        yield(0, THREADS);
}

static void finish_copies() { __syncthreads(); }

static void read_rows(void *to, const unsigned char *global, int bytes)
{
    emulator::check(global, emulator::rows_begin, emulator::rows_end, bytes, "a read outside the rows, or not aligned");
    if (!*emulator::problem)
        memcpy(to, global, bytes);
}

static void read_16(unsigned (&words)[4], const unsigned char *global) { read_rows(words, global, 16); }

static unsigned read_4(const unsigned char *global)
{
    unsigned word = 0;
    read_rows(&word, global, 4);
    return word;
}

static unsigned read_1(const unsigned char *global)
{
    unsigned char byte = 0;
    read_rows(&byte, global, 1);
    return byte;
}

static unsigned to_halves(float low, float high) { return emulator::to_half(high) << 16 | emulator::to_half(low); }

// Of the error that tanh.approx.f32 may have, all: ten bits of the fraction are kept, rounded to nearest.
static float fast_tanh(float x)
{
    int exponent;
    const float y = frexpf(tanhf(x), &exponent);
    return ldexpf(nearbyintf(ldexpf(y, 11)), exponent - 11);
}

static void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1)
{
    const auto &done = emulator::together(
        [&](emulator::Exchange &e, int lane) {
            memcpy(e.a[lane], a, sizeof a), memcpy(e.c[lane], c, sizeof c);
            e.b[lane][0] = b0, e.b[lane][1] = b1;
        },
        emulator::multiply_add);
    memcpy(c, done.c[emulator::current % emulator::LANES], sizeof c);
}

template <class Word>
static Word __shfl_xor_sync(unsigned mask, Word word, int lanes)
{
    static_assert(sizeof word == 4);
    if (mask != 0xffffffff)
        emulator::fail("a shuffle of fewer lanes than a warp has");
    const auto &done = emulator::together(
        [&](emulator::Exchange &e, int lane) { memcpy(&e.word[lane], &word, 4); }, [](emulator::Exchange &) {});
    memcpy(&word, &done.word[(emulator::current % emulator::LANES) ^ lanes], 4);
    return word;
}

static unsigned __byte_perm(unsigned x, unsigned y, unsigned selector)
{
    const uint64_t bytes = (uint64_t)y << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i)
        result |= (unsigned)(bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
    return result;
}

static float __uint_as_float(unsigned bits)
{
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
