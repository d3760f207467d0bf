#if defined(__x86_64__)
#pragma GCC target("arch=x86-64-v2")
#include "evaluate.h"

const InstructionSet x86_64_v2 = {"x86-64-v2", LANES, evaluate};
#endif
