/* Compiled with -march=x86-64-v3. */
#if defined(__x86_64__)
#include "evaluate-inl.h"

const InstructionSet x86_64_v3 = {"x86-64-v3", LANES, NR, UNIT, evaluate, NULL, NULL, NULL};
#endif
