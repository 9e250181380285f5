// SPDX-License-Identifier: BSD-2-Clause
// Opens that wait for an answer, in shared memory; the supervisor keeps its descriptor.
//
// The kernel knows an open that waits by a number: that of the descriptor which the event brought.
// The descriptor goes with the process that read the event, the number does not; so its successor
// can answer, when it knows the number, and can scan, when it can open the file again: by handle,
// since the name may be another's by now.
#include <errno.h>
#include <fcntl.h>
#include <linux/fanotify.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "leverage/files.h"

struct entry {
    _Atomic int32_t pid;  // 0: no entry; written last
    uint32_t handle_bytes;
    int32_t handle_type;
    uint8_t handle[FILES_HANDLE_BYTES];
};

struct files_table {
    _Atomic int32_t owner, supervisor;
    atomic_bool kept;
    struct entry entries[FILES_NUMBERS];
};

int files_handle_take(union files_handle *handle, int at, const char *name, int *mount)
{
    handle->head.handle_bytes = FILES_HANDLE_BYTES;
    return name_to_handle_at(at, name, &handle->head, mount, *name ? 0 : AT_EMPTY_PATH);
}

int files_table_map(struct files_table **out, int fd)
{
    struct stat stat;
    if (fstat(fd, &stat) < 0)
        return -errno;
    if (stat.st_size == 0 && ftruncate(fd, sizeof(struct files_table)) < 0)
        return -errno;
    if (stat.st_size != 0 && stat.st_size != sizeof(struct files_table))
        return -EINVAL;
    void *memory =
        mmap(NULL, sizeof(struct files_table), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return -errno;
    *out = memory;
    return 0;
}

void files_table_unmap(struct files_table *table)
{
    if (table)
        munmap(table, sizeof(*table));
}

static struct entry *entry_of(struct files_table *table, int number)
{
    return number >= 0 && (unsigned)number < FILES_NUMBERS ? &table->entries[number] : NULL;
}

// Where there is no handle, the successor knows at least whom to answer.
void files_table_put(struct files_table *table, int number, int file, pid_t pid)
{
    struct entry *entry = entry_of(table, number);
    union files_handle handle;
    int mount;
    if (!entry)
        return;
    entry->handle_bytes = 0;
    if (files_handle_take(&handle, file, "", &mount) == 0) {
        entry->handle_bytes = handle.head.handle_bytes;
        entry->handle_type = handle.head.handle_type;
        memcpy(entry->handle, handle.head.f_handle, handle.head.handle_bytes);
    }
    atomic_store_explicit(&entry->pid, pid, memory_order_release);
}

void files_table_drop(struct files_table *table, int number)
{
    struct entry *entry = entry_of(table, number);
    if (entry)
        atomic_store_explicit(&entry->pid, 0, memory_order_release);
}

pid_t files_table_get(struct files_table *table, int number, int root, int *file)
{
    struct entry *entry = entry_of(table, number);
    pid_t pid = entry ? atomic_load_explicit(&entry->pid, memory_order_acquire) : 0;
    union files_handle handle;
    *file = -ENOENT;
    if (pid == 0 || entry->handle_bytes == 0 || entry->handle_bytes > FILES_HANDLE_BYTES)
        return pid;
    handle.head.handle_bytes = entry->handle_bytes;
    handle.head.handle_type = entry->handle_type;
    memcpy(handle.head.f_handle, entry->handle, entry->handle_bytes);
    *file = open_by_handle_at(root, &handle.head, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOATIME);
    if (*file < 0)
        *file = -errno;
    return pid;
}

void files_table_set_owner(struct files_table *table, pid_t pid, pid_t supervisor)
{
    atomic_store(&table->supervisor, supervisor);
    atomic_store(&table->owner, pid);
}

pid_t files_table_owner(struct files_table *table)
{
    return atomic_load(&table->owner);
}

pid_t files_table_supervisor(struct files_table *table)
{
    return atomic_load_explicit(&table->supervisor, memory_order_relaxed);
}

void files_table_set_kept(struct files_table *table)
{
    atomic_store_explicit(&table->kept, true, memory_order_relaxed);
}

bool files_table_kept(struct files_table *table)
{
    return atomic_load_explicit(&table->kept, memory_order_relaxed);
}

bool files_answer(int perm, int number, bool allow)
{
    struct fanotify_response response = {.fd = number, .response = allow ? FAN_ALLOW : FAN_DENY};
    return write(perm, &response, sizeof(response)) == sizeof(response);
}
