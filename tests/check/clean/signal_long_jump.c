// SPDX-License-Identifier: BSD-2-Clause
// siglongjmp() out of a handler, again and again.
// kind: none
#include "twin.h"
#include <setjmp.h>
#include <signal.h>

static sigjmp_buf back;

static void on_signal(int number)
{
    siglongjmp(back, number);
}

int main(void)
{
    volatile int signals = 0;
    signal(SIGALRM, on_signal);
    for (int i = 0; i < 10; i++)
        if (sigsetjmp(back, 1) == 0)
            raise(SIGALRM);
        else
            signals = signals + 1;
    return signals != 10;
}
