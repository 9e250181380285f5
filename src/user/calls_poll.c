// SPDX-License-Identifier: BSD-2-Clause
// epoll, whose structure x86-64 packs, and calls that wait with a mask of signals of their own,
// which pselect6 has behind two pointers.
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

#include "user/calls.h"

#define EVENTS_FEW 64
// Of one call: as many descriptors as a process has at most by default.
#define EVENTS_MAX (1 << 20)
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

// The mask of signals that a call waits with, and what the host's is given: NULL for the thread's.
static int take_mask(struct user_thread *thread, uint64_t gva, uint64_t *mask, uint64_t *given)
{
    *mask = thread->blocked;
    *given = gva ? (uint64_t)(uintptr_t)mask : 0;
    return gva ? user_copy_in(thread, mask, gva, sizeof(*mask)) : 0;
}

// `timeout` as epoll_pwait takes it, or a pointer for epoll_pwait2.
static int64_t wait_events(struct user_thread *thread, long number, const uint64_t a[6],
                           uint64_t timeout)
{
    struct epoll_event few[EVENTS_FEW], *events = few;
    int wanted = (int)a[2];
    uint64_t bytes = wanted > 0 ? (uint64_t)wanted * sizeof(struct guest_epoll_event) : 0;
    uint64_t mask, given;
    void *to;
    int64_t count;
    int rc = user_call_buffer(thread, a[1], bytes, HART_STORE, &to);

    if (rc == 0)
        rc = take_mask(thread, a[4], &mask, &given);
    if (rc)
        return rc;
    wanted = wanted > EVENTS_MAX ? EVENTS_MAX : wanted;
    if (wanted > EVENTS_FEW)
        events = malloc((size_t)wanted * sizeof(*events));
    if (!events)
        return -ENOMEM;
    count = user_host_call(thread, number, a[0], (uint64_t)(uintptr_t)events, (uint64_t)wanted,
                           timeout, given, a[5]);
    rc = count > 0 ? put_events(thread, a[1], events, count) : 0;
    if (events != few)
        free(events);
    return rc ? rc : user_signal_waited(thread, mask, count);
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
    } given = {0};
    uint64_t mask;
    int count = (int)arguments[0];
    uint64_t set_bytes = count > 0 ? ((uint64_t)count + word_bits - 1) / word_bits * 8 : 0;
    void *sets[4];
    int rc = 0;

    if (count < 0 || count > (int)FDS_MAX)
        return -EINVAL;
    for (unsigned i = 1; rc == 0 && i < time_index; i++)
        rc = user_call_buffer(thread, arguments[i], set_bytes, HART_STORE, &sets[i]);
    if (rc == 0)
        rc = user_call_buffer(thread, arguments[time_index], sizeof(struct timespec), HART_STORE,
                              &sets[0]);
    if (rc == 0 && arguments[mask_index])
        rc = user_copy_in(thread, &given, arguments[mask_index], sizeof(given));
    if (rc == 0)
        rc = take_mask(thread, given.mask, &mask, &given.mask);
    if (rc)
        return rc;
    int64_t ready = user_host_call(thread, SYS_pselect6, arguments[0], (uint64_t)(uintptr_t)sets[1],
                                   (uint64_t)(uintptr_t)sets[2], (uint64_t)(uintptr_t)sets[3],
                                   (uint64_t)(uintptr_t)sets[0], (uint64_t)(uintptr_t)&given);
    return user_signal_waited(thread, mask, ready);
}

int64_t user_ppoll(struct user_thread *thread, const uint64_t arguments[6])
{
    void *polled, *timeout;
    uint64_t mask, given;
    int rc = user_call_buffer(thread, arguments[0], (uint32_t)arguments[1] * sizeof(struct pollfd),
                              HART_STORE, &polled);

    if (rc == 0)
        rc = user_call_buffer(thread, arguments[2], sizeof(struct timespec), HART_STORE, &timeout);
    if (rc == 0)
        rc = take_mask(thread, arguments[3], &mask, &given);
    if (rc)
        return rc;
    int64_t ready =
        user_host_call(thread, SYS_ppoll, (uint64_t)(uintptr_t)polled, (uint32_t)arguments[1],
                       (uint64_t)(uintptr_t)timeout, given, arguments[4], 0);
    return user_signal_waited(thread, mask, ready);
}
