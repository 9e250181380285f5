// SPDX-License-Identifier: BSD-2-Clause
// What one process' engine tells another's before the other goes on with the hart.
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "hart/internal.h"

#define HOT_BYTES_MAX (4u << 20)
#define PACE_NS 250000u
#define BETWEEN_ASKS_NS 1000000  // asked without a rest, the hart does nothing but answer

struct question {
    struct hart_hot *hot;
    bool done;
};

static void tell(struct hart *hart, void *opaque)
{
    struct question *question = opaque;

    question->done = hart->engine->hot(hart, hart->engine_state, question->hot);
}

int hart_hot(struct hart *hart, struct hart_hot *hot, uint64_t timeout_ns)
{
    struct question question = {.hot = hot};
    uint64_t end_ns = clock_monotonic_ns() + timeout_ns, now_ns;

    *hot = (struct hart_hot){.bytes_max = HOT_BYTES_MAX};
    if (!hart->engine->hot)
        return 0;
    hot->bytes = malloc(HOT_BYTES_MAX);
    if (!hot->bytes)
        return -ENOMEM;
    while ((now_ns = clock_monotonic_ns()) < end_ns &&
           hart_ask(hart, tell, &question, end_ns - now_ns) && !question.done)
        nanosleep(&(struct timespec){.tv_nsec = BETWEEN_ASKS_NS}, NULL);
    return 0;
}

static bool always(void *opaque)
{
    (void)opaque;
    return true;
}

// Engines ask often; the caller is asked when it was long ago.
struct slow_pace {
    const struct hart_pace *pace;
    uint64_t asked_ns;
};

static bool go_on(void *opaque)
{
    struct slow_pace *slow = opaque;

    if (clock_monotonic_ns() - slow->asked_ns < PACE_NS)
        return true;
    bool more = slow->pace->go_on(slow->pace->opaque);
    slow->asked_ns = clock_monotonic_ns();
    return more;
}

void hart_warm(struct hart *hart, const void *bytes, size_t length_bytes,
               const struct hart_pace *pace)
{
    static const struct hart_pace none = {.go_on = always};
    struct hart_hot hot = {.bytes = (uint8_t *)bytes, .length_bytes = length_bytes};
    struct slow_pace slow = {.pace = pace ? pace : &none, .asked_ns = clock_monotonic_ns()};

    if (hart->engine->warm)
        hart->engine->warm(hart, hart->engine_state, &hot,
                           &(struct hart_pace){.go_on = go_on, .opaque = &slow});
}

void hart_settle(struct hart *hart)
{
    if (hart->engine->settle)
        hart->engine->settle(hart, hart->engine_state);
}
