// SPDX-License-Identifier: BSD-2-Clause
// Who handles SIGSEGV and SIGBUS. Signal handlers belong to the process, so this is one of the few
// things here that do.
#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "base/base.h"

#define HANDLERS_MAX 8u

static fault_handler *_Atomic handlers[HANDLERS_MAX];
static const int signals[] = {SIGSEGV, SIGBUS};
// What handles what is nobody's.
static struct sigaction previous[BASE_COUNT_OF(signals)];
static pthread_mutex_t install_lock = PTHREAD_MUTEX_INITIALIZER;

// A crash, or sent. Whoever handled it before gets it, and may go on doing so; where nobody did, or
// whoever is to handle but one, at the same instruction again.
static void pass_on(int signal, siginfo_t *info, void *context)
{
    const struct sigaction *to = &previous[signal == SIGBUS];

    if ((to->sa_flags & SA_SIGINFO) && !(to->sa_flags & (int)SA_RESETHAND) && to->sa_sigaction) {
        to->sa_sigaction(signal, info, context);
        return;
    }
    sigaction(signal, to, NULL);
    if (info->si_code <= 0)
        raise(signal);
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
    int saved = errno;
    bool handled = false;

    // A signal that was sent says nothing of an access.
    for (size_t i = 0; info->si_code > 0 && !handled && i < HANDLERS_MAX; i++) {
        fault_handler *handler = handlers[i];
        handled = handler && handler(info->si_addr, context);
    }
    if (!handled)
        pass_on(signal, info, context);
    errno = saved;
}

static int install(size_t i)
{
    const struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    struct sigaction now;

    if (sigaction(signals[i], NULL, &now) < 0)
        return -errno;
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_fault)
        return 0;
    previous[i] = now;
    return sigaction(signals[i], &action, NULL) < 0 ? -errno : 0;
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
    for (size_t i = 0; rc == 0 && i < BASE_COUNT_OF(signals); i++)
        rc = install(i);
    pthread_mutex_unlock(&install_lock);
    return rc;
}
