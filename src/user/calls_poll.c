// SPDX-License-Identifier: BSD-2-Clause
// epoll, whose structure x86-64 packs, and pselect6, whose signal mask is behind two pointers.
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

#include "user/calls.h"

#define EVENTS_FEW 64
// Of one call: as many descriptors as a process has at most by default.
#define EVENTS_MAX (1 << 20)
#define SIGSET_BYTES 8
#define FDS_MAX (1u << 20)

struct guest_epoll_event {
    uint32_t events, pad;
    uint64_t data;
};

int64_t user_epoll_ctl(struct user_thread *thread, const uint64_t arguments[6])
{
    struct guest_epoll_event guest;
    struct epoll_event host, *event = NULL;

    if (arguments[3] && (int)arguments[1] != EPOLL_CTL_DEL) {
        int rc = user_copy_in(thread, &guest, arguments[3], sizeof(guest));
        if (rc)
            return rc;
        host = (struct epoll_event){.events = guest.events, .data.u64 = guest.data};
        event = &host;
    }
    return user_host_call(thread, SYS_epoll_ctl, arguments[0], arguments[1], arguments[2],
                          (uint64_t)(uintptr_t)event, 0, 0);
}

static int put_events(struct user_thread *thread, uint64_t gva, const struct epoll_event *events,
                      int64_t count)
{
    struct guest_epoll_event guest[EVENTS_FEW];
    int64_t some;
    int rc = 0;

    for (; rc == 0 && count > 0; count -= some, events += some, gva += sizeof(guest)) {
        some = count < EVENTS_FEW ? count : EVENTS_FEW;
        for (int64_t i = 0; i < some; i++)
            guest[i] =
                (struct guest_epoll_event){.events = events[i].events, .data = events[i].data.u64};
        rc = user_copy_out(thread, gva, guest, (size_t)some * sizeof(*guest));
    }
    return rc;
}

// `timeout` as epoll_pwait takes it, or a pointer for epoll_pwait2.
static int64_t wait_events(struct user_thread *thread, long number, const uint64_t a[6],
                           uint64_t timeout)
{
    struct epoll_event few[EVENTS_FEW], *events = few;
    int wanted = (int)a[2];
    uint64_t bytes = wanted > 0 ? (uint64_t)wanted * sizeof(struct guest_epoll_event) : 0;
    void *mask, *to;
    int64_t count;
    int rc = user_call_buffer(thread, a[1], bytes, HART_STORE, &to);

    if (rc == 0)
        rc = user_call_buffer(thread, a[4], SIGSET_BYTES, HART_LOAD, &mask);
    if (rc)
        return rc;
    wanted = wanted > EVENTS_MAX ? EVENTS_MAX : wanted;
    if (wanted > EVENTS_FEW)
        events = malloc((size_t)wanted * sizeof(*events));
    if (!events)
        return -ENOMEM;
    count = user_host_call(thread, number, a[0], (uint64_t)(uintptr_t)events, (uint64_t)wanted,
                           timeout, (uint64_t)(uintptr_t)mask, a[5]);
    rc = count > 0 ? put_events(thread, a[1], events, count) : 0;
    if (events != few)
        free(events);
    return rc ? rc : count;
}

int64_t user_epoll_pwait(struct user_thread *thread, const uint64_t arguments[6])
{
    return wait_events(thread, SYS_epoll_pwait, arguments, arguments[3]);
}

int64_t user_epoll_pwait2(struct user_thread *thread, const uint64_t arguments[6])
{
    void *timeout;
    int rc = user_call_buffer(thread, arguments[3], sizeof(struct timespec), HART_LOAD, &timeout);

    return rc ? rc : wait_events(thread, SYS_epoll_pwait2, arguments, (uint64_t)(uintptr_t)timeout);
}

int64_t user_pselect6(struct user_thread *thread, const uint64_t arguments[6])
{
    const unsigned time_index = 4, mask_index = 5, word_bits = 64;
    struct {
        uint64_t mask, bytes;
    } mask = {0};
    int count = (int)arguments[0];
    uint64_t set_bytes = count > 0 ? ((uint64_t)count + word_bits - 1) / word_bits * 8 : 0;
    void *sets[4], *hva;
    int rc = 0;

    if (count < 0 || count > (int)FDS_MAX)
        return -EINVAL;
    for (unsigned i = 1; rc == 0 && i < time_index; i++)
        rc = user_call_buffer(thread, arguments[i], set_bytes, HART_STORE, &sets[i]);
    if (rc == 0)
        rc = user_call_buffer(thread, arguments[time_index], sizeof(struct timespec), HART_STORE,
                              &sets[0]);
    if (rc == 0 && arguments[mask_index])
        rc = user_copy_in(thread, &mask, arguments[mask_index], sizeof(mask));
    if (rc == 0)
        rc = user_call_buffer(thread, mask.mask, SIGSET_BYTES, HART_LOAD, &hva);
    if (rc)
        return rc;
    mask.mask = (uint64_t)(uintptr_t)hva;
    return user_host_call(thread, SYS_pselect6, arguments[0], (uint64_t)(uintptr_t)sets[1],
                          (uint64_t)(uintptr_t)sets[2], (uint64_t)(uintptr_t)sets[3],
                          (uint64_t)(uintptr_t)sets[0], (uint64_t)(uintptr_t)&mask);
}
