// SPDX-License-Identifier: BSD-2-Clause
// The status page.
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "monitor/monitor.h"

#define STATUS_MAGIC 0x3174617473746b73u  // "skstat1"

const char *monitor_end_name(enum monitor_end end)
{
    static const char *const names[] = {"running", "poweroff", "reboot", "failed",
                                        "broken",  "stopped",  "error",  "crashed"};
    _Static_assert(BASE_COUNT_OF(names) == MONITOR_ENDS, "each end has a name");
    return (unsigned)end < MONITOR_ENDS ? names[end] : "unknown";
}

int status_page_create(int fd, struct error *err)
{
    const struct status_page page = {.magic = STATUS_MAGIC};
    if (ftruncate(fd, STATUS_BYTES) < 0 || pwrite(fd, &page, sizeof(page), 0) != sizeof(page))
        return error_set_errno(err, -errno, "cannot make the status page");
    return 0;
}

int status_page_open(struct status_page **out, int fd, struct error *err)
{
    struct status_page copy;
    int rc = status_page_read(&copy, fd);
    if (rc < 0)
        return error_set_errno(err, rc, "cannot use the status page");
    void *map = mmap(NULL, STATUS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return error_set_errno(err, -errno, "cannot use the status page");
    *out = map;
    return 0;
}

void status_page_close(struct status_page *page)
{
    if (page)
        munmap(page, STATUS_BYTES);
}

void status_page_end(struct status_page *page, enum monitor_end end, unsigned code, const char *why)
{
    if (atomic_load(&page->end) != MONITOR_RUNNING)
        return;
    atomic_store(&page->code, code);
    size_t i = 0;
    for (; why && why[i] && i < STATUS_WHY_BYTES - 1; i++)
        page->why[i] = why[i];
    page->why[i] = 0;
    atomic_store(&page->end, end);
}

int status_page_read(struct status_page *copy, int fd)
{
    struct stat st;
    int64_t n = fd_pread_full(fd, copy, sizeof(*copy), 0);
    if (n < 0 || fstat(fd, &st) < 0)
        return n < 0 ? (int)n : -errno;
    if (n != sizeof(*copy) || copy->magic != STATUS_MAGIC || st.st_size != STATUS_BYTES)
        return -EINVAL;
    copy->why[STATUS_WHY_BYTES - 1] = 0;
    for (char *c = copy->why; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    return 0;
}
