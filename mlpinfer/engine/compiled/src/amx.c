/* Compiled with -march=x86-64-v4 and the three flags of AMX. */
#if defined(__x86_64__)
#define TILES
#include "evaluate-inl.h"

const InstructionSet amx = {"amx", LANES, NR, UNIT, evaluate, tile_bytes, pack_tiles, tile_workspace};
#endif
