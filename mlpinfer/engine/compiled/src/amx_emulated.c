/* The arithmetic of `amx.c` in plain C, to test it on every machine. Slow, and never chosen. */
#define TILES
#define TILES_EMULATED
#include "evaluate-inl.h"

const InstructionSet amx_emulated = {"amx-emulated", LANES, NR, UNIT, evaluate, tile_bytes, pack_tiles, tile_workspace};
