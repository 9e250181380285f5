// SPDX-License-Identifier: BSD-2-Clause
// Initialisers of struct user_argument, short, for tables only.
#ifndef STRAKE_USER_CALLS_DESCRIBE_H
#define STRAKE_USER_CALLS_DESCRIBE_H

#include "user/calls.h"

// clang-format off
#define VALUE {0}
#define PATH {USER_ARGUMENT_PATH}
#define LINK {USER_ARGUMENT_LINK}
#define CHANGE {USER_ARGUMENT_CHANGE}
#define STRING {USER_ARGUMENT_STRING}
// Memory of so many bytes,
#define IN(bytes) {USER_ARGUMENT_IN, USER_LENGTH_FIXED, 0, bytes}
#define OUT(bytes) {USER_ARGUMENT_OUT, USER_LENGTH_FIXED, 0, bytes}
#define IN_OUT(bytes) {USER_ARGUMENT_IN_OUT, USER_LENGTH_FIXED, 0, bytes}
// of as many elements as argument `of` says,
#define IN_N(of, bytes) {USER_ARGUMENT_IN, USER_LENGTH_COUNT, of, bytes}
#define OUT_N(of, bytes) {USER_ARGUMENT_OUT, USER_LENGTH_COUNT, of, bytes}
#define IN_OUT_N(of, bytes) {USER_ARGUMENT_IN_OUT, USER_LENGTH_COUNT, of, bytes}
// of as many as the number that argument `of` points to says,
#define OUT_AT(of) {USER_ARGUMENT_OUT, USER_LENGTH_AT, of, 0}
// of so many and as many as its first four bytes say.
#define IN_SELF(bytes) {USER_ARGUMENT_IN, USER_LENGTH_SELF, 0, bytes}
#define IN_OUT_SELF(bytes) {USER_ARGUMENT_IN_OUT, USER_LENGTH_SELF, 0, bytes}
// clang-format on

#endif
