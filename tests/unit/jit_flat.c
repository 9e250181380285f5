// SPDX-License-Identifier: BSD-2-Clause
// Flat address spaces: the interpreter's tests, on the translator.
#include "jit/jit.h"

#define GUEST_ENGINE hart_engine_jit
#include "hart_flat.c"  // NOLINT(bugprone-suspicious-include)
