// SPDX-License-Identifier: BSD-2-Clause
// Descriptors by name.
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "monitor/monitor.h"

static struct descriptor *find(const struct descriptors *set, const char *name)
{
    for (size_t i = 0; i < set->count; i++)
        if (strcmp(set->list[i].name, name) == 0)
            return (struct descriptor *)&set->list[i];
    return NULL;
}

static int check(const struct descriptors *set, const char *name)
{
    if (strlen(name) >= DESCRIPTOR_NAME_BYTES)
        return -ENAMETOOLONG;
    if (find(set, name))
        return -EEXIST;
    return set->count < DESCRIPTORS_MAX ? 0 : -ENOSPC;
}

int descriptors_add(struct descriptors *set, const char *name, int fd)
{
    if (fd < 0)
        return fd;
    int rc = check(set, name);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    struct descriptor *added = &set->list[set->count++];
    memcpy(added->name, name, strlen(name) + 1);
    added->fd = fd;
    return 0;
}

int descriptors_replace(struct descriptors *set, const char *name, int fd)
{
    struct descriptor *old = find(set, name);
    if (fd < 0 || !old)
        return descriptors_add(set, name, fd);
    close(old->fd);
    old->fd = fd;
    return 0;
}

int descriptors_find(const struct descriptors *set, const char *name)
{
    const struct descriptor *found = find(set, name);
    return found ? found->fd : -1;
}

int descriptors_take(struct descriptors *set, const char *name)
{
    struct descriptor *found = find(set, name);
    if (!found)
        return -1;
    int fd = found->fd;
    set->count--;
    memmove(found, found + 1, (size_t)(&set->list[set->count] - found) * sizeof(*found));
    return fd;
}

void descriptors_close(struct descriptors *set)
{
    while (set->count > 0)
        close(set->list[--set->count].fd);
}

void descriptors_name_net(char name[DESCRIPTOR_NAME_BYTES], size_t number, unsigned queue)
{
    if (queue == 0)
        snprintf(name, DESCRIPTOR_NAME_BYTES, "net%zu", number);
    else
        snprintf(name, DESCRIPTOR_NAME_BYTES, "net%zu-%u", number, queue);
}
