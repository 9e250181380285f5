// SPDX-License-Identifier: BSD-2-Clause
// Descriptors that are being opened. A file is opened anew by the number of a descriptor that was
// looked at (calls_file.c): until that has happened, no other thread may close this number or put
// another file there. As on Linux, where the number of a file that is being opened is taken and
// stands for nothing yet, dup3(2) to it says EBUSY, and close(2) EBADF.
//
// Who opens claims the number after it was given it, who closes claims it before; under one lock,
// so that one of them sees the other.
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "user/calls.h"

// The first descriptor of [first, last] that another thread has claimed, and the two may not do so
// at the same time; UINT64_MAX: none. A child that borrows its parent's memory has descriptors of
// its own, and is the only one to use them.
static uint64_t find_claimed(struct user_thread *thread, const struct user_claim *claim)
{
    uint64_t found = UINT64_MAX;  // programs pass UINT_MAX, which is none, too

    LIST_FOR_EACH(&thread->process->threads, node)
    {
        const struct user_thread *other = BASE_CONTAINER_OF(node, struct user_thread, node);
        const struct user_claim *its = &other->claim;
        if (other == thread || its->kind == USER_CLAIM_NONE ||
            (its->kind == USER_CLAIM_CLOSE && claim->kind == USER_CLAIM_CLOSE) ||
            its->first > claim->last || its->last < claim->first)
            continue;
        unsigned first = its->first > claim->first ? its->first : claim->first;
        found = first < found ? first : found;
    }
    return found;
}

// As much of the claim as is before what others have claimed. False: that is nothing.
static bool claim(struct user_thread *thread, struct user_claim claim)
{
    if (thread->borrows)
        return true;
    pthread_mutex_lock(&thread->process->lock);
    uint64_t claimed = find_claimed(thread, &claim);
    bool any = claimed > claim.first;
    if (any) {
        if (claimed <= claim.last)
            claim.last = (unsigned)claimed - 1;
        thread->claim = claim;
    }
    pthread_mutex_unlock(&thread->process->lock);
    return any;
}

static void drop(struct user_thread *thread)
{
    if (thread->borrows)
        return;
    pthread_mutex_lock(&thread->process->lock);
    thread->claim.kind = USER_CLAIM_NONE;
    pthread_mutex_unlock(&thread->process->lock);
}

int user_descriptor_opening(struct user_thread *thread, int fd)
{
    // Another thread that closes it may not have come to that, or be behind it: the number is its.
    while (!claim(thread, (struct user_claim){USER_CLAIM_OPEN, (unsigned)fd, (unsigned)fd})) {
        int other = fcntl(fd, F_DUPFD_CLOEXEC, fd + 1);
        int rc = -errno;
        close(fd);
        if (other < 0)
            return rc;
        fd = other;
    }
    return fd;
}

void user_descriptor_opened(struct user_thread *thread)
{
    drop(thread);
}

int64_t user_close(struct user_thread *thread, const uint64_t arguments[6])
{
    unsigned fd = (unsigned)arguments[0];

    if (!claim(thread, (struct user_claim){USER_CLAIM_CLOSE, fd, fd}))
        return -EBADF;
    int64_t rc = user_host_call(thread, SYS_close, fd, 0, 0, 0, 0, 0);
    drop(thread);
    return rc;
}

int64_t user_dup3(struct user_thread *thread, const uint64_t arguments[6])
{
    unsigned to = (unsigned)arguments[1];

    if (!claim(thread, (struct user_claim){USER_CLAIM_CLOSE, to, to}))
        return -EBUSY;
    int64_t rc = user_host_call(thread, SYS_dup3, arguments[0], to, arguments[2], 0, 0, 0);
    drop(thread);
    return rc;
}

// Around what is being opened. With flags nothing is closed, or only in a table that is this
// thread's alone by then, as a child's that borrows memory is.
int64_t user_close_range(struct user_thread *thread, const uint64_t arguments[6])
{
    unsigned first = (unsigned)arguments[0], last = (unsigned)arguments[1];
    int64_t rc = 0;

    if (arguments[2] || first > last || thread->borrows)
        return user_host_call(thread, SYS_close_range, first, last, arguments[2], 0, 0, 0);
    while (rc == 0 && first <= last) {
        if (claim(thread, (struct user_claim){USER_CLAIM_CLOSE, first, last})) {
            unsigned end = thread->claim.last;
            rc = user_host_call(thread, SYS_close_range, first, end, 0, 0, 0, 0);
            drop(thread);
            first = end;
        }
        if (first++ == UINT_MAX)
            break;
    }
    return rc;
}
