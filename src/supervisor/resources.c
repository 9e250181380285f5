// SPDX-License-Identifier: BSD-2-Clause
// Host resources, opened with all the checks that a clear message needs.
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/supervisor.h"

static int close_with(int fd, int rc)
{
    close(fd);
    return rc;
}

int supervisor_open_image(const char *path, const char *what, struct error *err)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);  // a FIFO would wait for a writer
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set_errno(err, -errno, "cannot open %s \"%s\"", what, path);
    if (!S_ISREG(st.st_mode))
        return close_with(
            fd, error_set(err, -EINVAL, "cannot use %s \"%s\": not a regular file", what, path));
    if (st.st_size == 0)
        return close_with(
            fd, error_set(err, -EINVAL, "cannot use %s \"%s\": the file is empty", what, path));
    return fd;
}

// Takes the lock, or says whose it is as far as the system tells.
static int lock_disk(int fd, const char *path, bool read_only, struct error *err)
{
    struct flock lock = {.l_type = read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
        return 0;
    if (errno == EAGAIN || errno == EACCES)
        return error_set(err, -EBUSY,
                         "cannot open disk \"%s\": it is in use by this or another partition",
                         path);
    return error_set_errno(err, -errno, "cannot lock disk \"%s\"", path);
}

int supervisor_open_disk(const char *path, bool read_only, struct error *err)
{
    int fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_NONBLOCK | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set_errno(err, -errno, "cannot open disk \"%s\"", path);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return close_with(fd, error_set(err, -EINVAL,
                                        "cannot use disk \"%s\": neither a regular file nor a "
                                        "block device",
                                        path));
    off_t length = lseek(fd, 0, SEEK_END);
    if (length < 512)
        return close_with(
            fd, error_set(err, -EINVAL, "cannot use disk \"%s\": less than one sector", path));
    int rc = lock_disk(fd, path, read_only, err);
    return rc < 0 ? close_with(fd, rc) : fd;
}

int supervisor_open_tap(const char *name, struct error *err)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    if (strlen(name) >= sizeof(request.ifr_name))
        return error_set(err, -EINVAL, "cannot open tap \"%s\": the name is longer than %d", name,
                         IFNAMSIZ - 1);
    memcpy(request.ifr_name, name, strlen(name) + 1);
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return error_set_errno(err, -errno, "cannot open tap \"%s\": cannot open /dev/net/tun",
                               name);
    if (ioctl(fd, TUNSETIFF, &request) < 0)
        return close_with(fd, error_set_errno(err, -errno, "cannot open tap \"%s\"", name));
    return fd;
}

static void perf_map_path(char *path, size_t bytes)
{
    snprintf(path, bytes, "/tmp/perf-%d.map", (int)getpid());
}

// Anybody may have put anything under that name: it is never followed or reused. perf believes the
// file of its own user or root only.
int supervisor_open_perf_map(struct error *err)
{
    char path[64];
    perf_map_path(path, sizeof(path));
    const int flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    int fd = open(path, flags, 0600);
    if (fd < 0 && errno == EEXIST && unlink(path) == 0)
        fd = open(path, flags, 0600);
    if (fd < 0)
        return error_set_errno(err, -errno, "cannot create \"%s\" for perf", path);
    return fd;
}

void supervisor_discard_perf_map(void)
{
    char path[64];
    perf_map_path(path, sizeof(path));
    unlink(path);
}
