// SPDX-License-Identifier: BSD-2-Clause
// The program's address space: one reservation of the host's, with the program's mappings made in
// it, and the list of them. What is not mapped stays reserved: never is there a hole in the
// reservation that an allocation of the monitor could come to lie in.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "user/internal.h"

#define GUARD_BYTES (1u << 20)
#define LOWEST_GVA 65536u  // as vm.mmap_min_addr: a null pointer's neighbourhood stays unmapped
#define MAPPINGS_MAX 65000u
#define TOP_GVA (HART_FLAT_BYTES - 2 * USER_PAGE_BYTES)
#define ZONE_GAP_BYTES 65536u  // between the zones of a program that is watched
// riscv64 ignores what it does not know where mmap's type is not MAP_SHARED_VALIDATE. MAP_GROWSDOWN
// says nothing here: stacks are mapped whole.
#define FLAGS_PASSED                                                                               \
    (MAP_TYPE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_POPULATE | MAP_NONBLOCK | MAP_LOCKED | MAP_SYNC)

// Memory of a program's own is used as a whole from this size on, mostly, and is cheaper then with
// few entries of the host's TLB. Smaller pieces would take up to another huge page each.
#define LARGE_BYTES_MIN (8u << 20)

static bool is_aligned(uint64_t gva)
{
    return gva % USER_PAGE_BYTES == 0;
}

// A range of whole pages that lies in the space.
static bool is_range(uint64_t gva, uint64_t bytes)
{
    return bytes <= HART_FLAT_BYTES && gva <= HART_FLAT_BYTES - bytes;
}

const char user_space_stack[] = "[stack]";

// ---- The list -----------------------------------------------------------------------------------

static void file_drop(struct user_file *file)
{
    if (file && --file->users == 0)
        free(file);
}

static struct user_file *file_of(int fd)
{
    char path[PATH_MAX];
    struct stat st;
    int64_t length = user_descriptor_path(fd, path);

    if (length < 0 || fstat(fd, &st) < 0)
        return NULL;
    struct user_file *file = malloc(sizeof(*file) + (size_t)length + 1);
    if (file) {
        *file = (struct user_file){.users = 1, .device = st.st_dev, .inode = st.st_ino};
        memcpy(file->path, path, (size_t)length + 1);
    }
    return file;
}

// The first mapping that ends behind gva; mapping_count: none.
static size_t find(const struct user_space *space, uint64_t gva)
{
    size_t low = 0, high = space->mapping_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (space->mappings[middle].end > gva)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static bool is_free(const struct user_space *space, uint64_t start, uint64_t end)
{
    size_t i = find(space, start);
    return i == space->mapping_count || space->mappings[i].start >= end;
}

static bool is_mapped(const struct user_space *space, uint64_t start, uint64_t end)
{
    for (size_t i = find(space, start); start < end; i++) {
        if (i == space->mapping_count || space->mappings[i].start > start)
            return false;
        start = space->mappings[i].end;
    }
    return true;
}

// Room for as many more as a change can make, so that none fails half way.
static int reserve_entries(struct user_space *space)
{
    if (space->mapping_count + 8 <= space->mappings_max)
        return 0;
    size_t max = 2 * space->mappings_max + 64;
    struct user_mapping *mappings =
        max <= 2 * MAPPINGS_MAX ? realloc(space->mappings, max * sizeof(*mappings)) : NULL;
    if (!mappings)
        return -ENOMEM;
    space->mappings = mappings;
    space->mappings_max = max;
    return 0;
}

static void insert_at(struct user_space *space, size_t i, const struct user_mapping *mapping)
{
    memmove(&space->mappings[i + 1], &space->mappings[i],
            (space->mapping_count - i) * sizeof(*mapping));
    space->mappings[i] = *mapping;
    space->mapping_count++;
}

static void remove_at(struct user_space *space, size_t i)
{
    file_drop(space->mappings[i].file);
    space->mapping_count--;
    memmove(&space->mappings[i], &space->mappings[i + 1],
            (space->mapping_count - i) * sizeof(space->mappings[i]));
}

// Has a mapping begin at gva where one goes on over it.
static void split(struct user_space *space, uint64_t gva)
{
    size_t i = find(space, gva);
    if (i == space->mapping_count || space->mappings[i].start >= gva)
        return;
    struct user_mapping tail = space->mappings[i];
    tail.offset += gva - tail.start;
    tail.start = gva;
    if (tail.file)
        tail.file->users++;
    space->mappings[i].end = gva;
    insert_at(space, i + 1, &tail);
}

// A stack is a mapping, though another be next to it.
static bool continues(const struct user_space *space, const struct user_mapping *a,
                      const struct user_mapping *b)
{
    bool stacks = b->start >= space->stacks && b->start < space->stacks_top;
    return a->end == b->start && !stacks && a->protection == b->protection &&
           a->shared == b->shared && a->name == b->name &&
           (a->file && b->file
                ? a->file->inode == b->file->inode && a->file->device == b->file->device &&
                      a->offset + (a->end - a->start) == b->offset
                : a->file == b->file);
}

static void join(struct user_space *space, uint64_t start, uint64_t end)
{
    for (size_t i = find(space, start ? start - 1 : 0);
         i + 1 < space->mapping_count && space->mappings[i].start <= end;) {
        if (!continues(space, &space->mappings[i], &space->mappings[i + 1])) {
            i++;
            continue;
        }
        space->mappings[i].end = space->mappings[i + 1].end;
        remove_at(space, i + 1);
    }
}

static void forget(struct user_space *space, uint64_t start, uint64_t end)
{
    split(space, start);
    split(space, end);
    for (size_t i = find(space, start); i < space->mapping_count && space->mappings[i].start < end;)
        remove_at(space, i);
}

// ---- What the engine sees -----------------------------------------------------------------------

static uint8_t page_of(int protection)
{
    // The host cannot map what is only written to, or only executed.
    return (uint8_t)((protection ? HART_PAGE_READ : 0) |
                     (protection & PROT_WRITE ? HART_PAGE_WRITE : 0) |
                     (protection & PROT_EXEC ? HART_PAGE_EXEC : 0));
}

// Executable only for the engine, which reads it.
static int host_protection(int protection)
{
    return (protection & (PROT_READ | PROT_WRITE)) | (protection & PROT_EXEC ? PROT_READ : 0);
}

static void fill_pages(struct user_space *space, uint64_t first, uint64_t last, uint8_t value)
{
    for (; first < last; first++)
        atomic_store_explicit(&space->pages[first], value, memory_order_release);
}

static void set_pages(struct user_space *space, uint64_t start, uint64_t end, uint8_t value)
{
    uint64_t first = start / USER_PAGE_BYTES, last = end / USER_PAGE_BYTES;

    // Entries of large ranges are given back to the host.
    if (!value && last - first >= 1u << 20) {
        uint64_t whole = user_page_up(first), whole_end = user_page_down(last);
        if (madvise((void *)(space->pages + whole), whole_end - whole, MADV_DONTNEED) == 0) {
            fill_pages(space, first, whole, 0);
            first = whole_end;
        }
    }
    fill_pages(space, first, last, value);
}

// Tells the engine what the list says of a range.
static void show(struct user_space *space, uint64_t start, uint64_t end)
{
    for (size_t i = find(space, start); start < end; i++) {
        bool last = i == space->mapping_count || space->mappings[i].start >= end;
        uint64_t hole_end = last ? end : space->mappings[i].start;
        if (start < hole_end)
            set_pages(space, start, hole_end, 0);
        if (last)
            break;
        const struct user_mapping *mapping = &space->mappings[i];
        uint64_t from = start > mapping->start ? start : mapping->start;
        uint64_t to = end < mapping->end ? end : mapping->end;
        set_pages(space, from, to, page_of(mapping->protection));
        start = to;
    }
}

// The fences that harts need before [start, end) has `protection`: where code comes or goes. Data
// need none (hart_flat).
static unsigned fences_for(const struct user_space *space, uint64_t start, uint64_t end,
                           int protection)
{
    bool code = protection & PROT_EXEC;
    for (size_t i = find(space, start); i < space->mapping_count && space->mappings[i].start < end;
         i++)
        code = code || space->mappings[i].protection & PROT_EXEC;
    return code ? HART_FENCE_I | HART_FENCE_VMA : 0;
}

// ---- Creation -----------------------------------------------------------------------------------

int user_space_init(struct user_space *space, struct user_process *process, struct error *err)
{
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    const struct user_watch *watch = process->watch;
    *space = (struct user_space){.process = process,
                                 .reservation_bytes = HART_FLAT_BYTES + 2 * GUARD_BYTES,
                                 .top = TOP_GVA,
                                 .limit = HART_FLAT_BYTES};
    if (watch) {
        space->top = space->limit = watch->stacks - ZONE_GAP_BYTES;
        space->stacks = watch->stacks;
        space->stacks_top = watch->heap - ZONE_GAP_BYTES;
    }
    uint8_t *reservation = mmap(NULL, space->reservation_bytes, PROT_NONE, flags, -1, 0);
    if (reservation == MAP_FAILED)
        return error_set_errno(err, -errno, "cannot reserve %llu GiB of addresses",
                               HART_FLAT_BYTES >> 30);
    void *pages =
        mmap(NULL, HART_FLAT_BYTES / USER_PAGE_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (pages == MAP_FAILED) {
        int rc = -errno;
        munmap(reservation, space->reservation_bytes);
        return error_set_errno(err, rc, "cannot map the table of the program's pages");
    }
    space->reservation = reservation;
    space->hva = reservation + GUARD_BYTES;
    space->pages = pages;
    pthread_mutex_init(&space->lock, NULL);
    return 0;
}

void user_space_fini(struct user_space *space)
{
    while (space->mapping_count)
        remove_at(space, space->mapping_count - 1);
    free(space->mappings);
    munmap((void *)space->pages, HART_FLAT_BYTES / USER_PAGE_BYTES);
    munmap(space->reservation, space->reservation_bytes);
    pthread_mutex_destroy(&space->lock);
}

// ---- Mapping ------------------------------------------------------------------------------------

// The highest free range in [low, end); 0: there is none.
static uint64_t find_free_in(const struct user_space *space, uint64_t low, uint64_t end,
                             uint64_t bytes)
{
    size_t i = find(space, end);
    if (i < space->mapping_count && space->mappings[i].start < end)
        end = space->mappings[i].start;
    while (i-- > 0 && space->mappings[i].end > low) {
        const struct user_mapping *mapping = &space->mappings[i];
        if (mapping->end < end && end - mapping->end >= bytes)
            return end - bytes;
        if (mapping->start < end)
            end = mapping->start;
    }
    return end >= bytes && end - bytes >= low ? end - bytes : 0;
}

static uint64_t find_free(const struct user_space *space, uint64_t bytes)
{
    return find_free_in(space, LOWEST_GVA, space->top, bytes);
}

// Beyond the limit a program can change what is there, and add nothing.
static bool is_kept_from(const struct user_space *space, uint64_t gva, uint64_t bytes)
{
    return gva + bytes > space->limit && !is_mapped(space, gva, gva + bytes);
}

// Where a mapping comes to lie: 0 or -errno.
static int choose_place(const struct user_space *space, uint64_t *gva, uint64_t bytes, int flags)
{
    if (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) {
        if (!is_aligned(*gva))
            return -EINVAL;
        if (!is_range(*gva, bytes))
            return -ENOMEM;
        if (*gva < LOWEST_GVA)
            return -EPERM;
        if (is_kept_from(space, *gva, bytes))
            return -ENOMEM;
        bool taken = flags & MAP_FIXED_NOREPLACE && !is_free(space, *gva, *gva + bytes);
        return taken ? -EEXIST : 0;
    }
    uint64_t hint = user_page_down(*gva);
    if (flags & MAP_STACK && space->stacks)
        hint = find_free_in(space, space->stacks, space->stacks_top, bytes);
    else if (hint < LOWEST_GVA || !is_range(hint, bytes) || hint + bytes > space->limit ||
             !is_free(space, hint, hint + bytes))
        hint = find_free(space, bytes);
    *gva = hint;
    return hint ? 0 : -ENOMEM;
}

// Enters a mapping that the host has by now.
static void enter(struct user_space *space, const struct user_mapping *mapping)
{
    forget(space, mapping->start, mapping->end);
    insert_at(space, find(space, mapping->start), mapping);
    join(space, mapping->start, mapping->end);
    show(space, mapping->start, mapping->end);
}

static bool is_large(uint64_t bytes, int protection, int flags)
{
    const int of_its_own = MAP_PRIVATE | MAP_ANONYMOUS;

    return bytes >= LARGE_BYTES_MIN && (protection & PROT_WRITE) &&
           (flags & (MAP_TYPE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK)) == of_its_own;
}

// At a place that was chosen.
static int64_t map_there(struct user_space *space, uint64_t gva, uint64_t bytes, int protection,
                         int flags, int fd, uint64_t offset, unsigned *fences)
{
    int rc = reserve_entries(space);
    if (rc < 0)
        return rc;
    *fences = fences_for(space, gva, gva + bytes, protection);
    set_pages(space, gva, gva + bytes, 0);
    void *hva = mmap(space->hva + gva, bytes, host_protection(protection),
                     (flags & FLAGS_PASSED) | MAP_FIXED, fd, (off_t)offset);
    if (hva == MAP_FAILED) {
        rc = -errno;
        show(space, gva, gva + bytes);
        return rc;
    }
    if (is_large(bytes, protection, flags))
        (void)madvise(hva, bytes, MADV_HUGEPAGE);
    struct user_mapping mapping = {.start = gva,
                                   .end = gva + bytes,
                                   .protection = (uint8_t)protection,
                                   .shared = (flags & MAP_TYPE) != MAP_PRIVATE};
    if (!(flags & MAP_ANONYMOUS)) {
        mapping.file = file_of(fd);
        mapping.offset = offset;
    }
    enter(space, &mapping);
    return (int64_t)gva;
}

static int64_t map(struct user_space *space, uint64_t gva, uint64_t bytes, int protection,
                   int flags, int fd, uint64_t offset, unsigned *fences)
{
    int rc = choose_place(space, &gva, bytes, flags);
    return rc < 0 ? rc : map_there(space, gva, bytes, protection, flags, fd, offset, fences);
}

// The program's path of a file of the host's.
static const char *name_of(const struct user_process *process, const char *path)
{
    size_t length = process->sysroot ? strlen(process->sysroot) : 0;
    bool below = length > 1 && strncmp(path, process->sysroot, length) == 0 && path[length] == '/';
    return below ? path + length : path;
}

// Tells of code that there is now.
static void tell_mapped(struct user_space *space, uint64_t gva, uint64_t bytes, int fd,
                        uint64_t offset)
{
    const struct user_watch *watch = space->process->watch;
    struct user_file *file = fd < 0 ? NULL : file_of(fd);
    const char *path = file ? file->path : NULL;

    watch->mapped(watch->opaque, gva, bytes, fd, offset,
                  path ? name_of(space->process, path) : NULL, path);
    file_drop(file);
}

int64_t user_space_map(struct user_space *space, uint64_t gva, uint64_t bytes, int protection,
                       int flags, int fd, uint64_t offset)
{
    const struct user_watch *watch = space->process->watch;
    unsigned fences = 0;

    if (!bytes || !is_aligned(offset) || protection & ~(PROT_READ | PROT_WRITE | PROT_EXEC))
        return -EINVAL;
    bytes = user_page_up(bytes);
    if (!bytes || bytes > HART_FLAT_BYTES || flags & MAP_HUGETLB)
        return -ENOMEM;  // the host's large pages cannot be had at any address
    pthread_mutex_lock(&space->lock);
    int64_t result = map(space, gva, bytes, protection, flags, fd, offset, &fences);
    pthread_mutex_unlock(&space->lock);
    if (watch && result >= 0 && protection & PROT_EXEC)
        tell_mapped(space, (uint64_t)result, bytes, flags & MAP_ANONYMOUS ? -1 : fd, offset);
    if (watch && result >= 0 && (uint64_t)result >= space->stacks &&
        (uint64_t)result < space->stacks_top)
        watch->stack_mapped(watch->opaque, (uint64_t)result, bytes);
    if (fences && result >= 0)
        user_process_fence(space->process, fences);
    return result;
}

// Back to what the reservation was.
static int clear_host(struct user_space *space, uint64_t gva, uint64_t bytes)
{
    void *hva = mmap(space->hva + gva, bytes, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    return hva == MAP_FAILED ? -errno : 0;
}

static int unmap(struct user_space *space, uint64_t gva, uint64_t bytes, unsigned *fences)
{
    if (is_free(space, gva, gva + bytes))
        return 0;
    int rc = reserve_entries(space);
    if (rc < 0)
        return rc;
    *fences = fences_for(space, gva, gva + bytes, PROT_NONE);
    set_pages(space, gva, gva + bytes, 0);
    rc = clear_host(space, gva, bytes);
    if (rc == 0)
        forget(space, gva, gva + bytes);
    else
        show(space, gva, gva + bytes);
    return rc;
}

int user_space_unmap(struct user_space *space, uint64_t gva, uint64_t bytes)
{
    unsigned fences = 0;

    bytes = user_page_up(bytes);
    if (!is_aligned(gva) || !bytes || !is_range(gva, bytes))
        return -EINVAL;
    pthread_mutex_lock(&space->lock);
    int rc = unmap(space, gva, bytes, &fences);
    pthread_mutex_unlock(&space->lock);
    if (fences)
        user_process_fence(space->process, fences);
    return rc;
}

static int protect(struct user_space *space, uint64_t gva, uint64_t bytes, int protection,
                   unsigned *fences)
{
    uint64_t end = gva + bytes;
    int rc = is_mapped(space, gva, end) ? reserve_entries(space) : -ENOMEM;
    if (rc < 0)
        return rc;
    *fences = fences_for(space, gva, end, protection);
    if (mprotect(space->hva + gva, bytes, host_protection(protection)) < 0)
        return -errno;
    split(space, gva);
    split(space, end);
    for (size_t i = find(space, gva); i < space->mapping_count && space->mappings[i].start < end;
         i++)
        space->mappings[i].protection = (uint8_t)protection;
    join(space, gva, end);
    show(space, gva, end);
    return 0;
}

// PROT_GROWSDOWN: all of the stack below is meant, too.
static int to_stack_start(const struct user_space *space, uint64_t *gva, uint64_t *bytes)
{
    size_t i = find(space, *gva);
    const struct user_mapping *mapping = &space->mappings[i];
    if (i == space->mapping_count || mapping->start > *gva || mapping->name != user_space_stack)
        return -EINVAL;
    *bytes += *gva - mapping->start;
    *gva = mapping->start;
    return 0;
}

int user_space_protect(struct user_space *space, uint64_t gva, uint64_t bytes, int protection)
{
    const int bits = PROT_READ | PROT_WRITE | PROT_EXEC;
    unsigned fences = 0;
    int rc = 0;

    bytes = user_page_up(bytes);
    if (!is_aligned(gva) || protection & ~(bits | PROT_GROWSDOWN))
        return -EINVAL;
    if (!bytes)
        return 0;
    if (!is_range(gva, bytes))
        return -ENOMEM;
    pthread_mutex_lock(&space->lock);
    if (protection & PROT_GROWSDOWN)
        rc = to_stack_start(space, &gva, &bytes);
    if (rc == 0)
        rc = protect(space, gva, bytes, protection & bits, &fences);
    pthread_mutex_unlock(&space->lock);
    if (fences)
        user_process_fence(space->process, fences);
    return rc;
}

// ---- For who watches ----------------------------------------------------------------------------

int user_heap_map(struct user_process *process, uint64_t gva, uint64_t bytes)
{
    struct user_space *space = &process->space;
    unsigned fences;

    pthread_mutex_lock(&space->lock);
    int64_t rc = map_there(space, gva, bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0, &fences);
    pthread_mutex_unlock(&space->lock);
    if (rc >= 0 && bytes >= USER_HEAP_STEP_BYTES)
        (void)madvise(space->hva + gva, bytes, MADV_HUGEPAGE);
    return rc < 0 ? (int)rc : 0;
}

void user_heap_unmap(struct user_process *process, uint64_t gva, uint64_t bytes)
{
    struct user_space *space = &process->space;
    unsigned fences;

    pthread_mutex_lock(&space->lock);
    (void)!unmap(space, gva, bytes, &fences);
    pthread_mutex_unlock(&space->lock);
}

bool user_process_same_mapping(struct user_process *process, uint64_t a, uint64_t b)
{
    struct user_space *space = &process->space;
    uint64_t low = a < b ? a : b, high = a < b ? b : a;

    pthread_mutex_lock(&space->lock);
    size_t i = find(space, low);
    bool same = i < space->mapping_count && space->mappings[i].start <= low &&
                space->mappings[i].end > high;
    pthread_mutex_unlock(&space->lock);
    return same;
}

void user_space_thread_ends(struct user_space *space, uint64_t sp)
{
    if (sp < space->stacks || sp >= space->stacks_top)
        return;
    pthread_mutex_lock(&space->lock);
    size_t i = find(space, sp);
    if (i < space->mapping_count && space->mappings[i].start <= sp)
        space->mappings[i].ended_sp = sp;
    pthread_mutex_unlock(&space->lock);
}

void user_process_each_mapping(struct user_process *process,
                               void (*fn)(void *opaque, uint64_t gva, uint64_t bytes,
                                          uint64_t ended_sp),
                               void *opaque)
{
    struct user_space *space = &process->space;

    pthread_mutex_lock(&space->lock);
    for (size_t i = 0; i < space->mapping_count; i++) {
        const struct user_mapping *mapping = &space->mappings[i];
        bool ended = mapping->ended_sp >= mapping->start && mapping->ended_sp < mapping->end;
        if (mapping->protection)
            fn(opaque, mapping->start, mapping->end - mapping->start,
               ended ? mapping->ended_sp : 0);
    }
    pthread_mutex_unlock(&space->lock);
}

bool user_space_has(struct user_space *space, uint64_t gva)
{
    pthread_mutex_lock(&space->lock);
    bool has = gva < HART_FLAT_BYTES && !is_free(space, gva, gva + 1);
    pthread_mutex_unlock(&space->lock);
    return has;
}

// ---- For people ---------------------------------------------------------------------------------

void user_space_name(struct user_space *space, uint64_t gva, const char *name)
{
    pthread_mutex_lock(&space->lock);
    size_t i = find(space, gva);
    if (i < space->mapping_count && space->mappings[i].start <= gva)
        space->mappings[i].name = name;
    pthread_mutex_unlock(&space->lock);
}

// As Linux names them: also what there is of the heap.
static const char *name_to_show(const struct user_space *space, const struct user_mapping *mapping)
{
    bool heap = mapping->start < space->brk && mapping->end > space->brk_start;
    return mapping->file   ? mapping->file->path
           : mapping->name ? mapping->name
           : heap          ? "[heap]"
                           : NULL;
}

static void print_mapping(const struct user_space *space, const struct user_mapping *mapping,
                          FILE *out)
{
    const struct user_file *file = mapping->file;
    int length = fprintf(
        out, "%08llx-%08llx %c%c%c%c %08llx %02x:%02x %llu", (unsigned long long)mapping->start,
        (unsigned long long)mapping->end, mapping->protection & PROT_READ ? 'r' : '-',
        mapping->protection & PROT_WRITE ? 'w' : '-', mapping->protection & PROT_EXEC ? 'x' : '-',
        mapping->shared ? 's' : 'p', (unsigned long long)mapping->offset,
        file ? major(file->device) : 0, file ? minor(file->device) : 0,
        file ? (unsigned long long)file->inode : 0);
    const char *name = name_to_show(space, mapping);
    if (name)
        fprintf(out, "%*s%s", length < 73 ? 73 - length : 1, "", name);
    fputc('\n', out);
}

void user_space_print(struct user_space *space, FILE *out)
{
    pthread_mutex_lock(&space->lock);
    for (size_t i = 0; i < space->mapping_count; i++)
        print_mapping(space, &space->mappings[i], out);
    pthread_mutex_unlock(&space->lock);
}

// ---- mremap -------------------------------------------------------------------------------------

// A mapping of the program that is to be another size, or elsewhere.
struct move {
    struct user_mapping mapping;  // of which the range is
    uint64_t from, from_bytes, to, to_bytes;
};

// The host moves it by way of a place outside of the reservation: so none of the reservation is
// free in between.
static int move_host(struct user_space *space, const struct move *move)
{
    uint8_t *from = space->hva + move->from, *to = space->hva + move->to;
    void *between =
        mremap(from, move->from_bytes, move->from_bytes, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
    if (between == MAP_FAILED)
        return -ENOMEM;
    if (mremap(between, move->from_bytes, move->to_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) !=
        MAP_FAILED)
        return 0;
    // Back: what is there is its own kind of mapping, empty.
    (void)!mremap(between, move->from_bytes, move->from_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, from);
    return -ENOMEM;
}

static int64_t move(struct user_space *space, const struct move *move, unsigned *fences)
{
    int rc = reserve_entries(space);
    if (rc < 0)
        return rc;
    *fences = fences_for(space, move->from, move->from + move->from_bytes, PROT_NONE) |
              fences_for(space, move->to, move->to + move->to_bytes, move->mapping.protection);
    set_pages(space, move->from, move->from + move->from_bytes, 0);
    set_pages(space, move->to, move->to + move->to_bytes, 0);
    rc = move_host(space, move);
    if (rc == 0)
        rc = clear_host(space, move->from, move->from_bytes);
    if (rc < 0) {
        show(space, move->from, move->from + move->from_bytes);
        show(space, move->to, move->to + move->to_bytes);
        return rc;
    }
    struct user_mapping mapping = move->mapping;
    mapping.offset += move->from - mapping.start;
    mapping.start = move->to;
    mapping.end = move->to + move->to_bytes;
    if (mapping.file)
        mapping.file->users++;
    forget(space, move->from, move->from + move->from_bytes);
    enter(space, &mapping);
    return (int64_t)move->to;
}

// More of an anonymous mapping where it is; what of a file comes behind the host cannot be told.
static bool grow(struct user_space *space, const struct move *move, unsigned *fences)
{
    const struct user_mapping *mapping = &move->mapping;
    uint64_t end = move->from + move->from_bytes, new_end = move->from + move->to_bytes;

    return !mapping->file && !mapping->shared && is_range(move->from, move->to_bytes) &&
           new_end <= space->limit && mapping->end == end && is_free(space, end, new_end) &&
           map(space, end, new_end - end, mapping->protection,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0, fences) >= 0;
}

static int64_t remap(struct user_space *space, struct move *request, int flags, unsigned *fences)
{
    uint64_t from = request->from;
    size_t i = find(space, from);

    if (i == space->mapping_count || space->mappings[i].start > from ||
        space->mappings[i].end - from < request->from_bytes)
        return -EFAULT;
    request->mapping = space->mappings[i];
    if (flags & MREMAP_FIXED) {
        if (request->to < LOWEST_GVA)
            return -EPERM;
        if (request->to + request->to_bytes > space->limit)
            return -ENOMEM;
        return move(space, request, fences);
    }
    if (request->to_bytes == request->from_bytes)
        return (int64_t)from;
    if (request->to_bytes < request->from_bytes) {
        int rc =
            unmap(space, from + request->to_bytes, request->from_bytes - request->to_bytes, fences);
        return rc < 0 ? rc : (int64_t)from;
    }
    if (grow(space, request, fences))
        return (int64_t)from;
    request->to = flags & MREMAP_MAYMOVE ? find_free(space, request->to_bytes) : 0;
    return request->to ? move(space, request, fences) : -ENOMEM;
}

// Of who watches: it can be protected and advised about, no more.
static bool is_heap(const struct user_space *space, uint64_t gva, uint64_t bytes)
{
    return space->stacks && gva + bytes > space->stacks_top;
}

int64_t user_mremap(struct user_thread *thread, const uint64_t arguments[6])
{
    struct user_space *space = &thread->process->space;
    struct move request = {.from = user_gva(thread->process, arguments[0]),
                           .from_bytes = user_page_up(arguments[1]),
                           .to_bytes = user_page_up(arguments[2]),
                           .to = user_gva(thread->process, arguments[4])};
    int flags = (int)arguments[3];
    unsigned fences = 0;

    if (flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED) || !is_aligned(request.from) ||
        !request.from_bytes || !request.to_bytes || !is_range(request.from, request.from_bytes) ||
        is_heap(space, request.from, request.from_bytes) ||
        (flags & MREMAP_FIXED && (!(flags & MREMAP_MAYMOVE) || !is_aligned(request.to) ||
                                  !is_range(request.to, request.to_bytes) ||
                                  (request.to < request.from + request.from_bytes &&
                                   request.from < request.to + request.to_bytes))))
        return -EINVAL;
    if (request.to_bytes > HART_FLAT_BYTES)
        return -ENOMEM;
    pthread_mutex_lock(&space->lock);
    int64_t result = remap(space, &request, flags, &fences);
    pthread_mutex_unlock(&space->lock);
    if (fences)
        user_process_fence(space->process, fences);
    return result;
}

// ---- System V's segments ------------------------------------------------------------------------

// What is to be attached.
struct segment {
    int id, flags;
    uint64_t gva, bytes;
    struct user_file *file;
};

// What is known of a segment that is attached at `hva`, and is the same one as long as it is. One
// of the host's large pages may take more of them than it has bytes for, and is refused: its pages
// cannot be protected one by one.
static int segment_look(struct segment *segment, void *hva)
{
    struct shmid_ds status;
    char path[32];

    if (shmctl(segment->id, IPC_STAT, &status) < 0)
        return -errno;
    segment->bytes = user_page_up(status.shm_segsz);
    if (segment->bytes > HART_FLAT_BYTES)
        return -ENOMEM;
    if (mprotect(hva, segment->bytes, PROT_NONE) < 0)
        return -errno;
    int length =
        snprintf(path, sizeof(path), "/SYSV%08x (deleted)", (unsigned)status.shm_perm.__key);
    struct user_file *file = malloc(sizeof(*file) + (size_t)length + 1);
    if (!file)
        return -ENOMEM;
    *file = (struct user_file){.users = 1, .segment = true, .inode = (unsigned)segment->id};
    memcpy(file->path, path, (size_t)length + 1);
    segment->file = file;
    return 0;
}

static int64_t segment_enter(struct user_space *space, const struct segment *segment,
                             unsigned *fences)
{
    int protection = PROT_READ | (segment->flags & SHM_RDONLY ? 0 : PROT_WRITE) |
                     (segment->flags & SHM_EXEC ? PROT_EXEC : 0);
    int fixed = segment->flags & SHM_REMAP ? MAP_FIXED : MAP_FIXED_NOREPLACE;
    uint64_t gva = segment->gva, bytes = segment->bytes;
    int rc = choose_place(space, &gva, bytes, gva ? fixed : 0);
    if (rc == 0)
        rc = reserve_entries(space);
    if (rc < 0)
        return rc == -EEXIST ? -EINVAL : rc;
    *fences = fences_for(space, gva, gva + bytes, protection);
    set_pages(space, gva, gva + bytes, 0);
    if (shmat(segment->id, space->hva + gva, SHM_REMAP | (segment->flags & SHM_RDONLY)) ==
        (void *)-1) {
        rc = -errno;
        show(space, gva, gva + bytes);
        return rc;
    }
    const struct user_mapping mapping = {.start = gva,
                                         .end = gva + bytes,
                                         .file = segment->file,
                                         .protection = (uint8_t)protection,
                                         .shared = true};
    segment->file->users++;
    enter(space, &mapping);
    return (int64_t)gva;
}

static int64_t attach(struct user_space *space, struct segment *segment, unsigned *fences)
{
    void *hva = shmat(segment->id, NULL, segment->flags & (SHM_RDONLY | SHM_EXEC));
    if (hva == (void *)-1)
        return -errno;
    int64_t result = segment_look(segment, hva);
    if (segment->file)
        result = segment_enter(space, segment, fences);
    file_drop(segment->file);
    shmdt(hva);
    return result;
}

int64_t user_shmat(struct user_thread *thread, const uint64_t arguments[6])
{
    struct user_space *space = &thread->process->space;
    struct segment segment = {.id = (int)arguments[0],
                              .gva = user_gva(thread->process, arguments[1]),
                              .flags = (int)arguments[2]};
    unsigned fences = 0;

    if (segment.flags & SHM_RND)
        segment.gva = user_page_down(segment.gva);
    if (!is_aligned(segment.gva) || (!segment.gva && segment.flags & SHM_REMAP))
        return -EINVAL;
    pthread_mutex_lock(&space->lock);  // and no child has what is attached for a moment
    int64_t result = attach(space, &segment, &fences);
    pthread_mutex_unlock(&space->lock);
    if (space->process->watch && result >= 0 && segment.flags & SHM_EXEC)
        tell_mapped(space, (uint64_t)result, segment.bytes, -1, 0);
    if (fences && result >= 0)
        user_process_fence(space->process, fences);
    return result;
}

// What is left of the segment whose first page is, or was, at gva.
static int detach(struct user_space *space, uint64_t gva, unsigned *fences)
{
    const struct user_file *file = NULL;
    int rc = -EINVAL;

    for (size_t i = find(space, gva); i < space->mapping_count;) {
        struct user_mapping part = space->mappings[i];
        if (!part.file || !part.file->segment || part.start - gva != part.offset ||
            (file && part.file != file)) {
            i++;
            continue;
        }
        unsigned needed = 0;
        file = part.file;
        rc = unmap(space, part.start, part.end - part.start, &needed);
        *fences |= needed;
        if (rc < 0)
            break;
    }
    return rc;
}

int64_t user_shmdt(struct user_thread *thread, const uint64_t arguments[6])
{
    struct user_space *space = &thread->process->space;
    uint64_t gva = user_gva(thread->process, arguments[0]);
    unsigned fences = 0;

    if (!is_aligned(gva))
        return -EINVAL;
    pthread_mutex_lock(&space->lock);
    int rc = detach(space, gva, &fences);
    pthread_mutex_unlock(&space->lock);
    if (fences)
        user_process_fence(space->process, fences);
    return rc;
}

// ---- The other calls ----------------------------------------------------------------------------

int64_t user_mmap(struct user_thread *thread, const uint64_t arguments[6])
{
    return user_space_map(&thread->process->space, user_gva(thread->process, arguments[0]),
                          arguments[1], (int)arguments[2], (int)arguments[3], (int)arguments[4],
                          arguments[5]);
}

int64_t user_munmap(struct user_thread *thread, const uint64_t arguments[6])
{
    struct user_space *space = &thread->process->space;
    uint64_t gva = user_gva(thread->process, arguments[0]);

    if (is_range(gva, arguments[1]) && is_heap(space, gva, arguments[1]))
        return -EINVAL;
    return user_space_unmap(space, gva, arguments[1]);
}

int64_t user_mprotect(struct user_thread *thread, const uint64_t arguments[6])
{
    return user_space_protect(&thread->process->space, user_gva(thread->process, arguments[0]),
                              arguments[1], (int)arguments[2]);
}

// Moves the end of the heap; the address of the end, whether or not it moved.
int64_t user_brk(struct user_thread *thread, const uint64_t arguments[6])
{
    struct user_space *space = &thread->process->space;
    unsigned fences = 0;

    pthread_mutex_lock(&space->lock);
    uint64_t wanted = arguments[0], end = user_page_up(space->brk), new_end = user_page_up(wanted);
    bool moved = false;
    if (wanted >= space->brk_start && wanted <= space->limit) {
        if (new_end > end)
            moved = map(space, end, new_end - end, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0, &fences) >= 0;
        else
            moved = new_end == end || unmap(space, new_end, end - new_end, &fences) == 0;
    }
    if (moved)
        space->brk = wanted;
    int64_t result = (int64_t)space->brk;
    pthread_mutex_unlock(&space->lock);
    if (fences)
        user_process_fence(space->process, fences);
    return result;
}

// A call of the host's about pages that are mapped, as its other arguments are.
static int64_t about_pages(struct user_thread *thread, long number, const uint64_t arguments[6])
{
    struct user_space *space = &thread->process->space;
    uint64_t gva = user_gva(thread->process, arguments[0]), bytes = user_page_up(arguments[1]);

    if (!is_aligned(gva) || (!bytes && arguments[1]))
        return -EINVAL;
    if (!is_range(gva, bytes))
        return -ENOMEM;
    pthread_mutex_lock(&space->lock);
    int64_t result = is_mapped(space, gva, gva + bytes) ? 0 : -ENOMEM;
    pthread_mutex_unlock(&space->lock);
    return result < 0 ? result
                      : user_host_call(thread, number, (uint64_t)(uintptr_t)(space->hva + gva),
                                       bytes, arguments[2], 0, 0, 0);
}

int64_t user_madvise(struct user_thread *thread, const uint64_t arguments[6])
{
    switch (arguments[2]) {
    case MADV_NORMAL:
    case MADV_RANDOM:
    case MADV_SEQUENTIAL:
    case MADV_WILLNEED:
    case MADV_DONTNEED:
    case MADV_FREE:
    case MADV_REMOVE:
    case MADV_MERGEABLE:
    case MADV_UNMERGEABLE:
    case MADV_HUGEPAGE:
    case MADV_NOHUGEPAGE:
    case MADV_DONTDUMP:
    case MADV_DODUMP:
    case MADV_WIPEONFORK:
    case MADV_KEEPONFORK:
    case MADV_COLD:
    case MADV_PAGEOUT:
    case MADV_POPULATE_READ:
    case MADV_POPULATE_WRITE:
        return about_pages(thread, SYS_madvise, arguments);
    default:  // MADV_DONTFORK too: it would leave the child's reservation with a hole
        return -EINVAL;
    }
}

int64_t user_msync(struct user_thread *thread, const uint64_t arguments[6])
{
    return about_pages(thread, SYS_msync, arguments);
}

int64_t user_mincore(struct user_thread *thread, const uint64_t arguments[6])
{
    uint64_t with_vector[6] = {arguments[0], arguments[1]};
    void *vector;

    if (user_buffer(thread, arguments[2], user_page_up(arguments[1]) / USER_PAGE_BYTES, HART_STORE,
                    &vector) < 0)
        return -EFAULT;
    with_vector[2] = (uint64_t)(uintptr_t)vector;
    return about_pages(thread, SYS_mincore, with_vector);
}

// For the three that lock, whole pages are meant.
static int64_t lock_pages(struct user_thread *thread, long number, const uint64_t arguments[6])
{
    uint64_t in_page = arguments[0] % USER_PAGE_BYTES;
    const uint64_t whole[6] = {arguments[0] - in_page, arguments[1] + in_page, arguments[2]};
    return about_pages(thread, number, whole);
}

int64_t user_mlock(struct user_thread *thread, const uint64_t arguments[6])
{
    return lock_pages(thread, SYS_mlock, arguments);
}

int64_t user_mlock2(struct user_thread *thread, const uint64_t arguments[6])
{
    return lock_pages(thread, SYS_mlock2, arguments);
}

int64_t user_munlock(struct user_thread *thread, const uint64_t arguments[6])
{
    return lock_pages(thread, SYS_munlock, arguments);
}

// All of this process is more than the program's memory.
int64_t user_mlockall(struct user_thread *thread, const uint64_t arguments[6])
{
    (void)thread;
    (void)arguments;
    return -EPERM;
}

int64_t user_munlockall(struct user_thread *thread, const uint64_t arguments[6])
{
    (void)thread;
    (void)arguments;
    return 0;
}
