// SPDX-License-Identifier: BSD-2-Clause
// Memory windows: translated code reaches the guest's RAM by one access at gs:[gva], and the host's
// MMU does the rest. What a window maps is a cache of the guest's translations as the soft TLB is
// one: filled when an access faults, dropped by what drops TLB entries.
//
// A space is what has a window: the kernel half of all address spaces, of which global pages are
// mapped, and the user halves of those that ran long enough for the cost to be worth it. A page
// costs some 8 us to map where the host is itself virtual, so each space's costs are counted, and
// one that takes too much of its time loses its window and has to run for longer to get one again.
//
// An access that faults goes on at its out-of-line code (faults.c). All else happens in there.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "jit/internal.h"
#include "window/window.h"

#define SPACES 64
#define USER_WINDOWS 8u
#define STRIKES_MAX 4  // faults of an access in vain, before it goes out of line at once

// In instructions, of which a nanosecond has about one.
#define RUN_FOR_WINDOW 100000000u  // before a user space gets a window
#define COST_FREE 20000000u        // and what it may cost without having run
#define COST_SHARE 8               // of what it ran
#define COST_FAULT 2000u
#define COST_MAP 6000u
#define COST_CHECK 60u
#define COST_CLEAR_MAP 1500u

#define PAGE_BYTES ((uint64_t)MEMORY_PAGE_BYTES)
#define KERNEL_GVA (-WINDOW_BYTES)  // where the kernel's half starts
#define SATP_MODE(satp) ((satp) >> 60)
#define SATP_ASID(satp) ((satp) >> 44 & 0xffff)
#define SATP_SV39 8

struct space {
    uint64_t satp;  // 0: none. The kernel's is not told by it.
    struct window *window;
    uint64_t ran;   // instructions since it lost its last window
    uint64_t need;  // of these, to get one
    uint64_t cost;
    uint64_t used;  // when last switched to, on the hart's count of instructions
    bool stale;     // fences passed while it was not current: its pages are to be looked at again
};

struct jit_windows {
    struct space kernel, spaces[SPACES];
    struct space *current;  // of satp, or NULL
    uint64_t run_for_window;
    size_t maps_max;
    bool changed;          // a space has got or lost its window
    bool warming;          // spaces and pieces are another process', and not looked at yet
    struct space *warmed;  // the last one taken
    struct window *free[USER_WINDOWS];
    unsigned free_count, created;
    uint64_t counted;  // the hart's count of instructions that `ran` has
    uint64_t faults;   // as many as jit->stats.faults was when charged last
    uintptr_t gs;      // what the thread's gs base was set to; 0: unknown
};

// ---- Spaces

void jit_windows_create(struct jit *jit, const struct jit_options *options)
{
    size_t maps_max = options->window_maps ? options->window_maps : JIT_WINDOW_MAPS;
    struct jit_windows *windows;

    jit->window_limits[HART_TLB_U] = WINDOW_BYTES;
    jit->window_limits[HART_TLB_S] = KERNEL_GVA;
    if (!jit_has_fsgsbase() || jit_faults_create(jit) != 0)
        return;
    windows = calloc(1, sizeof(*windows));
    if (windows && window_create(&windows->kernel.window, maps_max) != 0) {
        free(windows);
        windows = NULL;
    }
    if (windows) {
        windows->run_for_window = options->window_after ? options->window_after : RUN_FOR_WINDOW;
        windows->maps_max = maps_max;
    }
    jit->windows = windows;
}

void jit_windows_destroy(struct jit *jit)
{
    struct jit_windows *windows = jit->windows;

    if (!windows)
        return;
    window_destroy(windows->kernel.window);
    for (size_t i = 0; i < SPACES; i++)
        window_destroy(windows->spaces[i].window);
    while (windows->free_count)
        window_destroy(windows->free[--windows->free_count]);
    free(windows);
}

static bool is_sv39(const struct hart *hart)
{
    return SATP_MODE(hart->satp) == SATP_SV39;
}

// Which contexts reach memory through a window, from now on. Not while translated code goes on. A
// jump that was noted leads to the variant that its address space had.
static void choose(const struct hart *hart, struct jit *jit)
{
    struct jit_windows *windows = jit->windows;
    bool possible = is_sv39(hart) && !hart->tap;

    jit->windowed = 0;
    if (possible && windows->kernel.window)
        jit->windowed |= 1u << HART_TLB_S;
    if (possible && windows->current && windows->current->window)
        jit->windowed |= 1u << HART_TLB_U;
    if (windows->changed)
        jit_jumps_forget(jit);
    windows->changed = false;
}

static void count_run(const struct hart *hart, struct jit_windows *windows)
{
    uint64_t ran = hart->instret - windows->counted;

    windows->counted = hart->instret;
    windows->kernel.ran += ran;
    if (windows->current)
        windows->current->ran += ran;
}

static void take_window(struct jit_windows *windows, struct space *space)
{
    if (!space->window)
        return;
    window_clear(space->window);
    if (space == &windows->kernel)
        window_destroy(space->window);
    else
        windows->free[windows->free_count++] = space->window;
    space->window = NULL;
    space->stale = false;
    windows->changed = true;
}

// The user space that has a window and was not used for the longest time, or NULL.
static struct space *oldest_space(struct jit_windows *windows)
{
    struct space *oldest = NULL;

    for (size_t i = 0; i < SPACES; i++)
        if (windows->spaces[i].window && (!oldest || windows->spaces[i].used < oldest->used))
            oldest = &windows->spaces[i];
    return oldest;
}

// A window that is free, a new one, or the oldest space's.
static struct window *find_window(struct jit_windows *windows)
{
    struct window *window;
    struct space *oldest;

    if (windows->free_count)
        return windows->free[--windows->free_count];
    if (windows->created < USER_WINDOWS && window_create(&window, windows->maps_max) == 0) {
        windows->created++;
        return window;
    }
    oldest = oldest_space(windows);
    if (!oldest)
        return NULL;
    take_window(windows, oldest);
    return windows->free[--windows->free_count];
}

static void give_window(struct jit_windows *windows, struct space *space)
{
    if (space != &windows->kernel)
        space->window = find_window(windows);
    else if (window_create(&space->window, windows->maps_max) != 0)
        space->window = NULL;
    space->cost = 0;
    windows->changed = true;
}

static void consider(struct jit_windows *windows, struct space *space)
{
    if (space && !space->window && space->ran >= space->need)
        give_window(windows, space);
}

static void charge(struct jit_windows *windows, struct space *space, uint64_t cost)
{
    space->cost += cost;
    if (!space->window || space->cost <= COST_FREE + space->ran / COST_SHARE)
        return;
    take_window(windows, space);
    space->ran = 0;
    space->need = 4 * (space->need ? space->need : windows->run_for_window);
}

// ---- Forgetting

struct check {
    const struct hart *hart;
    enum hart_tlb_context context;
    uint64_t walks;
};

static uint64_t half_of(enum hart_tlb_context context)
{
    return context == HART_TLB_U ? 0 : KERNEL_GVA;
}

// Whether the guest's page tables still say what `map` shows.
static bool holds(void *opaque, const struct window_map *map)
{
    struct check *check = opaque;
    uint64_t gva = half_of(check->context) + map->offset, fd_offset = map->fd_offset;
    struct hart_extent extent;

    for (uint64_t done = 0, bytes; done < map->bytes; done += bytes) {
        const struct memory_ram *ram;

        check->walks++;
        if (!hart_mmu_run(check->hart, gva + done, check->context, &extent) ||
            (map->writable && !extent.writable) || (check->context == HART_TLB_S && !extent.global))
            return false;
        ram = memory_find_ram(check->hart->memory, extent.gpa);
        if (ram->fd != map->fd ||
            extent.gpa - ram->gpa + (gva + done - extent.gva) != fd_offset + done)
            return false;
        bytes = extent.gva + extent.bytes - (gva + done);
    }
    return true;
}

// What would be dropped is looked at again instead, which is far cheaper than to map it anew.
static void check_all(struct hart *hart, struct jit_windows *windows, struct space *space,
                      enum hart_tlb_context context)
{
    struct check check = {.hart = hart, .context = context};
    size_t count;

    if (!space->window)
        return;
    count = window_count(space->window);
    window_filter(space->window, holds, &check);
    space->stale = false;
    count -= window_count(space->window);
    charge(windows, space, check.walks * COST_CHECK + count * COST_CLEAR_MAP);
}

static void check_page(struct hart *hart, struct jit_windows *windows, struct space *space,
                       enum hart_tlb_context context, uint64_t offset)
{
    struct check check = {.hart = hart, .context = context};
    const struct window_map *map;

    if (!space->window || !(map = window_find(space->window, offset)))
        return;
    if (!holds(&check, map)) {
        window_drop(space->window, offset);
        check.walks += COST_CLEAR_MAP / COST_CHECK;
    }
    charge(windows, space, check.walks * COST_CHECK);
}

static bool is_named(const struct space *space, const struct hart_flush *flush)
{
    return flush->scope == HART_FLUSH_ALL || flush->asid == HART_ANY_ASID ||
           flush->asid == SATP_ASID(space->satp);
}

static void flush_space(struct hart *hart, struct jit_windows *windows, struct space *space,
                        const struct hart_flush *flush)
{
    bool current = space == windows->current;

    if (!space->window || !is_named(space, flush))
        return;
    if (flush->scope != HART_FLUSH_PAGE && current)
        check_all(hart, windows, space, HART_TLB_U);
    else if (flush->scope != HART_FLUSH_PAGE)
        space->stale = true;
    else if (flush->gva < WINDOW_BYTES && current)
        check_page(hart, windows, space, HART_TLB_U, flush->gva);
    else if (flush->gva < WINDOW_BYTES)
        window_drop(space->window, flush->gva);
}

static void flush_kernel(struct hart *hart, struct jit_windows *windows,
                         const struct hart_flush *flush)
{
    if (flush->scope == HART_FLUSH_ALL)
        check_all(hart, windows, &windows->kernel, HART_TLB_S);
    else if (flush->scope == HART_FLUSH_PAGE && flush->asid == HART_ANY_ASID &&
             flush->gva >= KERNEL_GVA)
        check_page(hart, windows, &windows->kernel, HART_TLB_S, flush->gva - KERNEL_GVA);
}

// The space of `satp`, perhaps in the place of one that was not used for long.
static struct space *find_space(struct jit_windows *windows, uint64_t satp)
{
    struct space *oldest = NULL;

    for (size_t i = 0; i < SPACES; i++) {
        struct space *space = &windows->spaces[i];
        if (space->satp == satp)
            return space;
        if (!oldest || space->used < oldest->used)
            oldest = space;
    }
    take_window(windows, oldest);
    *oldest = (struct space){.satp = satp, .need = windows->run_for_window};
    return oldest;
}

static void follow_satp(struct hart *hart, struct jit_windows *windows)
{
    struct space *space;

    if (windows->current && windows->current->satp == hart->satp)
        return;
    count_run(hart, windows);
    windows->current = NULL;
    if (!is_sv39(hart))
        return;
    windows->current = space = find_space(windows, hart->satp);
    space->used = hart->instret;
    if (space->stale)
        check_all(hart, windows, space, HART_TLB_U);
}

void jit_windows_flush(struct hart *hart, struct jit *jit, const struct hart_flush *flush)
{
    struct jit_windows *windows = jit->windows;

    if (!windows || windows->warming)
        return;
    follow_satp(hart, windows);
    if (flush->scope != HART_FLUSH_SATP) {
        flush_kernel(hart, windows, flush);
        for (size_t i = 0; i < SPACES; i++)
            flush_space(hart, windows, &windows->spaces[i], flush);
    }
    choose(hart, jit);
}

// ---- Filling

static bool joins(const struct hart_extent *extent, const struct hart_extent *next)
{
    return next->writable == extent->writable && next->global == extent->global &&
           next->gpa - extent->gpa == next->gva - extent->gva;
}

// Adds to `extent` the leaves beside it that go on in RAM as in the address space: pages up to 64
// KiB in one 2 MiB block, larger leaves up to 1 GiB.
static void grow(const struct hart *hart, enum hart_tlb_context context, struct hart_extent *extent)
{
    uint64_t limit = extent->bytes < 2u << 20 ? 64u << 10 : 1u << 30;
    uint64_t block = extent->gva & ~(limit - 1);
    struct hart_extent next;

    while (extent->gva + extent->bytes < block + limit &&
           hart_mmu_extent(hart, extent->gva + extent->bytes, context, &next) &&
           next.gva == extent->gva + extent->bytes && joins(extent, &next) &&
           next.gva + next.bytes <= block + limit)
        extent->bytes += next.bytes;
    while (extent->gva > block && hart_mmu_extent(hart, extent->gva - 1, context, &next) &&
           next.gva >= block && joins(extent, &next)) {
        extent->gva = next.gva;
        extent->gpa = next.gpa;
        extent->bytes += next.bytes;
    }
}

// Cuts it down, around gva, to what no other partition shares: only that can be mapped from the
// RAM's own file.
static void keep_own(const struct hart *hart, uint64_t gva, struct hart_extent *extent)
{
    uint64_t start = extent->gpa, end = start + extent->bytes;

    memory_own_run(hart->memory, start + (gva - extent->gva), &start, &end);
    extent->gva += start - extent->gpa;
    extent->gpa = start;
    extent->bytes = end - start;
}

static bool is_full(const struct jit_windows *windows)
{
    size_t count = windows->kernel.window ? window_count(windows->kernel.window) : 0;

    for (size_t i = 0; i < SPACES; i++)
        if (windows->spaces[i].window)
            count += window_count(windows->spaces[i].window);
    return count >= windows->maps_max;
}

// Drops what the oldest other space shows, or else all of `space`.
static void make_room(struct jit_windows *windows, struct space *space)
{
    struct space *oldest = oldest_space(windows);

    if (!oldest || oldest == windows->current || window_count(oldest->window) == 0)
        oldest = space;
    space->cost += window_count(oldest->window) * COST_CLEAR_MAP;
    window_clear(oldest->window);
}

// Maps a piece. What the host refuses, for the limit on mappings that it has too, ends the window.
static void show(struct jit_windows *windows, struct space *space, const struct window_map *map)
{
    if (is_full(windows))
        make_room(windows, space);
    charge(windows, space, window_add(space->window, map) == 0 ? COST_MAP : UINT64_MAX / 2);
}

// Maps the page at gva. False: it cannot be, or it was already.
static bool fill(struct hart *hart, struct jit_windows *windows, struct space *space,
                 enum hart_tlb_context context, uint64_t gva, bool store)
{
    uint64_t half = half_of(context);
    const struct window_map *map;
    const struct memory_ram *ram;
    struct hart_extent extent;

    if (!space->window || gva - half >= WINDOW_BYTES)
        return false;
    map = window_find(space->window, gva - half);
    if ((map && (map->writable || !store)) || !hart_mmu_extent(hart, gva, context, &extent) ||
        (store && !extent.writable) || (context == HART_TLB_S && !extent.global))
        return false;
    grow(hart, context, &extent);
    ram = memory_find_ram(hart->memory, extent.gpa);
    if (extent.bytes > ram->length_bytes - (extent.gpa - ram->gpa))
        return false;
    keep_own(hart, gva, &extent);
    show(windows, space,
         &(struct window_map){.offset = extent.gva - half,
                              .bytes = extent.bytes,
                              .fd = ram->fd,
                              .fd_offset = extent.gpa - ram->gpa,
                              .writable = extent.writable});
    return true;
}

// The access is not for a window: from now on it goes out of line without a fault.
static void give_up(struct jit *jit, struct jit_site *site)
{
    struct x64 x64 = {.out = jit->code + site->at,
                      .end = jit->code + site->at + JIT_ACCESS_BYTES_MIN,
                      .exec_offset = jit->exec_offset};

    if (++site->strikes == STRIKES_MAX)
        x64_jmp(&x64, jit->code + jit->exec_offset + site->slow);
}

bool jit_windows_missed(struct hart *hart, struct jit *jit, const struct jit_site *site,
                        uint64_t gva, unsigned width_bytes, bool store)
{
    struct jit_windows *windows = jit->windows;
    enum hart_tlb_context context = hart_mmu_context(hart);
    struct space *space = context == HART_TLB_U ? windows->current : &windows->kernel;
    unsigned variant = jit_variant(hart, jit);
    bool filled;

    if (!site->at)
        return true;
    count_run(hart, windows);
    charge(windows, space, (jit->stats.faults - windows->faults) * COST_FAULT);
    windows->faults = jit->stats.faults;
    filled = fill(hart, windows, space, context, gva, store);
    if ((gva & (PAGE_BYTES - 1)) + width_bytes > PAGE_BYTES)
        filled |= fill(hart, windows, space, context, gva + width_bytes - 1, store);
    if (!filled && space->window)
        give_up(jit, jit_faults_find(jit, site->at));
    choose(hart, jit);
    return jit_variant(hart, jit) == variant;
}

// ---- Warming

static void tell_space(const struct space *space, struct hart_hot *hot)
{
    jit_warm_tell(
        hot, &(struct jit_warm_record){.head = (uint64_t)JIT_WARM_SPACE << JIT_WARM_KIND_SHIFT |
                                               (space->window ? JIT_WARM_FLAG : 0) |
                                               (space->used & JIT_WARM_VALUE),
                                       .word = {space->satp, space->ran, space->need}});
}

// The gpa of what a piece shows, or 0.
static uint64_t gpa_of(const struct hart *hart, const struct window_map *map)
{
    const struct memory_ram *ram = memory_next_ram(hart->memory, 0);

    while (ram && ram->fd != map->fd)
        ram = memory_next_ram(hart->memory, ram->gpa + ram->length_bytes);
    return ram ? ram->gpa + map->fd_offset : 0;
}

static void tell_piece(const struct hart *hart, const struct window_map *map, struct hart_hot *hot)
{
    jit_warm_tell(
        hot, &(struct jit_warm_record){.head = (uint64_t)JIT_WARM_PIECE << JIT_WARM_KIND_SHIFT |
                                               (map->writable ? JIT_WARM_FLAG : 0) | map->offset,
                                       .word = {map->bytes, gpa_of(hart, map)}});
}

// The kernel's space, then the others.
static const struct space *space_of(const struct jit_windows *windows, size_t number)
{
    return number ? &windows->spaces[number - 1] : &windows->kernel;
}

bool jit_windows_tell(const struct hart *hart, const struct jit *jit, struct hart_hot *hot)
{
    const unsigned at_once = 1000;
    size_t *number = &hot->cursor.space, *piece = &hot->cursor.piece;

    for (unsigned told = 0; jit->windows && *number <= SPACES; told++) {
        const struct space *space = space_of(jit->windows, *number);
        bool known = space->satp || space == &jit->windows->kernel;
        if (told == at_once)
            return false;
        if (*piece == 0 && known)
            tell_space(space, hot);
        if (space->window && *piece < window_count(space->window)) {
            tell_piece(hart, window_piece(space->window, (*piece)++), hot);
            continue;
        }
        *piece = 0;
        ++*number;
    }
    return true;
}

static void warm_space(struct jit_windows *windows, const struct jit_warm_record *record)
{
    struct space *space = &windows->kernel;
    uint64_t satp = record->word[0];

    if (satp && SATP_MODE(satp) != SATP_SV39)
        return;
    if (satp)
        space = find_space(windows, satp);
    space->used = record->head & JIT_WARM_VALUE;
    space->ran = record->word[1];
    space->need = satp ? record->word[2] : 0;
    if (record->head & JIT_WARM_FLAG && !space->window)
        give_window(windows, space);
    windows->warmed = space;
}

static void warm_piece(const struct hart *hart, struct jit_windows *windows,
                       const struct jit_warm_record *record, const struct hart_pace *pace)
{
    const struct space *space = windows->warmed;
    uint64_t offset = record->head & JIT_WARM_VALUE, bytes = record->word[0], gpa = record->word[1];
    const struct memory_ram *ram = memory_find_ram(hart->memory, gpa);
    struct window_map map = {
        .offset = offset, .bytes = bytes, .writable = record->head & JIT_WARM_FLAG};

    // What is shared is found out when the other process has stopped (memory_settle).
    if (!space || !space->window || is_full(windows) || !ram || ram->share || bytes == 0 ||
        (offset | bytes | gpa) % PAGE_BYTES || offset >= WINDOW_BYTES ||
        bytes > WINDOW_BYTES - offset || bytes > ram->length_bytes - (gpa - ram->gpa))
        return;
    map.fd = ram->fd;
    map.fd_offset = gpa - ram->gpa;
    if (window_add(space->window, &map) == 0)
        memory_populate_mapping(window_base(space->window) + offset, bytes, map.fd, map.fd_offset,
                                pace->go_on, pace->opaque);
}

void jit_windows_warm(const struct hart *hart, struct jit *jit,
                      const struct jit_warm_record *record, const struct hart_pace *pace)
{
    struct jit_windows *windows = jit->windows;

    if (!windows)
        return;
    windows->warming = true;
    if (record->head >> JIT_WARM_KIND_SHIFT == JIT_WARM_SPACE)
        warm_space(windows, record);
    else
        warm_piece(hart, windows, record, pace);
}

// As if a fence had passed that names everything.
void jit_windows_settle(struct hart *hart, struct jit *jit)
{
    struct jit_windows *windows = jit->windows;

    if (!windows || !windows->warming)
        return;
    windows->warming = false;
    windows->counted = hart->instret;
    windows->current = NULL;
    jit_windows_flush(hart, jit, &(struct hart_flush){.scope = HART_FLUSH_ALL});
}

// ---- Running

void jit_windows_enter(struct hart *hart, struct jit *jit)
{
    struct jit_windows *windows = jit->windows;

    if (!windows)
        return;
    jit_faults_enter(jit);
    windows->gs = 0;
    follow_satp(hart, windows);
    count_run(hart, windows);
    consider(windows, &windows->kernel);
    consider(windows, windows->current);
    choose(hart, jit);
}

void jit_windows_select(const struct hart *hart, struct jit *jit)
{
    struct jit_windows *windows = jit->windows;
    bool user = hart_mmu_context(hart) == HART_TLB_U;
    const struct space *space = user ? windows->current : &windows->kernel;
    uintptr_t gs = (uintptr_t)window_base(space->window) - half_of(hart_mmu_context(hart));

    if (gs == windows->gs)
        return;
    windows->gs = gs;
    __asm__ volatile("wrgsbase %0" : : "r"(gs) : "memory");
}
