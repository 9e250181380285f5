// SPDX-License-Identifier: BSD-2-Clause
// mount_host: mounts of FUSE file systems on the host, as root by mount(2), as an ordinary user by
// fusermount3. Private to this room; the kind `mount` uses it.
#ifndef STRAKE_LEVERAGE_MOUNT_HOST_H
#define STRAKE_LEVERAGE_MOUNT_HOST_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/base.h"

// All folders are absolute paths without symbolic links.

// Mounts a file system that is called after `image`; programs in it gain no rights, device nodes
// do nothing. Returns /dev/fuse, by which it is served from now on, or a negative errno with *err
// set.
BASE_NODISCARD int host_mount(const char *image, const char *folder, bool read_only,
                              struct error *err);
// Starts a process that unmounts it, or, when somebody uses it, has all that is cached written; it
// waits for the server, so that the caller must not. Returns the process, or a negative errno.
BASE_NODISCARD pid_t host_unmount_start(const char *folder);
// Unmounts it though it be in use. Its server must be gone. 0, or a negative errno with *err set;
// nothing being mounted is fine.
BASE_NODISCARD int host_detach(const char *folder, struct error *err);
// Unmounts what was left by a server that is gone; whether there was something.
bool host_remove_stale(const char *folder);
// Has more read ahead than is usual, where that is possible.
void host_read_ahead(const char *folder);

#endif
