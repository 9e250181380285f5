// SPDX-License-Identifier: BSD-2-Clause
// Requests whose answers are waited for, but not for ever.
#include <errno.h>
#include <stdlib.h>

#include "supervisor/question.h"

static void tell(struct question *question, json_t *result, const struct error *err)
{
    void (*over)(struct question *, json_t *, const struct error *) = question->over;
    question->over = NULL;
    loop_timer_stop(question->timer);
    if (over)
        over(question, result, err);
}

static void on_timeout(void *opaque)
{
    struct question *question = opaque;
    struct error err;
    error_set(&err, -ETIMEDOUT, "%s", question->silence);
    tell(question, NULL, &err);
}

int question_begin(struct question *question, struct loop *loop, unsigned timeout_ms)
{
    int rc = loop_timer_create(loop, on_timeout, question, &question->timer);
    if (rc == 0)
        loop_timer_start(question->timer, timeout_ms);
    return rc;
}

void question_answered(void *opaque, json_t *result, struct descriptors *fds,
                       const struct error *err)
{
    struct question *question = opaque;
    (void)fds;
    tell(question, result, err);
    loop_timer_close(question->timer);
    free(question);
}
