// SPDX-License-Identifier: BSD-2-Clause
// supervisor: the trusted side that opens what belongs to the host, and hands it to partitions as
// descriptors.
#ifndef STRAKE_SUPERVISOR_H
#define STRAKE_SUPERVISOR_H

#include "base/base.h"

// All return a descriptor (close-on-exec), or a negative errno with *err naming the object.

// A file to be read from the start: `what` is its role in messages ("kernel", "initrd"). Folders
// and empty files are refused.
BASE_NODISCARD int supervisor_open_image(const char *path, const char *what, struct error *err);

// A disk: a regular file or a block device, locked against any other use (open-file-description
// lock: shared when read-only, else exclusive; the lock lives as long as the descriptor and its
// copies).
BASE_NODISCARD int supervisor_open_disk(const char *path, bool read_only, struct error *err);

// The tap interface `name`, with vnet headers. It is created when the caller may do that and it
// does not exist.
BASE_NODISCARD int supervisor_open_tap(const char *name, struct error *err);

// The file in which Linux' perf looks for names of this process's generated code,
// /tmp/perf-PID.map: empty, to be read and written. What an earlier process left is replaced.
BASE_NODISCARD int supervisor_open_perf_map(struct error *err);
// Removes it again, where nothing came of the process.
void supervisor_discard_perf_map(void);

#endif
