// SPDX-License-Identifier: BSD-2-Clause
// server: serves a mounted file system to a host's kernel. What arrives on the connection are the
// kernel's own FUSE requests, what goes back are its replies (linux/fuse.h): the host relays bytes.
//
// The host is the only user of the file system, so its kernel may cache names, attributes and pages
// for as long as it likes; and it opens no files here (FUSE_NO_OPEN_SUPPORT): a request names an
// inode, which is opened when it is first read or written.
//
// Threads: several take requests from the one connection. An inode stays valid for as long as the
// host knows its number, which it does while a request with it is under way.
#ifndef STRAKE_MOUNT_SERVER_H
#define STRAKE_MOUNT_SERVER_H

#include <linux/fuse.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#define DATA_MAX (1u << 20)                   // bytes that one request may read or write
#define REQUEST_MAX (DATA_MAX + (64u << 10))  // with headers, names, attributes

struct inode {
    struct inode *chain;          // of the table's
    struct inode *newer, *older;  // while it is opened
    uint64_t dev, ino, lookups;
    int path_fd;     // O_PATH: pins the inode, whatever becomes of its names
    int io_fd;       // -1: it is not opened
    unsigned users;  // of io_fd
    bool writable;   // io_fd is
};

// inode.c: any thread.
void inodes_init(int root_fd);
struct inode *inode_of(uint64_t number);
// Takes over an O_PATH descriptor; fills in the reply. 0 or a negative errno.
int inode_enter(int fd, struct fuse_entry_out *entry);
void inode_forget(uint64_t number, uint64_t count);
void attributes_fill(struct fuse_attr *attr, const struct stat *st);
// A descriptor for reading, or also for writing; stays open until inode_close. Or a negative errno.
int inode_open(struct inode *inode, bool write);
void inode_close(struct inode *inode);
// "/proc/self/fd/N": the inode by a path, for calls that take no O_PATH descriptors.
struct inode_path {
    char text[32];
};
struct inode_path inode_path(const struct inode *inode);

// A request as it came, and the reply as it is made.
struct request {
    struct fuse_in_header *header;
    void *body;  // what follows the header, with a 0 behind its last byte
    size_t body_bytes;
    void *reply;  // room for DATA_MAX bytes
    size_t reply_bytes;
};
// 0, a negative errno, or NO_REPLY.
enum { NO_REPLY = 1 };
typedef int operation(struct request *request);
operation *operation_of(uint32_t opcode);  // operations.c; NULL: there is none

#endif
