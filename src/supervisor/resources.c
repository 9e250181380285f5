// SPDX-License-Identifier: BSD-2-Clause
// Host resources, opened with all the checks that a clear message needs.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gdb/gdb.h"
#include "supervisor/supervisor.h"
#include "usernet/usernet.h"

#define HELPER_WAIT_MS 2000

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

// What exists has several queues or one by how it was made, and can only be opened as that.
static int refuse_tap(const char *name, bool several, int why, struct error *err)
{
    if (why != EINVAL)
        return error_set_errno(err, -why, "cannot open tap \"%s\"", name);
    return error_set(err, -EINVAL,
                     "cannot open tap \"%s\": it is no tap, or one made %s several queues "
                     "(multi_queue)",
                     name, several ? "without" : "with");
}

int supervisor_open_tap(const char *name, bool several, struct error *err)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    if (several)
        request.ifr_flags |= IFF_MULTI_QUEUE;
    if (strlen(name) >= sizeof(request.ifr_name))
        return error_set(err, -EINVAL, "cannot open tap \"%s\": the name is longer than %d", name,
                         IFNAMSIZ - 1);
    memcpy(request.ifr_name, name, strlen(name) + 1);
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return error_set_errno(err, -errno, "cannot open tap \"%s\": cannot open /dev/net/tun",
                               name);
    // An earlier user's offloads may be on still: the guest's driver is the one to ask for them.
    if (ioctl(fd, TUNSETIFF, &request) < 0 || ioctl(fd, TUNSETOFFLOAD, 0ul) < 0)
        return close_with(fd, refuse_tap(name, several, errno, err));
    return fd;
}

// ---- The map for perf ---------------------------------------------------------------------------

static void perf_map_path(char *path, size_t bytes, pid_t pid)
{
    snprintf(path, bytes, "/tmp/perf-%d.map", (int)pid);
}

// Anybody may have put anything under that name: it is never followed or reused. perf believes the
// file of its own user or root only.
int supervisor_open_perf_map(pid_t pid, struct error *err)
{
    char path[64];
    perf_map_path(path, sizeof(path), pid);
    const int flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    int fd = open(path, flags, 0600);
    if (fd < 0 && errno == EEXIST && unlink(path) == 0)
        fd = open(path, flags, 0600);
    if (fd < 0)
        return error_set_errno(err, -errno, "cannot create \"%s\" for perf", path);
    return fd;
}

void supervisor_discard_perf_map(pid_t pid)
{
    char path[64];
    perf_map_path(path, sizeof(path), pid);
    unlink(path);
}

// ---- All of a partition -------------------------------------------------------------------------

static int add(struct descriptors *fds, const char *what, int number, int fd, struct error *err)
{
    char name[DESCRIPTOR_NAME_BYTES];
    if (fd < 0)
        return fd;  // *err is set
    snprintf(name, sizeof(name), number < 0 ? "%s" : "%s%d", what, number);
    int rc = descriptors_add(fds, name, fd);
    return rc < 0 ? error_set_errno(err, rc, "cannot hold the partition's resources") : 0;
}

static int open_images(const struct definition *definition, struct descriptors *fds,
                       struct error *err)
{
    const struct {
        const char *what, *path;
    } images[] = {
        {"firmware", definition->firmware},
        {"kernel", definition->kernel},
        {"initrd", definition->initrd},
    };
    int rc = 0;
    for (size_t i = 0; i < BASE_COUNT_OF(images) && rc == 0; i++)
        if (images[i].path)
            rc = add(fds, images[i].what, -1,
                     supervisor_open_image(images[i].path, images[i].what, err), err);
    for (size_t i = 0; i < definition->symbols_count && rc == 0; i++)
        rc = add(fds, "symbols", (int)i,
                 supervisor_open_image(definition->symbols[i], "symbols", err), err);
    return rc;
}

// The helper process of user mode ends by itself when the other descriptor is closed.
static int open_user_net(const struct definition_net *net, int number, struct descriptors *fds,
                         struct error *err)
{
    struct usernet_process helper;
    int rc = usernet_launch(&helper, net->forwards, net->forward_count, err);
    if (rc < 0)
        return rc;
    rc = add(fds, "net", number, helper.fd, err);
    int pidfd = rc < 0 ? -1 : pidfd_open(helper.pid, 0);
    if (rc == 0 && pidfd < 0)
        rc = error_set_errno(err, -errno, "cannot set up the user network");
    return rc < 0 ? rc : add(fds, "net-process", number, pidfd, err);
}

static int open_net(const struct definition_net *net, int number, struct descriptors *fds,
                    struct error *err)
{
    int rc = net->tap ? 0 : open_user_net(net, number, fds, err);
    for (unsigned queue = 0; net->tap && queue < net->queues && rc == 0; queue++) {
        char name[DESCRIPTOR_NAME_BYTES];
        descriptors_name_net(name, (size_t)number, queue);
        rc = add(fds, name, -1, supervisor_open_tap(net->tap, net->queues > 1, err), err);
    }
    return rc;
}

static int open_devices(const struct definition *definition, struct descriptors *fds,
                        struct error *err)
{
    int rc = 0;
    for (size_t i = 0; i < definition->disk_count && rc == 0; i++) {
        const struct definition_disk *disk = &definition->disks[i];
        rc = add(fds, "disk", (int)i, supervisor_open_disk(disk->path, disk->read_only, err), err);
    }
    for (size_t i = 0; i < definition->net_count && rc == 0; i++)
        rc = open_net(&definition->nets[i], (int)i, fds, err);
    return rc;
}

static int open_sockets(const struct definition *definition, struct descriptors *fds,
                        struct error *err)
{
    int rc = 0;
    if (definition->gdb)
        rc = add(fds, "gdb-listen", -1, gdb_listen(definition->gdb, err), err);
    // Last, as it leaves something behind in the file system.
    if (rc == 0 && definition->vsock_cid) {
        rc = add(fds, "vsock-listen", -1, unix_listen(definition->vsock_path, err), err);
        if (rc < 0)
            error_prefix(err, "cannot give the guest vsock");
    }
    return rc;
}

int supervisor_open_resources(const struct definition *definition, struct descriptors *fds,
                              struct error *err)
{
    int rc = open_images(definition, fds, err);
    if (rc == 0)
        rc = open_devices(definition, fds, err);
    if (rc == 0)
        rc = open_sockets(definition, fds, err);
    if (rc < 0)
        supervisor_close_resources(fds);
    return rc;
}

int supervisor_connect_vsock(const char *path, uint32_t port)
{
    char of_port[PATH_MAX];
    int length = snprintf(of_port, sizeof(of_port), "%s_%u", path, port);
    return length < (int)sizeof(of_port) ? unix_connect(of_port, SOCK_STREAM) : -ENAMETOOLONG;
}

static void reap(int pidfd)
{
    struct pollfd exit = {.fd = pidfd, .events = POLLIN};
    siginfo_t info;
    if (poll(&exit, 1, HELPER_WAIT_MS) == 0)
        pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
    waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED);
    close(pidfd);
}

void supervisor_take_helpers(struct descriptors *fds, struct descriptors *helpers)
{
    for (unsigned i = 0; i < MACHINE_VIRTIO_SLOTS; i++) {
        char name[DESCRIPTOR_NAME_BYTES];
        snprintf(name, sizeof(name), "net-process%u", i);
        (void)!descriptors_add(helpers, name, descriptors_take(fds, name));
    }
}

void supervisor_reap_helpers(struct descriptors *helpers)
{
    while (helpers->count > 0)
        reap(helpers->list[--helpers->count].fd);
}

void supervisor_close_resources(struct descriptors *fds)
{
    struct descriptors helpers = {0};
    supervisor_take_helpers(fds, &helpers);
    descriptors_close(fds);
    supervisor_reap_helpers(&helpers);
}

void supervisor_discard_resources(const struct definition *definition)
{
    if (definition->vsock_cid)
        unlink(definition->vsock_path);
}
