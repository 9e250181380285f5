// SPDX-License-Identifier: BSD-2-Clause
// How soon translated code is left: the interpreter's tests, on the translator, which executes
// about one instruction a nanosecond.
#include "jit/jit.h"

#define LATENCY_INSNS_MAX 10000
#define GUEST_ENGINE hart_engine_jit
#include "interp_latency.c"  // NOLINT(bugprone-suspicious-include)
