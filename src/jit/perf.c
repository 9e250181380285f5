// SPDX-License-Identifier: BSD-2-Clause
// The map from which Linux' perf takes names for translated code: lines "START SIZE NAME" with the
// addresses in hexadecimal (tools/perf/Documentation/jit-interface.txt of Linux).
//
// A block is named by the guest's code it was first made for: by its function if the user gave
// symbols, else by privilege and virtual address, as in "S:ffffffff80012344". The file has no time
// in it, so what is dropped is taken out: perf would name new code by what was there before.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "jit/internal.h"
#include "jit/symbols.h"

struct jit_perf_map {
    FILE *file;  // its lock is the map's: harts share one
    atomic_bool broken;
    struct jit_symbols symbols;
};

int jit_perf_map_create(struct jit_perf_map **out, int fd)
{
    struct jit_perf_map *map = calloc(1, sizeof(*map));

    if (!map)
        return -ENOMEM;
    map->file = fdopen(fd, "w+");
    if (!map->file) {
        free(map);
        return -errno;
    }
    *out = map;
    return 0;
}

int jit_perf_map_add_symbols(struct jit_perf_map *map, int fd)
{
    return jit_symbols_add(&map->symbols, fd);
}

static void give_up(struct jit_perf_map *map)
{
    int code = errno;

    if (!atomic_exchange(&map->broken, true))
        log_line(LOG_WARN, "cannot write the map for perf (%s): it is not complete",
                 strerror(code));
}

void jit_perf_map_destroy(struct jit_perf_map *map)
{
    if (!map)
        return;
    if (fclose(map->file) != 0)
        give_up(map);
    jit_symbols_fini(&map->symbols);
    free(map);
}

static void put(struct jit_perf_map *map, const uint8_t *code, size_t bytes, const char *name)
{
    if (atomic_load_explicit(&map->broken, memory_order_relaxed))
        return;
    if (fprintf(map->file, "%" PRIxPTR " %zx %s\n", (uintptr_t)code, bytes, name) < 0)
        give_up(map);
}

void jit_perf_map_thunks(const struct jit *jit)
{
    put(jit->perf_map, jit->code + jit->exec_offset, jit->thunks_bytes, "strake:thunks");
}

void jit_perf_map_block(const struct hart *hart, const struct jit *jit,
                        const struct jit_block *block)
{
    const char *name = jit_symbols_find(&jit->perf_map->symbols, hart->pc);
    char address[32];

    snprintf(address, sizeof(address), "%c:%" PRIx64, "US?M"[hart->privilege], hart -> pc);
    put(jit->perf_map, block->entry, block->code_bytes, name ? name : address);
}

// Copies the lines of the map that are not of [start, end).
static void copy_others(FILE *from, FILE *to, uintptr_t start, uintptr_t end)
{
    char *line = NULL;
    size_t room = 0;

    rewind(from);
    while (getline(&line, &room, from) > 0) {
        uintptr_t at = strtoull(line, NULL, 16);

        if (at < start || at >= end)
            fputs(line, to);
    }
    free(line);
}

static bool rewrite(FILE *file, const char *text, size_t bytes)
{
    rewind(file);
    return ftruncate(fileno(file), 0) == 0 && fwrite(text, 1, bytes, file) == bytes;
}

void jit_perf_map_forget(struct jit_perf_map *map, const uint8_t *code, size_t bytes)
{
    char *text = NULL;
    size_t kept = 0;
    FILE *others = open_memstream(&text, &kept);

    flockfile(map->file);
    if (others)
        copy_others(map->file, others, (uintptr_t)code, (uintptr_t)code + bytes);
    if (!others || fclose(others) != 0 || !rewrite(map->file, text, kept))
        give_up(map);
    funlockfile(map->file);
    free(text);
}
