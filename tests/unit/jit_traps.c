// SPDX-License-Identifier: BSD-2-Clause
// Precise traps, counts, x0, FS: the interpreter's tests, on the translator.
#include "jit/jit.h"

#define GUEST_ENGINE hart_engine_jit
#include "interp_traps.c"  // NOLINT(bugprone-suspicious-include)
