// SPDX-License-Identifier: BSD-2-Clause
// Making the program's system calls: arguments as calls_table.c describes them, or a function.
#include "user/calls.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

int user_call_buffer(struct user_thread *thread, uint64_t gva, uint64_t bytes,
                     enum hart_access access, void **hva)
{
    // Where nothing is to be moved, Linux does not look at the address.
    if (gva == 0 || bytes == 0) {
        *hva = NULL;
        return 0;
    }
    return user_buffer(thread, gva, bytes, access, hva);
}

int user_call_path(struct user_thread *thread, uint64_t gva, enum user_path_use use,
                   const char **path)
{
    const char *text;
    int rc;

    *path = NULL;
    if (gva == 0)
        return 0;
    rc = user_string(thread, gva, &text);
    if (rc)
        return rc;
    if (use == USER_PATH_READ && thread->process->exe && user_proc_is_exe(text)) {
        *path = thread->process->exe;
        return 0;
    }
    *path = user_path(thread, text, use);
    return 0;
}

int user_call_vector(struct user_thread *thread, uint64_t gva, uint64_t count,
                     enum hart_access access, struct iovec vector[static IOV_MAX])
{
    int rc;

    if (count > IOV_MAX)
        return -EINVAL;
    rc = user_copy_in(thread, vector, gva, count * sizeof(*vector));
    for (uint64_t i = 0; rc == 0 && i < count; i++) {
        if ((ssize_t)vector[i].iov_len < 0)
            return -EINVAL;
        rc = user_call_buffer(thread, (uint64_t)(uintptr_t)vector[i].iov_base, vector[i].iov_len,
                              access, &vector[i].iov_base);
    }
    return rc;
}

// ---- Arguments

// A length that is more than there is memory is UINT64_MAX.
static int argument_bytes(struct user_thread *thread, const struct user_argument *argument,
                          const uint64_t arguments[6], unsigned index, uint64_t *bytes)
{
    uint32_t there;
    int rc = 0;

    *bytes = argument->bytes;
    switch (argument->length) {
    case USER_LENGTH_COUNT:
        if (__builtin_mul_overflow(arguments[argument->of], argument->bytes, bytes))
            *bytes = UINT64_MAX;
        break;
    case USER_LENGTH_AT:
        rc = user_copy_in(thread, &there, arguments[argument->of], sizeof(there));
        *bytes = rc ? 0 : there;
        break;
    case USER_LENGTH_SELF:
        rc = user_copy_in(thread, &there, arguments[index], sizeof(there));
        *bytes += rc ? 0 : there;
        if (*bytes < sizeof(there))
            *bytes = sizeof(there);
        break;
    default:
        break;
    }
    return rc;
}

static int translate_buffer(struct user_thread *thread, const struct user_argument *argument,
                            const uint64_t arguments[6], unsigned index, void **hva)
{
    enum hart_access access = argument->kind == USER_ARGUMENT_IN ? HART_LOAD : HART_STORE;
    uint64_t bytes;
    int rc;

    *hva = NULL;
    if (arguments[index] == 0)
        return 0;
    rc = argument_bytes(thread, argument, arguments, index, &bytes);
    return rc ? rc : user_call_buffer(thread, arguments[index], bytes, access, hva);
}

int user_argument_translate(struct user_thread *thread, const struct user_argument *argument,
                            const uint64_t arguments[6], unsigned index, uint64_t *value)
{
    static const uint8_t uses[] = {[USER_ARGUMENT_PATH] = USER_PATH_READ,
                                   [USER_ARGUMENT_LINK] = USER_PATH_READ_NOFOLLOW,
                                   [USER_ARGUMENT_CHANGE] = USER_PATH_WRITE};
    const char *path;
    void *hva;
    int rc;

    switch (argument->kind) {
    case USER_ARGUMENT_VALUE:
        *value = arguments[index];
        return 0;
    case USER_ARGUMENT_PATH:
    case USER_ARGUMENT_LINK:
    case USER_ARGUMENT_CHANGE:
        rc = user_call_path(thread, arguments[index], uses[argument->kind], &path);
        *value = rc ? 0 : (uint64_t)(uintptr_t)path;
        return rc;
    case USER_ARGUMENT_STRING:
        rc = user_call_buffer(thread, arguments[index], 1, HART_LOAD, &hva);
        break;
    default:
        rc = translate_buffer(thread, argument, arguments, index, &hva);
    }
    *value = rc ? 0 : (uint64_t)(uintptr_t)hva;
    return rc;
}

// ---- Calls

static int64_t call_host(struct user_thread *thread, const struct user_call *call,
                         const uint64_t arguments[6])
{
    uint64_t a[6];

    for (unsigned i = 0; i < 6; i++) {
        int rc = user_argument_translate(thread, &call->arguments[i], arguments, i, &a[i]);
        if (rc)
            return rc;
    }
    return user_host_call(thread, call->host, a[0], a[1], a[2], a[3], a[4], a[5]);
}

void user_call_report(struct user_thread *thread, unsigned which, const char *fmt, ...)
{
    _Atomic uint64_t *reported = thread->process->reported;
    char text[128];
    va_list list;

    if (which >= USER_REPORTS_MAX ||
        (atomic_fetch_or(&reported[which / 64], 1ull << which % 64) >> which % 64 & 1))
        return;
    va_start(list, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, list);
    va_end(list);
    log_line(LOG_WARN, "%s", text);
}

static int64_t make_call(struct user_thread *thread, uint64_t number, const struct user_call *call,
                         const uint64_t arguments[6])
{
    switch (call ? call->how : USER_CALL_NONE) {
    case USER_CALL_FUNCTION:
        return call->fn(thread, arguments);
    case USER_CALL_HOST:
        return call_host(thread, call, arguments);
    case USER_CALL_REFUSED:
        return -call->error;
    case USER_CALL_MISSING:
        user_call_report(thread, (unsigned)number, "the system call '%s' is not there", call->name);
        return -ENOSYS;
    default:
        return -ENOSYS;
    }
}

int64_t user_call_make(struct user_thread *thread, uint64_t number, const uint64_t arguments[6])
{
    const struct user_call *call = user_call_find(number);

    thread->call = call ? call->name : NULL;
    int64_t result = make_call(thread, number, call, arguments);
    thread->call = NULL;
    return result;
}
