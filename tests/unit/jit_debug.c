// SPDX-License-Identifier: BSD-2-Clause
// Breakpoints and single steps: the interpreter's tests, on the translator.
#include "jit/jit.h"

#define GUEST_ENGINE hart_engine_jit
#include "interp_debug.c"  // NOLINT(bugprone-suspicious-include)
