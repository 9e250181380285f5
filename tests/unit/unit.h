// SPDX-License-Identifier: BSD-2-Clause
// What every unit test includes: cmocka with the headers that it wants before it.
#ifndef STRAKE_TESTS_UNIT_H
#define STRAKE_TESTS_UNIT_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#endif
