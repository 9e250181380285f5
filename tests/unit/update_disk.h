// SPDX-License-Identifier: BSD-2-Clause
// A disk in memory under the update store, which remembers all that was done to it: what is left
// after a loss of power at any moment can be made of that, as a second disk.
//
// What counts as kept for sure is what POSIX promises and no more: a file's bytes by fsync of the
// file, its name by fsync of the folder. All else may be lost, kept or, for bytes, torn, each
// operation on its own. Renames are atomic.
#ifndef STRAKE_TESTS_UPDATE_DISK_H
#define STRAKE_TESTS_UPDATE_DISK_H

#include <fcntl.h>
#include <stdio.h>

#include "unit.h"
#include "update/update.h"

#define DISK_NODES 1024u
#define DISK_ENTRIES 64u
#define DISK_NODE_BYTES 256u  // what a file takes beside its bytes

struct disk_node {
    int kind;  // as struct update_file_look has it
    uint8_t *bytes;
    size_t count;
    struct disk_entry {
        char *name;
        unsigned node;
    } entries[DISK_ENTRIES];
    size_t entry_count;
};

// What was done: to a node's bytes, or to a folder's names.
struct disk_op {
    enum {
        DISK_CREATE,
        DISK_WRITE,
        DISK_TRUNCATE,
        DISK_SYNC,
        DISK_ADD,
        DISK_REMOVE,
        DISK_RENAME
    } kind;
    unsigned node, other;  // the file, or the folder; what was added, or the folder renamed to
    uint64_t offset;
    size_t count;
    uint8_t *bytes;
    char *name, *to;
    size_t durable_at;  // the DISK_SYNC that it is kept by, or SIZE_MAX
};

struct disk {
    struct disk_node nodes[DISK_NODES];  // [0] is the store's folder
    unsigned node_count;
    struct disk_op *ops;
    size_t op_count, op_capacity;
    uint64_t room_bytes;    // SIZE_MAX: no end
    size_t fail_at, calls;  // the call of a changing operation that fails, and how many there were
    int fail_code;
    unsigned open_files;
    size_t found;  // how many operations only say what was found
};

// ---- Applying -----------------------------------------------------------------------------------

static inline struct disk_entry *disk_entry_of(struct disk_node *folder, const char *name)
{
    for (size_t i = 0; i < folder->entry_count; i++)
        if (strcmp(folder->entries[i].name, name) == 0)
            return &folder->entries[i];
    return NULL;
}

static inline void disk_drop(struct disk_node *folder, struct disk_entry *entry)
{
    free(entry->name);
    *entry = folder->entries[--folder->entry_count];
}

static inline void disk_put(struct disk_node *folder, const char *name, unsigned node)
{
    struct disk_entry *there = disk_entry_of(folder, name);
    if (there)
        disk_drop(folder, there);
    assert_true(folder->entry_count < DISK_ENTRIES);
    folder->entries[folder->entry_count++] = (struct disk_entry){strdup(name), node};
}

static inline void disk_resize(struct disk_node *node, size_t count)
{
    if (count > node->count) {
        node->bytes = realloc(node->bytes, count);
        memset(node->bytes + node->count, 0, count - node->count);
    }
    node->count = count;
}

// `count` of the write's bytes reach the disk.
static inline void disk_write_part(struct disk_node *node, const struct disk_op *op, size_t count)
{
    if (op->offset + count > node->count)
        disk_resize(node, (size_t)op->offset + count);
    if (count)
        memcpy(node->bytes + op->offset, op->bytes, count);
}

static inline void disk_apply(struct disk *disk, const struct disk_op *op)
{
    struct disk_node *node = &disk->nodes[op->node];
    struct disk_entry *entry = op->name ? disk_entry_of(node, op->name) : NULL;
    switch (op->kind) {
    case DISK_CREATE:
        *node = (struct disk_node){.kind = (int)op->other};
        disk_write_part(node, op, op->count);  // where a link goes
        if (op->node >= disk->node_count)
            disk->node_count = op->node + 1;
        break;
    case DISK_WRITE:
        disk_write_part(node, op, op->count);
        break;
    case DISK_TRUNCATE:
        disk_resize(node, (size_t)op->offset);
        break;
    case DISK_ADD:
        disk_put(node, op->name, op->other);
        break;
    case DISK_REMOVE:
        if (entry)
            disk_drop(node, entry);
        break;
    case DISK_RENAME:
        if (entry) {
            unsigned moved = entry->node;
            disk_drop(node, entry);
            disk_put(&disk->nodes[op->other], op->to, moved);
        }
        break;
    case DISK_SYNC:
        break;
    }
}

// ---- Recording ----------------------------------------------------------------------------------

// Whether a call that would change something is made to fail.
static inline bool disk_fails(struct disk *disk)
{
    return ++disk->calls == disk->fail_at;
}

static inline void disk_do(struct disk *disk, struct disk_op op)
{
    if (disk->op_count == disk->op_capacity) {
        disk->op_capacity = disk->op_capacity ? 2 * disk->op_capacity : 256;
        disk->ops = reallocarray(disk->ops, disk->op_capacity, sizeof(*disk->ops));
    }
    op.durable_at = SIZE_MAX;
    for (size_t i = 0; op.kind == DISK_SYNC && i < disk->op_count; i++) {
        struct disk_op *earlier = &disk->ops[i];
        if (earlier->node == op.node && earlier->durable_at == SIZE_MAX)
            earlier->durable_at = disk->op_count;
    }
    disk_apply(disk, &op);
    disk->ops[disk->op_count++] = op;
}

static inline uint8_t *disk_copy(const void *bytes, size_t count)
{
    uint8_t *copy = malloc(count + 1);
    if (count)
        memcpy(copy, bytes, count);
    return copy;
}

static inline unsigned disk_create(struct disk *disk, int kind, const char *target)
{
    unsigned node = disk->node_count;
    size_t count = strlen(target);
    assert_true(node < DISK_NODES);
    disk_do(disk, (struct disk_op){.kind = DISK_CREATE,
                                   .node = node,
                                   .other = (unsigned)kind,
                                   .count = count,
                                   .bytes = disk_copy(target, count)});
    return node;
}

// ---- Paths --------------------------------------------------------------------------------------

static inline int disk_find(struct disk *disk, const char *path, unsigned *folder,
                            const char **name)
{
    unsigned node = 0;
    *folder = 0;
    *name = path;
    while (*path) {
        char part[300];
        size_t length = strcspn(path, "/");
        snprintf(part, sizeof(part), "%.*s", (int)length, path);
        *folder = node;
        *name = path;
        if (disk->nodes[node].kind != UPDATE_FOLDER)
            return disk->nodes[node].kind == UPDATE_LINK ? -ELOOP : -ENOTDIR;
        struct disk_entry *entry = disk_entry_of(&disk->nodes[node], part);
        path += length + (path[length] == '/');
        if (!entry)
            return *path ? -ENOTDIR : -ENOENT;
        node = entry->node;
    }
    return (int)node;
}

static inline int disk_node_of(struct disk *disk, const char *path)
{
    unsigned folder;
    const char *name;
    return disk_find(disk, path, &folder, &name);
}

// ---- The table ----------------------------------------------------------------------------------

static inline int disk_make(struct disk *disk, const char *path, int kind, const char *target)
{
    unsigned folder;
    const char *name;
    int node = disk_find(disk, path, &folder, &name);
    if (node != -ENOENT)
        return node < 0 ? node : -EEXIST;
    if (disk_fails(disk))
        return disk->fail_code;
    if (disk->room_bytes < DISK_NODE_BYTES)
        return -ENOSPC;
    if (disk->room_bytes != SIZE_MAX)
        disk->room_bytes -= DISK_NODE_BYTES;
    unsigned made = disk_create(disk, kind, target);
    disk_do(disk, (struct disk_op){
                      .kind = DISK_ADD, .node = folder, .other = made, .name = strdup(name)});
    return (int)made;
}

static inline int disk_open(void *opaque, const char *path, int flags, unsigned mode)
{
    struct disk *disk = opaque;
    int node = disk_node_of(disk, path);
    (void)mode;
    if (node >= 0 && flags & O_EXCL)
        return -EEXIST;
    if (node == -ENOENT && flags & O_CREAT)
        node = disk_make(disk, path, UPDATE_FILE, "");
    if (node >= 0 && disk->nodes[node].kind != UPDATE_FILE)
        return disk->nodes[node].kind == UPDATE_LINK ? -ELOOP : -EINVAL;
    disk->open_files += node >= 0;
    return node;
}

static inline void disk_close(void *opaque, int fd)
{
    (void)fd;
    ((struct disk *)opaque)->open_files--;
}

static inline int64_t disk_read(void *opaque, int fd, void *bytes, size_t count, uint64_t offset)
{
    const struct disk_node *node = &((struct disk *)opaque)->nodes[fd];
    size_t left = offset < node->count ? node->count - (size_t)offset : 0;
    if (count > left)
        count = left;
    if (count)
        memcpy(bytes, node->bytes + offset, count);
    return (int64_t)count;
}

static inline int64_t disk_write(void *opaque, int fd, const void *bytes, size_t count,
                                 uint64_t offset)
{
    struct disk *disk = opaque;
    if (disk_fails(disk))
        return disk->fail_code;
    if (count > disk->room_bytes)
        count = (size_t)disk->room_bytes;
    if (!count)
        return -ENOSPC;
    if (disk->room_bytes != SIZE_MAX)
        disk->room_bytes -= count;
    disk_do(disk, (struct disk_op){.kind = DISK_WRITE,
                                   .node = (unsigned)fd,
                                   .offset = offset,
                                   .count = count,
                                   .bytes = disk_copy(bytes, count)});
    return (int64_t)count;
}

static inline int disk_truncate(void *opaque, int fd, uint64_t bytes)
{
    struct disk *disk = opaque;
    if (disk_fails(disk))
        return disk->fail_code;
    disk_do(disk, (struct disk_op){.kind = DISK_TRUNCATE, .node = (unsigned)fd, .offset = bytes});
    return 0;
}

static inline int disk_sync(void *opaque, int fd)
{
    struct disk *disk = opaque;
    if (disk_fails(disk))
        return disk->fail_code;
    disk_do(disk, (struct disk_op){.kind = DISK_SYNC, .node = (unsigned)fd});
    return 0;
}

static inline int disk_make_folder(void *opaque, const char *path)
{
    int node = disk_make(opaque, path, UPDATE_FOLDER, "");
    return node < 0 ? node : 0;
}

static inline int disk_sync_folder(void *opaque, const char *path)
{
    int node = disk_node_of(opaque, path);
    return node < 0 ? node : disk_sync(opaque, node);
}

static inline int disk_rename(void *opaque, const char *from, const char *to)
{
    struct disk *disk = opaque;
    unsigned from_folder, to_folder;
    const char *from_name, *to_name;
    int node = disk_find(disk, from, &from_folder, &from_name);
    int there = disk_find(disk, to, &to_folder, &to_name);
    if (node < 0 || (there < 0 && there != -ENOENT))
        return node < 0 ? node : there;
    if (there >= 0 && disk->nodes[there].kind == UPDATE_FOLDER)
        return disk->nodes[node].kind == UPDATE_FOLDER ? -ENOTEMPTY : -EISDIR;
    if (disk_fails(disk))
        return disk->fail_code;
    assert_int_equal(from_folder, to_folder);  // so one fsync keeps it
    disk_do(disk, (struct disk_op){.kind = DISK_RENAME,
                                   .node = from_folder,
                                   .other = to_folder,
                                   .name = strdup(from_name),
                                   .to = strdup(to_name)});
    return 0;
}

static inline int disk_remove(void *opaque, const char *path)
{
    struct disk *disk = opaque;
    unsigned folder;
    const char *name;
    int node = disk_find(disk, path, &folder, &name);
    if (node < 0)
        return node;
    if (disk->nodes[node].entry_count)
        return -ENOTEMPTY;
    if (disk_fails(disk))
        return disk->fail_code;
    if (disk->room_bytes != SIZE_MAX)
        disk->room_bytes += DISK_NODE_BYTES + disk->nodes[node].count;
    disk_do(disk, (struct disk_op){.kind = DISK_REMOVE, .node = folder, .name = strdup(name)});
    return 0;
}

static inline int disk_link(void *opaque, const char *target, const char *path)
{
    int node = disk_make(opaque, path, UPDATE_LINK, target);
    return node < 0 ? node : 0;
}

static inline int64_t disk_read_link(void *opaque, const char *path, char *target, size_t capacity)
{
    struct disk *disk = opaque;
    int node = disk_node_of(disk, path);
    if (node < 0)
        return node;
    return disk->nodes[node].kind == UPDATE_LINK ? disk_read(disk, node, target, capacity, 0)
                                                 : -EINVAL;
}

static inline int disk_look(void *opaque, const char *path, struct update_file_look *look)
{
    struct disk *disk = opaque;
    int node = disk_node_of(disk, path);
    if (node < 0)
        return node;
    // A younger node has a higher number, which does for a time.
    *look = (struct update_file_look){.bytes = disk->nodes[node].count, .changed_ns = node};
    *(int *)&look->kind = disk->nodes[node].kind;
    return 0;
}

static inline int disk_list(void *opaque, const char *path,
                            int (*visit)(void *visitor, const char *name), void *visitor)
{
    struct disk *disk = opaque;
    int rc = 0, node = disk_node_of(disk, path);
    if (node < 0)
        return node;
    size_t count = disk->nodes[node].entry_count;
    char *names[DISK_ENTRIES];
    for (size_t i = 0; i < count; i++)
        names[i] = strdup(disk->nodes[node].entries[i].name);
    for (size_t i = 0; i < count; i++) {
        if (rc == 0)
            rc = visit(visitor, names[i]);
        free(names[i]);
    }
    return rc;
}

static inline int64_t disk_room_bytes(void *opaque)
{
    uint64_t room = ((struct disk *)opaque)->room_bytes;
    return room > INT64_MAX ? INT64_MAX : (int64_t)room;
}

static inline struct update_files disk_files(struct disk *disk)
{
    return (struct update_files){.opaque = disk,
                                 .open = disk_open,
                                 .read = disk_read,
                                 .write = disk_write,
                                 .truncate = disk_truncate,
                                 .sync = disk_sync,
                                 .close = disk_close,
                                 .make_folder = disk_make_folder,
                                 .sync_folder = disk_sync_folder,
                                 .rename = disk_rename,
                                 .remove = disk_remove,
                                 .link = disk_link,
                                 .read_link = disk_read_link,
                                 .look = disk_look,
                                 .list = disk_list,
                                 .room_bytes = disk_room_bytes};
}

// ---- Life, and loss of power --------------------------------------------------------------------

static inline struct disk *disk_new(void)
{
    struct disk *disk = calloc(1, sizeof(*disk));
    assert_non_null(disk);
    disk->room_bytes = SIZE_MAX;
    disk->nodes[0].kind = UPDATE_FOLDER;
    disk->node_count = 1;
    return disk;
}

static inline void disk_free(struct disk *disk)
{
    for (unsigned i = 0; i < disk->node_count; i++) {
        free(disk->nodes[i].bytes);
        while (disk->nodes[i].entry_count)
            disk_drop(&disk->nodes[i], disk->nodes[i].entries);
    }
    for (size_t i = 0; i < disk->op_count; i++) {
        free(disk->ops[i].bytes);
        free(disk->ops[i].name);
        free(disk->ops[i].to);
    }
    free(disk->ops);
    free(disk);
}

enum disk_loss {
    DISK_KEEP_NONE,  // of what was not synced
    DISK_KEEP_ALL,
    DISK_KEEP_NAMES,  // and sizes; the bytes are other ones: a journal of metadata only
    DISK_KEEP_BYTES,  // but no names
    DISK_KEEP_SOME,   // each operation, or part of it, at random
};

static inline uint32_t disk_random(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}

static inline void disk_tear(struct disk *disk, const struct disk_op *op, uint32_t choice)
{
    struct disk_node *node = &disk->nodes[op->node];
    size_t part = op->count ? choice / 4 % op->count : 0;
    if (choice % 4 == 0)
        return;
    disk_write_part(node, op, choice % 4 == 1 ? op->count : part);
    if (choice % 4 == 3 && op->offset + op->count > node->count)  // the size is kept, the rest not
        disk_resize(node, (size_t)op->offset + op->count);
}

static inline void disk_apply_unsynced(struct disk *disk, const struct disk_op *op,
                                       enum disk_loss loss, uint64_t *seed)
{
    bool is_bytes = op->kind == DISK_WRITE || op->kind == DISK_TRUNCATE;
    uint32_t choice = loss == DISK_KEEP_SOME ? disk_random(seed) : 0;
    if (op->kind == DISK_CREATE || loss == DISK_KEEP_ALL || (loss == DISK_KEEP_BYTES && is_bytes) ||
        (loss == DISK_KEEP_NAMES && !is_bytes))
        disk_apply(disk, op);
    else if (loss == DISK_KEEP_NAMES && op->kind == DISK_WRITE)
        disk_tear(disk, op, 3);  // zeros
    else if (loss == DISK_KEEP_SOME && op->kind == DISK_WRITE)
        disk_tear(disk, op, choice);
    else if (loss == DISK_KEEP_SOME && choice & 1)
        disk_apply(disk, op);
}

// The disk as it may be found when power went after the first `count` operations.
static inline struct disk *disk_after_loss(const struct disk *before, size_t count,
                                           enum disk_loss loss, uint64_t seed)
{
    struct disk *disk = disk_new();
    for (size_t i = 0; i < count; i++) {
        const struct disk_op *op = &before->ops[i];
        if (op->durable_at < count)
            disk_apply(disk, op);
        else
            disk_apply_unsynced(disk, op, loss, &seed);
    }
    return disk;
}

// The same disk, on which all that is there counts as kept.
static inline void disk_keep_node(struct disk *to, const struct disk *from, unsigned node)
{
    const struct disk_node *there = &from->nodes[node];
    disk_do(to, (struct disk_op){.kind = DISK_CREATE,
                                 .node = node,
                                 .other = (unsigned)there->kind,
                                 .count = there->count,
                                 .bytes = disk_copy(there->bytes, there->count)});
    for (size_t i = 0; i < there->entry_count; i++)
        disk_do(to, (struct disk_op){.kind = DISK_ADD,
                                     .node = node,
                                     .other = there->entries[i].node,
                                     .name = strdup(there->entries[i].name)});
    disk_do(to, (struct disk_op){.kind = DISK_SYNC, .node = node});
}

static inline struct disk *disk_as_found(const struct disk *disk)
{
    struct disk *found = disk_new();
    for (unsigned node = 0; node < disk->node_count; node++)
        disk_keep_node(found, disk, node);
    found->found = found->op_count;
    return found;
}

#endif
