// SPDX-License-Identifier: BSD-2-Clause
// Programs that check the system they run on: each check is a line, the last says whether all held.
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check_failures;

static inline void check(bool holds, const char *what)
{
    printf("%s: %s\n", holds ? "ok" : "FAILED", what);
    fflush(stdout);
    check_failures += !holds;
}

static inline int check_done(void)
{
    printf("%d failures\n", check_failures);
    fflush(stdout);
    return check_failures != 0;
}

#endif
