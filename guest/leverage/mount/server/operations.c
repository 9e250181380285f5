// SPDX-License-Identifier: BSD-2-Clause
// What the host's kernel asks for, one function a request. It has checked permissions already, and
// knows what exists: it is trusted, and all is done as root.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "server.h"

// The reply as a struct, which is zero.
static void *reply_with(struct request *request, size_t bytes)
{
    request->reply_bytes = bytes;
    return memset(request->reply, 0, bytes);
}

static struct inode *target(const struct request *request)
{
    return inode_of(request->header->nodeid);
}

static int result(long rc)
{
    return rc < 0 ? -errno : 0;
}

// ---- Names --------------------------------------------------------------------------------------

static int enter(struct request *request, struct inode *parent, const char *name)
{
    int fd = openat(parent->path_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    return inode_enter(fd, reply_with(request, sizeof(struct fuse_entry_out)));
}

static int lookup(struct request *request)
{
    int rc = enter(request, target(request), request->body);
    if (rc != -ENOENT)
        return rc;
    // That there is nothing is remembered, too.
    struct fuse_entry_out *entry = reply_with(request, sizeof(*entry));
    entry->entry_valid = UINT32_MAX;
    return 0;
}

static int forget(struct request *request)
{
    const struct fuse_forget_in *in = request->body;
    inode_forget(request->header->nodeid, in->nlookup);
    return NO_REPLY;
}

static int batch_forget(struct request *request)
{
    const struct fuse_batch_forget_in *in = request->body;
    const struct fuse_forget_one *one = (const void *)(in + 1);
    for (uint32_t i = 0; i < in->count; i++)
        inode_forget(one[i].nodeid, one[i].nlookup);
    return NO_REPLY;
}

// What is new belongs to who asked for it, and to the folder's group where that is inherited.
static int give_to_caller(const struct request *request, const char *name, mode_t mode)
{
    const struct fuse_in_header *header = request->header;
    int folder = target(request)->path_fd;
    struct stat st;
    if (header->uid == 0 && header->gid == 0)
        return 0;
    if (fstatat(folder, "", &st, AT_EMPTY_PATH) < 0)
        return -errno;
    gid_t group = st.st_mode & S_ISGID ? (gid_t)-1 : header->gid;
    // Root is not permitted to by file systems that keep no owners, as vfat: all is root's there.
    if (fchownat(folder, name, header->uid, group, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == EPERM ? 0 : -errno;
    // Which takes these away.
    return mode & (S_ISUID | S_ISGID) && !S_ISDIR(mode)
               ? result(fchmodat(folder, name, mode & 07777, 0))
               : 0;
}

static int created(struct request *request, const char *name, mode_t mode, long rc)
{
    if (rc < 0)
        return -errno;
    rc = give_to_caller(request, name, mode);
    return rc < 0 ? (int)rc : enter(request, target(request), name);
}

static int make_node(struct request *request)
{
    const struct fuse_mknod_in *in = request->body;
    const char *name = (const char *)(in + 1);
    return created(request, name, in->mode,
                   mknodat(target(request)->path_fd, name, in->mode, in->rdev));
}

static int make_folder(struct request *request)
{
    const struct fuse_mkdir_in *in = request->body;
    const char *name = (const char *)(in + 1);
    return created(request, name, S_IFDIR | in->mode,
                   mkdirat(target(request)->path_fd, name, in->mode));
}

static int make_symbolic_link(struct request *request)
{
    const char *name = request->body, *text = name + strlen(name) + 1;
    return created(request, name, S_IFLNK, symlinkat(text, target(request)->path_fd, name));
}

static int make_link(struct request *request)
{
    const struct fuse_link_in *in = request->body;
    const char *name = (const char *)(in + 1);
    struct inode *folder = target(request);
    if (linkat(inode_of(in->oldnodeid)->path_fd, "", folder->path_fd, name, AT_EMPTY_PATH) < 0)
        return -errno;
    return enter(request, folder, name);
}

static int read_link(struct request *request)
{
    ssize_t bytes = readlinkat(target(request)->path_fd, "", request->reply, PATH_MAX);
    request->reply_bytes = bytes < 0 ? 0 : (size_t)bytes;
    return result(bytes);
}

static int remove_file(struct request *request)
{
    return result(unlinkat(target(request)->path_fd, request->body, 0));
}

static int remove_folder(struct request *request)
{
    return result(unlinkat(target(request)->path_fd, request->body, AT_REMOVEDIR));
}

static int move(struct request *request, uint64_t to, const char *name, unsigned flags)
{
    const char *new_name = name + strlen(name) + 1;
    return result(
        renameat2(target(request)->path_fd, name, inode_of(to)->path_fd, new_name, flags));
}

static int rename_plainly(struct request *request)
{
    const struct fuse_rename_in *in = request->body;
    return move(request, in->newdir, (const char *)(in + 1), 0);
}

static int rename_with_flags(struct request *request)
{
    const struct fuse_rename2_in *in = request->body;
    return move(request, in->newdir, (const char *)(in + 1), in->flags);
}

// ---- Attributes ---------------------------------------------------------------------------------

static int get_attributes(struct request *request)
{
    struct fuse_attr_out *out = reply_with(request, sizeof(*out));
    struct stat st;
    if (fstatat(target(request)->path_fd, "", &st, AT_EMPTY_PATH) < 0)
        return -errno;
    out->attr_valid = UINT32_MAX;
    attributes_fill(&out->attr, &st);
    return 0;
}

// Root's writes do not do it here.
static int drop_set_id(const struct inode *inode)
{
    struct stat st;
    if (fstatat(inode->path_fd, "", &st, AT_EMPTY_PATH) < 0)
        return -errno;
    mode_t drop = S_ISUID | (st.st_mode & S_IXGRP ? S_ISGID : 0);
    if (!S_ISREG(st.st_mode) || !(st.st_mode & drop))
        return 0;
    return result(chmod(inode_path(inode).text, st.st_mode & 07777 & ~drop));
}

static int set_size(struct inode *inode, const struct fuse_setattr_in *in)
{
    int fd = inode_open(inode, true);
    if (fd < 0)
        return fd;
    int rc = result(ftruncate(fd, (off_t)in->size));
    inode_close(inode);
    return rc == 0 && in->valid & FATTR_KILL_SUIDGID ? drop_set_id(inode) : rc;
}

static struct timespec time_to_set(uint32_t valid, uint32_t bit, uint32_t now_bit, uint64_t seconds,
                                   uint32_t ns)
{
    if (!(valid & bit))
        return (struct timespec){.tv_nsec = UTIME_OMIT};
    if (valid & now_bit)
        return (struct timespec){.tv_nsec = UTIME_NOW};
    return (struct timespec){.tv_sec = (time_t)seconds, .tv_nsec = ns};
}

static int set_times(struct inode *inode, const struct fuse_setattr_in *in)
{
    struct timespec times[] = {
        time_to_set(in->valid, FATTR_ATIME, FATTR_ATIME_NOW, in->atime, in->atimensec),
        time_to_set(in->valid, FATTR_MTIME, FATTR_MTIME_NOW, in->mtime, in->mtimensec)};
    return result(utimensat(inode->path_fd, "", times, AT_EMPTY_PATH));
}

static int set_attributes(struct request *request)
{
    const struct fuse_setattr_in *in = request->body;
    struct inode *inode = target(request);
    uid_t uid = in->valid & FATTR_UID ? in->uid : (uid_t)-1;
    gid_t gid = in->valid & FATTR_GID ? in->gid : (gid_t)-1;
    int rc = 0;
    if (in->valid & (FATTR_UID | FATTR_GID))
        rc = result(fchownat(inode->path_fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW));
    // Behind the owner, with whom set-id bits may go.
    if (rc == 0 && in->valid & FATTR_MODE)
        rc = result(chmod(inode_path(inode).text, in->mode & 07777));
    if (rc == 0 && in->valid & FATTR_SIZE)
        rc = set_size(inode, in);
    if (rc == 0 && in->valid & (FATTR_ATIME | FATTR_MTIME))
        rc = set_times(inode, in);
    return rc < 0 ? rc : get_attributes(request);
}

static int set_extended(struct request *request)
{
    // The short form of struct fuse_setxattr_in: the longer one was not agreed upon.
    const struct fuse_setxattr_in *in = request->body;
    const char *name = (const char *)in + FUSE_COMPAT_SETXATTR_IN_SIZE;
    const char *value = name + strlen(name) + 1;
    return result(
        setxattr(inode_path(target(request)).text, name, value, in->size, (int)in->flags));
}

// `bytes` is what a call returned that was given room for as many as the host has, or for 0.
static int extended_found(struct request *request, const struct fuse_getxattr_in *in, ssize_t bytes)
{
    if (bytes < 0)
        return -errno;
    request->reply_bytes = (size_t)bytes;
    if (in->size == 0) {
        struct fuse_getxattr_out *out = reply_with(request, sizeof(*out));
        out->size = (uint32_t)bytes;
    }
    return 0;
}

static size_t room_for(const struct fuse_getxattr_in *in)
{
    return in->size < DATA_MAX ? in->size : DATA_MAX;
}

static int get_extended(struct request *request)
{
    const struct fuse_getxattr_in *in = request->body;
    return extended_found(request, in,
                          getxattr(inode_path(target(request)).text, (const char *)(in + 1),
                                   request->reply, room_for(in)));
}

static int list_extended(struct request *request)
{
    const struct fuse_getxattr_in *in = request->body;
    return extended_found(
        request, in, listxattr(inode_path(target(request)).text, request->reply, room_for(in)));
}

static int remove_extended(struct request *request)
{
    return result(removexattr(inode_path(target(request)).text, request->body));
}

static int statistics(struct request *request)
{
    struct fuse_statfs_out *out = reply_with(request, sizeof(*out));
    struct statvfs st;
    if (fstatvfs(target(request)->path_fd, &st) < 0)
        return -errno;
    out->st = (struct fuse_kstatfs){.blocks = st.f_blocks,
                                    .bfree = st.f_bfree,
                                    .bavail = st.f_bavail,
                                    .files = st.f_files,
                                    .ffree = st.f_ffree,
                                    .bsize = (uint32_t)st.f_bsize,
                                    .namelen = (uint32_t)st.f_namemax,
                                    .frsize = (uint32_t)st.f_frsize};
    return 0;
}

// ---- Content ------------------------------------------------------------------------------------

static int read_content(struct request *request)
{
    const struct fuse_read_in *in = request->body;
    struct inode *inode = target(request);
    int fd = in->size <= DATA_MAX ? inode_open(inode, false) : -EINVAL;
    if (fd < 0)
        return fd;
    ssize_t bytes = pread(fd, request->reply, in->size, (off_t)in->offset);
    int rc = result(bytes);
    inode_close(inode);
    request->reply_bytes = rc < 0 ? 0 : (size_t)bytes;
    return rc;
}

static int write_content(struct request *request)
{
    const struct fuse_write_in *in = request->body;
    struct inode *inode = target(request);
    int fd = inode_open(inode, true);
    if (fd < 0)
        return fd;
    ssize_t bytes = pwrite(fd, in + 1, in->size, (off_t)in->offset);
    int rc = result(bytes);
    inode_close(inode);
    if (rc == 0 && in->write_flags & FUSE_WRITE_KILL_SUIDGID)
        rc = drop_set_id(inode);
    struct fuse_write_out *out = reply_with(request, sizeof(*out));
    out->size = rc < 0 ? 0 : (uint32_t)bytes;
    return rc;
}

static int synchronize(struct request *request)
{
    const struct fuse_fsync_in *in = request->body;
    struct inode *inode = target(request);
    int fd = inode_open(inode, false);
    if (fd < 0)
        return fd;
    int rc = result(in->fsync_flags & FUSE_FSYNC_FDATASYNC ? fdatasync(fd) : fsync(fd));
    inode_close(inode);
    return rc;
}

static int allocate(struct request *request)
{
    const struct fuse_fallocate_in *in = request->body;
    struct inode *inode = target(request);
    int fd = inode_open(inode, true);
    if (fd < 0)
        return fd;
    int rc = result(fallocate(fd, (int)in->mode, (off_t)in->offset, (off_t)in->length));
    inode_close(inode);
    return rc;
}

static int copy_range(struct request *request)
{
    const struct fuse_copy_file_range_in *in = request->body;
    struct inode *from = target(request), *to = inode_of(in->nodeid_out);
    off_t offset = (off_t)in->off_in, offset_out = (off_t)in->off_out;
    // What is told back has 32 bits.
    size_t count = in->len < INT_MAX ? in->len : INT_MAX;
    int fd = inode_open(from, false);
    if (fd < 0)
        return fd;
    int fd_out = inode_open(to, true);
    ssize_t bytes =
        fd_out < 0 ? fd_out : copy_file_range(fd, &offset, fd_out, &offset_out, count, 0);
    int rc = fd_out < 0 ? fd_out : result(bytes);
    inode_close(from);
    if (fd_out >= 0)
        inode_close(to);
    struct fuse_write_out *out = reply_with(request, sizeof(*out));
    out->size = rc < 0 ? 0 : (uint32_t)bytes;
    return rc;
}

// ---- Folders ------------------------------------------------------------------------------------

// An open one: where the host goes on reading is where the kernel here does.
static int open_folder(struct request *request)
{
    struct fuse_open_out *out = reply_with(request, sizeof(*out));
    int fd = open(inode_path(target(request)).text, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    if (!folder) {
        int rc = -errno;
        if (fd >= 0)
            close(fd);
        return rc;
    }
    out->fh = (uintptr_t)folder;
    out->open_flags = FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR;
    return 0;
}

static int close_folder(struct request *request)
{
    const struct fuse_release_in *in = request->body;
    closedir((DIR *)(uintptr_t)in->fh);
    return 0;
}

static int synchronize_folder(struct request *request)
{
    const struct fuse_fsync_in *in = request->body;
    return result(fsync(dirfd((DIR *)(uintptr_t)in->fh)));
}

static void put_name(struct fuse_dirent *to, const struct dirent *name)
{
    size_t bytes = strlen(name->d_name);
    *to = (struct fuse_dirent){.ino = name->d_ino,
                               .off = (uint64_t)name->d_off,
                               .namelen = (uint32_t)bytes,
                               .type = name->d_type};
    memcpy(to->name, name->d_name, bytes);
    memset(to->name + bytes, 0,
           FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + bytes) - FUSE_NAME_OFFSET - bytes);
}

// With what a lookup would give; an entry without an inode has a name only.
static void put_entry(struct fuse_direntplus *to, struct inode *folder, const struct dirent *name)
{
    bool itself = strcmp(name->d_name, ".") == 0 || strcmp(name->d_name, "..") == 0;
    int fd = itself ? -1 : openat(folder->path_fd, name->d_name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || inode_enter(fd, &to->entry_out) < 0)
        memset(&to->entry_out, 0, sizeof(to->entry_out));
    put_name(&to->dirent, name);
}

static int read_names(struct request *request, bool plus)
{
    const struct fuse_read_in *in = request->body;
    DIR *folder = (DIR *)(uintptr_t)in->fh;
    size_t room = in->size < DATA_MAX ? in->size : DATA_MAX;
    if (telldir(folder) != (long)in->offset)
        seekdir(folder, (long)in->offset);
    for (;;) {
        long position = telldir(folder);
        errno = 0;
        const struct dirent *name = readdir(folder);
        if (!name)
            return request->reply_bytes > 0 ? 0 : -errno;
        size_t head = plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;
        size_t bytes = FUSE_DIRENT_ALIGN(head + strlen(name->d_name));
        if (bytes > room - request->reply_bytes) {
            seekdir(folder, position);
            return 0;
        }
        void *to = (char *)request->reply + request->reply_bytes;
        if (plus)
            put_entry(to, target(request), name);
        else
            put_name(to, name);
        request->reply_bytes += bytes;
    }
}

static int read_folder(struct request *request)
{
    return read_names(request, false);
}

static int read_folder_plus(struct request *request)
{
    return read_names(request, true);
}

// ---- Beginning ----------------------------------------------------------------------------------

static int agree(struct request *request)
{
    const struct fuse_init_in *in = request->body;
    struct fuse_init_out *out = reply_with(request, sizeof(*out));
    // The host writes back what it has cached, and is told of nobody else's changes: there are
    // none.
    uint64_t wanted = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_DO_READDIRPLUS |
                      FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_WRITEBACK_CACHE |
                      FUSE_NO_OPEN_SUPPORT | FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2 |
                      FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS;
    if (in->major != FUSE_KERNEL_VERSION)
        return -EPROTO;
    *out = (struct fuse_init_out){.major = FUSE_KERNEL_VERSION,
                                  .minor = FUSE_KERNEL_MINOR_VERSION,
                                  .max_readahead = in->max_readahead,
                                  .flags = (uint32_t)(wanted & in->flags),
                                  .max_background = 64,
                                  .congestion_threshold = 48,
                                  .max_write = DATA_MAX,
                                  .max_pages = DATA_MAX / 4096,
                                  .time_gran = 1};
    return 0;
}

static int end(struct request *request)
{
    (void)request;
    return 0;
}

// What is not here is answered ENOSYS, once: the host knows then that it need not ask. So it opens
// and closes no files, and creates them by MKNOD; it finds data and holes itself, which it has to,
// as some data may only be in its own cache; and locks are its own matter.
operation *operation_of(uint32_t opcode)
{
    static operation *const operations[] = {
        [FUSE_LOOKUP] = lookup,
        [FUSE_FORGET] = forget,
        [FUSE_GETATTR] = get_attributes,
        [FUSE_SETATTR] = set_attributes,
        [FUSE_READLINK] = read_link,
        [FUSE_SYMLINK] = make_symbolic_link,
        [FUSE_MKNOD] = make_node,
        [FUSE_MKDIR] = make_folder,
        [FUSE_UNLINK] = remove_file,
        [FUSE_RMDIR] = remove_folder,
        [FUSE_RENAME] = rename_plainly,
        [FUSE_LINK] = make_link,
        [FUSE_READ] = read_content,
        [FUSE_WRITE] = write_content,
        [FUSE_STATFS] = statistics,
        [FUSE_FSYNC] = synchronize,
        [FUSE_SETXATTR] = set_extended,
        [FUSE_GETXATTR] = get_extended,
        [FUSE_LISTXATTR] = list_extended,
        [FUSE_REMOVEXATTR] = remove_extended,
        [FUSE_INIT] = agree,
        [FUSE_OPENDIR] = open_folder,
        [FUSE_READDIR] = read_folder,
        [FUSE_RELEASEDIR] = close_folder,
        [FUSE_FSYNCDIR] = synchronize_folder,
        [FUSE_DESTROY] = end,
        [FUSE_BATCH_FORGET] = batch_forget,
        [FUSE_FALLOCATE] = allocate,
        [FUSE_READDIRPLUS] = read_folder_plus,
        [FUSE_RENAME2] = rename_with_flags,
        [FUSE_COPY_FILE_RANGE] = copy_range,
    };
    return opcode < sizeof(operations) / sizeof(*operations) ? operations[opcode] : NULL;
}
