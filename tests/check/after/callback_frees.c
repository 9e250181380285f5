// SPDX-License-Identifier: BSD-2-Clause
// A callback frees the object that the caller goes on with.
// kind: heap-use-after-free
// access: write 4
// object: 24 bytes, at 16
#include "twin.h"
#include <stdlib.h>

struct timer {
    void (*expired)(struct timer *timer);
    void *opaque;
    int count;
};

static void on_expired(struct timer *timer)
{
    if (TWIN(1, 0))
        free(timer);  // @freed
}

static void timer_fire(struct timer *timer)
{
    timer->expired(timer);   // @freed
    HIDE(timer)->count = 1;  // @access
}

int main(void)
{
    struct timer *timer = malloc(sizeof(*timer));  // @allocated
    timer->expired = on_expired;
    timer_fire(HIDE(timer));
    if (TWIN(0, 1))
        free(timer);
    return 0;
}
