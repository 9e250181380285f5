// SPDX-License-Identifier: BSD-2-Clause
// Mounts of the host. fusermount3 (of Debian's fuse3) is what ordinary users mount with: it is
// set-uid, opens /dev/fuse, mounts, and sends the descriptor over the socket that _FUSE_COMMFD
// names.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "leverage/mount_host.h"

#define TYPE "fuse.strake"
#define READ_AHEAD_KIB "4096"
#define HELPER "fusermount3"
#define HELPER_SECONDS 30
#define SOCKET_FD 3  // the helper's

extern char **environ;

// ---- What is mounted ----------------------------------------------------------------------------

// In place: \ooo stands for a byte (proc_pid_mountinfo(5)).
static void unescape(char *text)
{
    char *to = text;
    for (; *text; text++) {
        bool escaped = text[0] == '\\' && text[1] && text[2] && text[3];
        char digits[4] = "";
        if (escaped)
            memcpy(digits, text + 1, 3);
        *to++ = escaped ? (char)strtoul(digits, NULL, 8) : *text;
        text += escaped ? 3 : 0;
    }
    *to = 0;
}

// Whether the line is about one of ours in that folder; its device, "MAJOR:MINOR".
static bool is_ours(char *line, const char *folder, char device[static 32])
{
    char place[PATH_MAX], type[64];
    const char *rest = strstr(line, " - ");
    if (!rest || sscanf(line, "%*s %*s %31s %*s %4095s", device, place) != 2 ||
        sscanf(rest, " - %63s", type) != 1)
        return false;
    unescape(place);
    return strcmp(place, folder) == 0 && strcmp(type, TYPE) == 0;
}

static bool find_mount(const char *folder, char device[static 32])
{
    char *line = NULL;
    size_t bytes = 0;
    bool found = false;
    FILE *table = fopen("/proc/self/mountinfo", "re");
    if (!table)
        return false;
    while (!found && getline(&line, &bytes, table) >= 0)
        found = is_ours(line, folder, device);
    free(line);
    fclose(table);
    return found;
}

void host_read_ahead(const char *folder)
{
    char device[32], path[96];
    if (!find_mount(folder, device))
        return;
    snprintf(path, sizeof(path), "/sys/class/bdi/%s/read_ahead_kb", device);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, READ_AHEAD_KIB, strlen(READ_AHEAD_KIB)) < 0)
        log_line(LOG_DEBUG, "cannot set how much is read ahead: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
}

// ---- fusermount3 --------------------------------------------------------------------------------

// The process, with our end's peer as its SOCKET_FD (-1: none); or a negative errno.
static pid_t start_helper(char *const *arguments, int socket)
{
    posix_spawn_file_actions_t actions;
    pid_t pid;
    setenv("_FUSE_COMMFD", "3", 1);
    posix_spawn_file_actions_init(&actions);
    if (socket >= 0)
        posix_spawn_file_actions_adddup2(&actions, socket, SOCKET_FD);
    int rc = posix_spawnp(&pid, HELPER, &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    return rc ? -rc : pid;
}

// 0, or -EIO: it has said why on stderr.
static int wait_for(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

static int receive_descriptor(int socket)
{
    char byte;
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    const struct timeval limit = {.tv_sec = HELPER_SECONDS};
    int fd;
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) <= 0)
        return -EIO;
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (!header || header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(sizeof(int)))
        return -EIO;
    memcpy(&fd, CMSG_DATA(header), sizeof(fd));
    return fd;
}

// Commas and backslashes separate and escape in what mounts are given as options.
static void escape_option(char *to, size_t room, const char *text)
{
    for (; *text && room > 2; text++) {
        if (*text == ',' || *text == '\\') {
            *to++ = '\\';
            room--;
        }
        *to++ = *text;
        room--;
    }
    *to = 0;
}

static int mount_as_user(const char *image, const char *folder, bool read_only, struct error *err)
{
    char name[PATH_MAX], options[PATH_MAX + 64];
    escape_option(name, sizeof(name), image);
    snprintf(options, sizeof(options), "%s,nosuid,nodev,subtype=strake,fsname=%s",
             read_only ? "ro" : "rw", name);
    char *arguments[] = {HELPER, "-o", options, "--", (char *)folder, NULL};
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return error_set_errno(err, -errno, "cannot mount at \"%s\"", folder);
    pid_t pid = start_helper(arguments, ends[1]);
    close(ends[1]);
    int fd = pid < 0 ? pid : receive_descriptor(ends[0]);
    close(ends[0]);
    if (pid == -ENOENT)
        return error_set(
            err, pid, "cannot mount at \"%s\": \"" HELPER "\" (package fuse3) is missing", folder);
    if (pid >= 0)
        wait_for(pid);
    return fd < 0 ? error_set(err, fd, "\"" HELPER "\" did not mount at \"%s\"", folder) : fd;
}

// ---- Mounting -----------------------------------------------------------------------------------

static int mount_as_root(const char *image, const char *folder, bool read_only, struct error *err)
{
    char options[128];
    unsigned long flags = MS_NOSUID | MS_NODEV | (read_only ? MS_RDONLY : 0);
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return error_set_errno(err, -errno, "cannot open \"/dev/fuse\"");
    // The kernel checks permissions by the modes and owners that the image has.
    snprintf(options, sizeof(options),
             "fd=%d,rootmode=%o,user_id=0,group_id=0,default_permissions,allow_other", fd, S_IFDIR);
    if (mount(image, folder, TYPE, flags, options) == 0)
        return fd;
    int rc = -errno;
    close(fd);
    return error_set_errno(err, rc, "cannot mount at \"%s\"", folder);
}

int host_mount(const char *image, const char *folder, bool read_only, struct error *err)
{
    char device[32];
    if (find_mount(folder, device))
        return error_set(err, -EBUSY, "there is another image mounted at \"%s\"", folder);
    return geteuid() == 0 ? mount_as_root(image, folder, read_only, err)
                          : mount_as_user(image, folder, read_only, err);
}

// ---- Unmounting ---------------------------------------------------------------------------------

static int unmount(const char *folder)
{
    char *arguments[] = {HELPER, "-u", "-q", "--", (char *)folder, NULL};
    if (geteuid() == 0)
        return umount2(folder, UMOUNT_NOFOLLOW) < 0 ? -errno : 0;
    pid_t pid = start_helper(arguments, -1);
    return pid < 0 ? pid : wait_for(pid);
}

// What is not unmounted since it is in use is written, at least.
static void unmount_or_write(const char *folder)
{
    int fd = unmount(folder) < 0 ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0)
        syncfs(fd);
}

// A process, not a thread: it may hang until /dev/fuse is closed, which it must not hold open.
pid_t host_unmount_start(const char *folder)
{
    pid_t pid = fork();
    if (pid == 0) {
        close_range(STDERR_FILENO + 1, ~0u, 0);
        unmount_or_write(folder);
        _exit(0);
    }
    return pid < 0 ? -errno : pid;
}

int host_detach(const char *folder, struct error *err)
{
    char *arguments[] = {HELPER, "-u", "-q", "-z", "--", (char *)folder, NULL};
    char device[32];
    int rc = 0;
    if (!find_mount(folder, device))
        return 0;
    if (geteuid() != 0)
        rc = start_helper(arguments, -1);
    else if (umount2(folder, MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
        rc = -errno;
    if (rc > 0)
        rc = wait_for(rc);
    return rc < 0 ? error_set_errno(err, rc, "cannot unmount \"%s\"", folder) : 0;
}

bool host_remove_stale(const char *folder)
{
    char device[32];
    bool found = false;
    struct statfs st;
    struct error err;
    while (find_mount(folder, device) && statfs(folder, &st) < 0 && errno == ENOTCONN) {
        log_line(LOG_INFO, "\"%s\" was mounted by a process that is gone", folder);
        found = true;
        if (host_detach(folder, &err) < 0) {
            log_line(LOG_ERROR, "%s", err.message);
            break;
        }
    }
    return found;
}
