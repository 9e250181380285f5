// SPDX-License-Identifier: BSD-2-Clause
// What every unit test includes: cmocka with the headers that it wants before it.
#ifndef STRAKE_TESTS_UNIT_H
#define STRAKE_TESTS_UNIT_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// Whether a sanitizer is built in: it needs memory and system calls that a test may want to forbid.
static inline bool sanitized(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#elif defined(__has_feature)
    return __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
    return false;
#endif
}

#endif
