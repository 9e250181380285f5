// SPDX-License-Identifier: BSD-2-Clause
// Error values: one sentence, filled where the failure happened.
#include <stdio.h>
#include <string.h>

#include "base/base.h"

int error_set(struct error *err, int code, const char *fmt, ...)
{
    if (!err)
        return code;
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->message, sizeof(err->message), fmt, args);
    va_end(args);
    err->code = code;
    return code;
}

int error_set_errno(struct error *err, int code, const char *fmt, ...)
{
    if (!err)
        return code;
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->message, sizeof(err->message), fmt, args);
    va_end(args);
    err->code = code;
    size_t used = strlen(err->message);
    snprintf(err->message + used, sizeof(err->message) - used, ": %s", strerrordesc_np(-code));
    return code;
}

int error_prefix(struct error *err, const char *fmt, ...)
{
    if (!err)
        return 0;
    char text[2 * ERROR_MESSAGE_BYTES];
    va_list args;
    va_start(args, fmt);
    int used = vsnprintf(text, ERROR_MESSAGE_BYTES, fmt, args);
    va_end(args);
    if (used < 0 || used >= ERROR_MESSAGE_BYTES)
        used = ERROR_MESSAGE_BYTES - 1;
    snprintf(text + used, sizeof(text) - (size_t)used, ": %s", err->message);
    memcpy(err->message, text, sizeof(err->message) - 1);
    return err->code;
}
