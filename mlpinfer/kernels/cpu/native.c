/* Processors of other kinds: vectors of four floats, which arm64 always has. */
#if !defined(__x86_64__)
#include "evaluate.h"

#if defined(__aarch64__)
const InstructionSet native = {"neon", LANES, evaluate};
#else
const InstructionSet native = {"portable", LANES, evaluate};
#endif
#endif
