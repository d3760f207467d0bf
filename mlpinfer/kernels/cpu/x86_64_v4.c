#if defined(__x86_64__)
#pragma GCC target("arch=x86-64-v4")
#include "evaluate.h"

const InstructionSet x86_64_v4 = {"x86-64-v4", LANES, evaluate};
#endif
