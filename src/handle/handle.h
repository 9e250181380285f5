// SPDX-License-Identifier: BSD-2-Clause
// handle: lock-free hierarchical handle tables. The contract is the installed header: programs
// other than strake use the same.
#ifndef STRAKE_HANDLE_H
#define STRAKE_HANDLE_H

#include <strake/handle.h>

#endif
