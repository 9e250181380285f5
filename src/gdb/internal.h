// SPDX-License-Identifier: BSD-2-Clause
// What the files of this room share.
#ifndef STRAKE_GDB_INTERNAL_H
#define STRAKE_GDB_INTERNAL_H

#include "gdb/gdb.h"

// By GDB's number (gdb/riscv-tdep.h). 0, or -ENOENT or -EACCES. `machine`: also those that programs
// of an operating system have no business with.
int gdb_register_read(struct hart *hart, bool machine, uint64_t number, uint64_t *value);
int gdb_register_write(struct hart *hart, bool machine, uint64_t number, uint64_t value);
#define GDB_REGISTER_PC 32  // the last of those that are read and written together

// The target description, to be freed; NULL: no memory.
char *gdb_description(bool machine);

// Signals have numbers of GDB's own in the protocol. What the other side has no number for is 0,
// or, for GDB, unknown.
unsigned gdb_signal_of_linux(unsigned signal);
unsigned gdb_signal_to_linux(unsigned number);

#endif
