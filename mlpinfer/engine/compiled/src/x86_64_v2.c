/* Compiled with -march=x86-64-v2. */
#if defined(__x86_64__)
#include "evaluate-inl.h"

const InstructionSet x86_64_v2 = {"x86-64-v2", LANES, NR, UNIT, evaluate, NULL, NULL, NULL};
#endif
