// SPDX-License-Identifier: BSD-2-Clause
// internal: what the worker shares with its own tests.
#ifndef STRAKE_LEVERAGE_INTERNAL_H
#define STRAKE_LEVERAGE_INTERNAL_H

#include "leverage/interceptor.h"

struct worker_settings {
    // INTERCEPTOR_KINDS of them; NULL: this program does not have it.
    const struct interceptor_ops *const *kinds;
    unsigned remove_ms;   // for `remove`
    const char *version;  // that it says it is; NULL: this one
};

// Serves the supervisor at `control_fd` until it is to end. Returns 0, or a negative errno with
// *err set.
BASE_NODISCARD int worker_run(int control_fd, const struct worker_settings *settings,
                              struct error *err);

#endif
