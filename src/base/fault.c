// SPDX-License-Identifier: BSD-2-Clause
// Who handles SIGSEGV. Signal handlers belong to the process, so this is one of the few things here
// that do.
#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "base/base.h"

#define HANDLERS_MAX 4u

static fault_handler *_Atomic handlers[HANDLERS_MAX];
// What handles what is nobody's.
static struct sigaction previous;
static pthread_mutex_t install_lock = PTHREAD_MUTEX_INITIALIZER;

static void on_fault(int signal, siginfo_t *info, void *context)
{
    int saved = errno;
    bool handled = false;

    // A signal that was sent says nothing of an access.
    for (size_t i = 0; info->si_code > 0 && !handled && i < HANDLERS_MAX; i++) {
        fault_handler *handler = handlers[i];
        handled = handler && handler(info->si_addr, context);
    }
    if (!handled) {
        // A crash, or sent. Whoever handled it before gets it, at the same instruction again.
        sigaction(signal, &previous, NULL);
        if (info->si_code <= 0)
            raise(signal);
    }
    errno = saved;
}

static int install(void)
{
    const struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    struct sigaction now;

    if (sigaction(SIGSEGV, NULL, &now) < 0)
        return -errno;
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_fault)
        return 0;
    previous = now;
    return sigaction(SIGSEGV, &action, NULL) < 0 ? -errno : 0;
}

int fault_handler_add(fault_handler *handler)
{
    int rc = -ENOSPC;

    pthread_mutex_lock(&install_lock);
    for (size_t i = 0; rc < 0 && i < HANDLERS_MAX; i++) {
        if (!handlers[i])
            handlers[i] = handler;
        if (handlers[i] == handler)
            rc = 0;
    }
    if (rc == 0)
        rc = install();
    pthread_mutex_unlock(&install_lock);
    return rc;
}
