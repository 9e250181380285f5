// SPDX-License-Identifier: BSD-2-Clause
// A thread and the processor that it shares.
#include <linux/sched/types.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/base.h"

#define NICE_MAX 19

// False where this cannot be asked: then nothing is changed either.
static bool get_attr(struct sched_attr *attr)
{
    *attr = (struct sched_attr){.size = sizeof(*attr)};
    return syscall(SYS_sched_getattr, 0, attr, sizeof(*attr), 0) == 0;
}

static void set_attr(struct sched_attr *attr)
{
    (void)!syscall(SYS_sched_setattr, 0, attr, 0);
}

static int nicer(const struct sched_attr *attr, unsigned by)
{
    return attr->sched_nice + (int)by < NICE_MAX ? attr->sched_nice + (int)by : NICE_MAX;
}

void thread_set_turn(uint64_t turn_ns)
{
    struct sched_attr attr;

    if (!get_attr(&attr))
        return;
    attr.sched_runtime = turn_ns;
    set_attr(&attr);
}

#define POLL_MIN_NS 8000u  // less is no use

uint64_t thread_adapt_polling(uint64_t poll_ns, uint64_t waited_ns, uint64_t at_most_ns)
{
    if (waited_ns > at_most_ns)
        return poll_ns / 2 < POLL_MIN_NS ? 0 : poll_ns / 2;
    uint64_t more = poll_ns < POLL_MIN_NS ? POLL_MIN_NS : 2 * poll_ns;
    return more < at_most_ns ? more : at_most_ns;
}

void thread_be_nicer(unsigned by)
{
    struct sched_attr attr;

    if (!get_attr(&attr))
        return;
    attr.sched_nice = nicer(&attr, by);
    set_attr(&attr);
}

void thread_group_be_nicer(unsigned by)
{
    struct sched_attr attr;

    if (get_attr(&attr))
        setpriority(PRIO_PGRP, 0, nicer(&attr, by));
}
