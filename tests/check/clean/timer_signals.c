// SPDX-License-Identifier: BSD-2-Clause
// Signals come at any time, while memory is allocated and freed.
// kind: none
#include "twin.h"
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

static volatile sig_atomic_t ticks;

static void on_tick(int number)
{
    char local[200];
    memset(HIDE(&local[0]), number, sizeof(local));
    ticks = ticks + 1;
}

int main(void)
{
    struct itimerval every = {{0, 2000}, {0, 2000}};
    signal(SIGALRM, on_tick);
    setitimer(ITIMER_REAL, &every, NULL);
    while (ticks < 20) {
        size_t last = (size_t)ticks * 10;
        char *block = malloc(last + 1);
        HIDE(block)[last] = 1;
        free(block);
    }
    return 0;
}
