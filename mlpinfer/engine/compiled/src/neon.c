/* Where vectors of four floats are always there. */
#if defined(__aarch64__)
#include "evaluate-inl.h"

const InstructionSet neon = {"neon", LANES, NR, UNIT, evaluate, NULL, NULL, NULL};
#endif
