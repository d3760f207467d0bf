// What the fused kernel asks of the processor beyond plain CUDA C++, an instruction a function. In PTX, so
// that no header is needed; of compute capability 8.0 or later.
// The PTX ISA: https://docs.nvidia.com/cuda/parallel-thread-execution/

// The block's dynamic shared memory.
__device__ inline unsigned char *shared_memory()
{
    extern __shared__ uint4 memory[];
    return (unsigned char *)memory;
}

// Begin to copy 16 bytes from global to shared memory.
__device__ inline void begin_copy(unsigned char *shared, const unsigned char *global)
{
    unsigned address = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
}

// Wait until the whole block's copies are there.
__device__ inline void finish_copies()
{
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncthreads();
}

// Read 16, 4 or 1 bytes of rows, which nobody writes; neighbours are fetched into the L2 cache along with them.
__device__ inline void read_16(unsigned (&words)[4], const unsigned char *global)
{
    asm volatile("ld.global.nc.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
        : "l"(global));
}

__device__ inline unsigned read_4(const unsigned char *global)
{
    unsigned word;
    asm volatile("ld.global.nc.L2::128B.u32 %0, [%1];" : "=r"(word) : "l"(global));
    return word;
}

__device__ inline unsigned read_1(const unsigned char *global)
{
    unsigned byte;
    asm volatile("ld.global.nc.L2::128B.u8 %0, [%1];" : "=r"(byte) : "l"(global));
    return byte;
}

// Two floats rounded to halves, the first in the low 16 bits.
__device__ inline unsigned to_halves(float low, float high)
{
    unsigned pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

// With a relative error of 2^-11 at most.
__device__ inline float fast_tanh(float x)
{
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// c += a @ b by a whole warp: a (16, 16) and b (16, 8) of halves, c (16, 8) of floats. Lane 4 g + t holds
//   of a: rows g, g + 8, g, g + 8; columns 2 t and 2 t + 1 in the first two words, 2 t + 8 and 2 t + 9 in the others,
//   of b: rows 2 t and 2 t + 1, then 2 t + 8 and 2 t + 9, of column g,
//   of c: columns 2 t and 2 t + 1 of row g, then of row g + 8.
__device__ inline void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
