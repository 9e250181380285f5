// SPDX-License-Identifier: BSD-2-Clause
#ifndef SIEVE_H
#define SIEVE_H

#include <stdarg.h>
#include <stddef.h>

size_t sieve_count(size_t limit);  // how many primes are below it

#endif
