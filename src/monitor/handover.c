// SPDX-License-Identifier: BSD-2-Clause
// What both sides of a handover share: names, who owns the partition, faults for tests.
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "monitor/handover_peer.h"

const char *handover_step_name(enum handover_step step)
{
    static const char *const names[HANDOVER_STEPS] = {
        [HANDOVER_STEP_HELLO] = "hello",   [HANDOVER_STEP_WARM] = "warm",
        [HANDOVER_STEP_FREEZE] = "freeze", [HANDOVER_STEP_STATE] = "state",
        [HANDOVER_STEP_ADOPT] = "adopt",   [HANDOVER_STEP_RUN] = "run",
        [HANDOVER_STEP_RETIRE] = "retire",
    };
    return names[step];
}

const char *handover_mark_name(enum handover_mark mark)
{
    static const char *const names[HANDOVER_MARKS] = {
        [HANDOVER_BEGUN] = "begun",       [HANDOVER_BUILT] = "built",
        [HANDOVER_HOT] = "hot",           [HANDOVER_WARMED] = "warmed",
        [HANDOVER_FROZEN] = "frozen",     [HANDOVER_SENT] = "sent",
        [HANDOVER_RECEIVED] = "received", [HANDOVER_LOADED] = "loaded",
        [HANDOVER_COMPARED] = "compared", [HANDOVER_OWNED] = "owned",
        [HANDOVER_RUNNING] = "running",   [HANDOVER_RETIRED] = "retired",
    };
    return names[mark];
}

// ---- Ownership ----------------------------------------------------------------------------------

// Sequentially consistent: what the loser did before it lost, and what the winner does next, are
// each on their side of the move for everybody.
bool status_page_move_owner(struct status_page *page, uint32_t from, enum owner_move move)
{
    return atomic_compare_exchange_strong(&page->owner, &from, from + (uint32_t)move);
}

struct handover_blackout status_page_blackout(const struct status_page *page)
{
    struct handover_blackout blackout = {0};
    uint64_t last_ns = 0, first_ns = UINT64_MAX;
    for (unsigned i = 0; i < HART_MAX; i++) {
        uint64_t left_ns = atomic_load(&page->handover.left_ns[i]);
        uint64_t entered_ns = atomic_load(&page->handover.entered_ns[i]);
        if (left_ns == 0 || entered_ns <= left_ns)
            continue;
        last_ns = left_ns > last_ns ? left_ns : last_ns;
        first_ns = entered_ns < first_ns ? entered_ns : first_ns;
        if (entered_ns - left_ns > blackout.longest_ns)
            blackout.longest_ns = entered_ns - left_ns;
    }
    if (first_ns > last_ns && last_ns > 0)
        blackout.blackout_ns = first_ns - last_ns;
    return blackout;
}

// ---- Faults -------------------------------------------------------------------------------------

int handover_fault_parse(struct handover_fault *fault, const char *text, struct error *err)
{
    static const char *const kinds[] = {
        [HANDOVER_FAULT_EXIT] = "exit",       [HANDOVER_FAULT_HANG] = "hang",
        [HANDOVER_FAULT_KILL] = "kill",       [HANDOVER_FAULT_REFUSE] = "refuse",
        [HANDOVER_FAULT_CORRUPT] = "corrupt", [HANDOVER_FAULT_VERSION] = "version",
        [HANDOVER_FAULT_MEMORY] = "memory",   [HANDOVER_FAULT_FULL] = "full",
    };
    *fault = (struct handover_fault){0};
    for (unsigned step = 0; step < HANDOVER_STEPS; step++) {
        size_t length = strlen(handover_step_name(step));
        if (strncmp(text, handover_step_name(step), length) != 0 || text[length] != ':')
            continue;
        for (unsigned kind = 1; kind < BASE_COUNT_OF(kinds); kind++)
            if (strcmp(text + length + 1, kinds[kind]) == 0)
                *fault = (struct handover_fault){step, kind};
    }
    return fault->kind ? 0 : error_set(err, -EINVAL, "there is no fault \"%s\"", text);
}

static void limit(int resource)
{
    struct rlimit rlimit = {0};
    (void)getrlimit(resource, &rlimit);
    rlimit.rlim_cur = 1;  // of memory, 0 would be no limit
    (void)setrlimit(resource, &rlimit);
}

int handover_fault_at(const struct handover_fault *fault, enum handover_step step,
                      struct error *err)
{
    if (fault->step != step)
        return 0;
    switch (fault->kind) {
    case HANDOVER_FAULT_EXIT:
        _exit(1);
    case HANDOVER_FAULT_KILL:
        raise(SIGKILL);
        return 0;
    case HANDOVER_FAULT_HANG:
        for (;;)
            sleep(1000);
    case HANDOVER_FAULT_REFUSE:
        return error_set(err, -ECANCELED, "a test wants it to fail");
    case HANDOVER_FAULT_MEMORY:
        limit(RLIMIT_DATA);
        return 0;
    case HANDOVER_FAULT_FULL:
        limit(RLIMIT_FSIZE);
        return 0;
    default:
        return 0;
    }
}
