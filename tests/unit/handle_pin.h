// SPDX-License-Identifier: BSD-2-Clause
// Keeps the calling thread, and those it starts, on one processor: there a table's indices are
// issued in order. A thread that moves takes up another word of unused slots.
#ifndef STRAKE_TESTS_HANDLE_PIN_H
#define STRAKE_TESTS_HANDLE_PIN_H

#include <sched.h>

static inline int handle_pin(void **state)
{
    (void)state;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    return sched_setaffinity(0, sizeof(one), &one);
}

#endif
