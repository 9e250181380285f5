// SPDX-License-Identifier: BSD-2-Clause
// question: a request to another process, for whose answer somebody waits a bounded time. Private
// to this room; the loop's thread.
#ifndef STRAKE_SUPERVISOR_QUESTION_H
#define STRAKE_SUPERVISOR_QUESTION_H

#include "supervisor/supervisor.h"

// The first member of an object from malloc. It is freed when the link has given an answer, or has
// given up; whoever waits may have been told long before.
struct question {
    struct loop_timer *timer;
    // Called once, with the answer or with why there is none.
    void (*over)(struct question *question, json_t *result, const struct error *err);
    const char *silence;  // what is said when there is none in time
};

// Waits from now on. On failure (-ENOMEM) the caller frees it.
BASE_NODISCARD int question_begin(struct question *question, struct loop *loop,
                                  unsigned timeout_ms);
// The link_done of its request, with the question as `opaque`.
void question_answered(void *opaque, json_t *result, struct descriptors *fds,
                       const struct error *err);

#endif
