/* Compiled with -march=x86-64-v4. */
#if defined(__x86_64__)
#include "evaluate.h"

const InstructionSet x86_64_v4 = {"x86-64-v4", LANES, MOST_VECTORS, evaluate};
#endif
