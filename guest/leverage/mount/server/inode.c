// SPDX-License-Identifier: BSD-2-Clause
// The inodes that the host knows, by device and number, and which of them are opened.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "server.h"

#define BUCKETS (1u << 16)
#define OPENED_MAX 1024u  // inodes that are kept open though nobody uses them

static struct {
    pthread_mutex_t lock;
    struct inode *buckets[BUCKETS];
    struct inode root;
    struct inode opened;  // head of a ring: newest is opened.older
    unsigned opened_count;
} table = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct inode **bucket_of(uint64_t dev, uint64_t ino)
{
    uint64_t hash = (ino ^ dev << 48) * 0x9e3779b97f4a7c15u;
    return &table.buckets[hash >> 48];
}

void inodes_init(int root_fd)
{
    table.root = (struct inode){.path_fd = root_fd, .io_fd = -1, .lookups = 1};
    table.opened.newer = table.opened.older = &table.opened;
}

struct inode *inode_of(uint64_t number)
{
    return number == FUSE_ROOT_ID ? &table.root : (struct inode *)(uintptr_t)number;
}

// ---- Known to the host --------------------------------------------------------------------------

void attributes_fill(struct fuse_attr *attr, const struct stat *st)
{
    *attr = (struct fuse_attr){
        .ino = st->st_ino,
        .size = (uint64_t)st->st_size,
        .blocks = (uint64_t)st->st_blocks,
        .atime = (uint64_t)st->st_atim.tv_sec,
        .mtime = (uint64_t)st->st_mtim.tv_sec,
        .ctime = (uint64_t)st->st_ctim.tv_sec,
        .atimensec = (uint32_t)st->st_atim.tv_nsec,
        .mtimensec = (uint32_t)st->st_mtim.tv_nsec,
        .ctimensec = (uint32_t)st->st_ctim.tv_nsec,
        .mode = st->st_mode,
        .nlink = (uint32_t)st->st_nlink,
        .uid = st->st_uid,
        .gid = st->st_gid,
        .rdev = (uint32_t)st->st_rdev,
        .blksize = (uint32_t)st->st_blksize,
    };
}

static struct inode *find(uint64_t dev, uint64_t ino)
{
    struct inode *inode = *bucket_of(dev, ino);
    while (inode && (inode->ino != ino || inode->dev != dev))
        inode = inode->chain;
    return inode;
}

// The inode that the descriptor is of, which the host knows once more from now on.
static struct inode *learn(int fd, const struct stat *st)
{
    struct inode *inode = find(st->st_dev, st->st_ino);
    if (inode) {
        inode->lookups++;
        close(fd);
        return inode;
    }
    inode = malloc(sizeof(*inode));
    if (inode) {
        struct inode **bucket = bucket_of(st->st_dev, st->st_ino);
        *inode = (struct inode){.chain = *bucket,
                                .dev = st->st_dev,
                                .ino = st->st_ino,
                                .lookups = 1,
                                .path_fd = fd,
                                .io_fd = -1};
        *bucket = inode;
    }
    return inode;
}

int inode_enter(int fd, struct fuse_entry_out *entry)
{
    struct stat st;
    if (fd < 0 || fstatat(fd, "", &st, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0) {
        int rc = -errno;
        if (fd >= 0)
            close(fd);
        return rc;
    }
    pthread_mutex_lock(&table.lock);
    struct inode *inode = learn(fd, &st);
    pthread_mutex_unlock(&table.lock);
    if (!inode) {
        close(fd);
        return -ENOMEM;
    }
    *entry = (struct fuse_entry_out){
        .nodeid = (uintptr_t)inode, .entry_valid = UINT32_MAX, .attr_valid = UINT32_MAX};
    attributes_fill(&entry->attr, &st);
    return 0;
}

static void unlink_opened(struct inode *inode)
{
    inode->newer->older = inode->older;
    inode->older->newer = inode->newer;
    table.opened_count--;
}

static void forget(struct inode *inode)
{
    struct inode **place = bucket_of(inode->dev, inode->ino);
    while (*place != inode)
        place = &(*place)->chain;
    *place = inode->chain;
    if (inode->io_fd >= 0) {
        unlink_opened(inode);
        close(inode->io_fd);
    }
}

void inode_forget(uint64_t number, uint64_t count)
{
    if (number == FUSE_ROOT_ID)
        return;
    struct inode *inode = inode_of(number);
    pthread_mutex_lock(&table.lock);
    inode->lookups -= count;
    bool gone = inode->lookups == 0;
    if (gone)
        forget(inode);
    pthread_mutex_unlock(&table.lock);
    if (gone) {
        close(inode->path_fd);  // may be the end of an unlinked file, which takes its time
        free(inode);
    }
}

// ---- Opened -------------------------------------------------------------------------------------

struct inode_path inode_path(const struct inode *inode)
{
    struct inode_path path;
    snprintf(path.text, sizeof(path.text), "/proc/self/fd/%d", inode->path_fd);
    return path;
}

static void append_newest(struct inode *inode)
{
    inode->older = table.opened.older;
    inode->newer = &table.opened;
    inode->older->newer = table.opened.older = inode;
    table.opened_count++;
}

// Closes the oldest that nobody uses.
static void close_some(void)
{
    struct inode *inode = table.opened.newer;
    while (table.opened_count > OPENED_MAX && inode != &table.opened) {
        struct inode *next = inode->newer;
        if (inode->users == 0) {
            unlink_opened(inode);
            close(inode->io_fd);
            inode->io_fd = -1;
        }
        inode = next;
    }
}

static int open_anew(struct inode *inode, bool write)
{
    struct inode_path path = inode_path(inode);
    int fd = open(path.text, O_RDWR | O_CLOEXEC);
    bool writable = fd >= 0;
    if (fd < 0 && !write)
        fd = open(path.text, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (inode->io_fd >= 0) {  // opened for reading by others, who are to go on
        int rc = dup3(fd, inode->io_fd, O_CLOEXEC);
        close(fd);
        fd = rc;
    } else {
        inode->io_fd = fd;
        append_newest(inode);
    }
    inode->writable = writable;
    return 0;
}

int inode_open(struct inode *inode, bool write)
{
    int rc = 0;
    pthread_mutex_lock(&table.lock);
    if (inode->io_fd < 0 || (write && !inode->writable))
        rc = open_anew(inode, write);
    if (rc == 0) {
        inode->users++;
        rc = inode->io_fd;
        close_some();
    }
    pthread_mutex_unlock(&table.lock);
    return rc;
}

void inode_close(struct inode *inode)
{
    pthread_mutex_lock(&table.lock);
    inode->users--;
    pthread_mutex_unlock(&table.lock);
}
