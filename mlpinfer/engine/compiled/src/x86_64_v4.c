/* Compiled with -march=x86-64-v4. */
#if defined(__x86_64__)
#include "evaluate-inl.h"

const InstructionSet x86_64_v4 = {"x86-64-v4", LANES, NR, UNIT, evaluate, NULL, NULL, NULL};
#endif
