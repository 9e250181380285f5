// SPDX-License-Identifier: BSD-2-Clause
// The sysroot: a folder in which a program finds its libraries and other files that it reads before
// those of the host. Its symbolic links are followed within it, as if it were "/".
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "user/internal.h"

// What a program means by these is the host's, whatever the folder has.
static bool is_hosts(const char *path)
{
    static const char *const folders[] = {"/proc", "/dev",  "/sys",  "/tmp",
                                          "/run",  "/home", "/root", "/var/tmp"};
    for (size_t i = 0; i < BASE_COUNT_OF(folders); i++) {
        size_t length = strlen(folders[i]);
        if (strncmp(path, folders[i], length) == 0 && (path[length] == '/' || !path[length]))
            return true;
    }
    return path[strspn(path, "/")] == 0;
}

void user_descriptor_link(int fd, char link[static USER_LINK_BYTES])
{
    snprintf(link, USER_LINK_BYTES, "/proc/thread-self/fd/%d", fd);
}

int64_t user_descriptor_path(int fd, char path[static PATH_MAX])
{
    char link[USER_LINK_BYTES];

    user_descriptor_link(fd, link);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0)
        return -errno;
    path[length] = 0;
    return length;
}

bool user_path_below(const char *sysroot, const char *path, bool follow, char out[static PATH_MAX])
{
    const struct open_how how = {.flags = O_PATH | O_CLOEXEC | (follow ? 0u : O_NOFOLLOW),
                                 .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    if (!sysroot || path[0] != '/' || is_hosts(path))
        return false;
    int root = open(sysroot, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = root < 0 ? -1 : (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
    bool found = fd >= 0 && user_descriptor_path(fd, out) > 0 && out[0] == '/';
    if (fd >= 0)
        close(fd);
    if (root >= 0)
        close(root);
    return found;
}

const char *user_path(struct user_thread *thread, const char *path, enum user_path_use use)
{
    const char *sysroot = thread->process->sysroot;
    if (use == USER_PATH_WRITE || !sysroot || path[0] != '/')
        return path;
    char *below = user_string_buffer(thread);
    return user_path_below(sysroot, path, use == USER_PATH_READ, below) ? below : path;
}
