/* Where vectors of four floats are always there. */
#if defined(__aarch64__)
#include "evaluate.h"

const InstructionSet neon = {"neon", LANES, MOST_VECTORS, evaluate};
#endif
