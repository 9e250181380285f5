// SPDX-License-Identifier: BSD-2-Clause
// Firmware, checked: a partition of its own in this process, whose harts have hooks. Objects are in
// RAM of their own, far behind the board's, which no device tree tells of; what the program has
// tagged itself is in the board's (tags.h).
//
// Threads: hooks are called on the threads of harts, console input on the partition's loop, the
// rest is the caller's thread.
#include "check/firmware.h"

#include <assert.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <strake/guest.h>
#include <string.h>
#include <unistd.h>

#include "check/checker_internal.h"
#include "check/tags.h"
#include "partition/partition.h"

// Behind all RAM that a board may have; not a round number, which others could be taken for.
#define OBJECTS_GPA 0x2062a90000ull
#define OBJECTS_BYTES (4ull << 30)
static_assert(MACHINE_RAM_GPA + MACHINE_MEMORY_MAX_BYTES <= OBJECTS_GPA, "objects are behind RAM");

#define TEST_POWEROFF 0x5555u  // to the board's test device

// SBI 2.0, chapter 3.
enum {
    SBI_SUCCESS = 0,
    SBI_FAILED = -1,
    SBI_NOT_SUPPORTED = -2,
    SBI_INVALID_PARAM = -3,
    SBI_INVALID_ADDRESS = -5
};

struct input {
    struct loop_watch *watch;  // NULL: it is not waited for
    bool file;                 // it need not be: a file's, of which there is more
    struct loop_wake *room;
    uint8_t bytes[256];
    size_t count;  // not taken yet
};

struct firmware {
    const struct check_firmware_options *options;
    int fd;
    char *path;  // absolute
    struct partition *partition;
    struct memory *memory;
    struct checker *checker;
    struct tags *tags;
    struct hart_check check;  // the checker's, but for accesses
    const struct hart_check *core;
    struct checker_thread *threads[HART_MAX];
    struct input input;
};

// ---- The program's memory -----------------------------------------------------------------------

static int target_map(void *opaque, uint64_t gva, uint64_t bytes)
{
    (void)opaque, (void)gva, (void)bytes;
    return 0;  // it is RAM
}

// Zero when it is mapped again.
static void target_unmap(void *opaque, uint64_t gva, uint64_t bytes)
{
    const struct firmware *firmware = opaque;
    const struct memory_ram *ram = memory_find_ram(firmware->memory, gva);

    if (fallocate(ram->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(gva - ram->gpa),
                  (off_t)bytes) < 0)
        memset(ram->hva + (gva - ram->gpa), 0, bytes);
}

static void *target_hva(void *opaque, uint64_t gva, uint64_t bytes)
{
    const struct firmware *firmware = opaque;
    return memory_ram_hva(firmware->memory, gva, bytes);
}

// RAM does not vanish.
static int target_attempt(void *opaque, void (*work)(void *argument), void *argument)
{
    (void)opaque;
    work(argument);
    return 0;
}

static struct checker_thread *target_thread(void *opaque, struct hart *hart)
{
    const struct firmware *firmware = opaque;
    return firmware->threads[hart->id];
}

static void target_fault(void *opaque, struct hart *hart, uint64_t gva, enum hart_access access)
{
    (void)opaque;
    hart_raise(hart, access == HART_STORE ? HART_CAUSE_STORE_ACCESS : HART_CAUSE_LOAD_ACCESS, gva);
    hart_trap_pending(hart);
}

// As if it had switched itself off: all harts stop, and none goes on before the end.
static void target_halt(void *opaque, struct hart *hart)
{
    const struct firmware *firmware = opaque;
    (void)hart;

    (void)!memory_device_write(firmware->memory, MACHINE_TEST_GPA, sizeof(uint32_t), TEST_POWEROFF);
}

// What has ever been written of RAM, and the registers.
static void target_roots(void *opaque, struct checker *checker)
{
    const struct firmware *firmware = opaque;
    struct machine *machine = partition_machine(firmware->partition);
    const struct memory_ram *ram = memory_find_ram(firmware->memory, MACHINE_RAM_GPA);
    off_t start = 0, end;

    while ((start = lseek(ram->fd, start, SEEK_DATA)) >= 0) {
        end = lseek(ram->fd, start, SEEK_HOLE);
        checker_root(checker, ram->gpa + (uint64_t)start, (uint64_t)(end - start));
        start = end;
    }
    for (unsigned id = 0; id < machine_cpus(machine); id++)
        for (unsigned i = 1; i < 32; i++)
            checker_root_word(checker, machine_hart(machine, id)->x[i]);
}

// ---- Hooks of harts -----------------------------------------------------------------------------

// The board has nothing at the start, and programs that run into it have a trap; but there it is
// known what it is.
#define NULL_BYTES 4096u

static void look_at_null(const struct memory_identifiers *identifiers)
{
    for (uint64_t gva = 0; gva < NULL_BYTES; gva += MEMORY_GRANULE_BYTES)
        memory_identifiers_put(identifiers, gva, MEMORY_IDENTIFIER_LOOK);
}

static bool hook_access(void *opaque, struct hart *hart, uint64_t pointer, uint64_t bytes,
                        enum hart_access kind)
{
    struct firmware *firmware = opaque;
    struct checker_thread *thread = firmware->threads[hart->id];
    enum check_access access = checker_access_of(kind);
    struct heap_finding finding;

    if (pointer < NULL_BYTES)
        return checker_found(thread, hart, CHECK_NULL_DEREFERENCE, access, pointer, bytes, NULL);
    if (memory_pointer_gva(pointer) < OBJECTS_GPA) {
        if (tags_allow(firmware->tags, pointer, bytes))
            return true;
        if (tags_diagnose(firmware->tags, pointer, bytes, &finding))
            return checker_found_heap(thread, hart, &finding, access, pointer, bytes);
    }
    if (!firmware->core->access(firmware->core->opaque, hart, pointer, bytes, kind))
        return false;
    if (memory_pointer_identifier(pointer) == MEMORY_IDENTIFIER_NONE ||
        memory_ram_hva(firmware->memory, memory_pointer_gva(pointer), 1))
        return true;
    // Nor does such a pointer lead to a device, on hardware.
    target_fault(firmware, hart, pointer, kind);
    return false;
}

static bool hook_takes(void *opaque, uint64_t pc)
{
    const struct firmware *firmware = opaque;
    return firmware->core->takes(firmware->core->opaque, pc);
}

static void hook_taken(void *opaque, struct hart *hart)
{
    const struct firmware *firmware = opaque;
    firmware->core->taken(firmware->core->opaque, hart);
}

static bool hook_returns(void *opaque, struct hart *hart, uint64_t expected)
{
    const struct firmware *firmware = opaque;
    return firmware->core->returns(firmware->core->opaque, hart, expected);
}

// ---- What the program says: include/strake/guest.h ----------------------------------------------

struct guest_call {
    struct firmware *firmware;
    struct checker_thread *thread;
    struct hart *hart;
    uint64_t first, second;
    uint64_t *value;
    uint32_t who;
};

static int64_t sbi_error(int rc)
{
    return rc == 0 ? SBI_SUCCESS : rc == -EINVAL ? SBI_INVALID_PARAM : SBI_FAILED;
}

static int64_t refused(const struct guest_call *call, const struct heap_finding *finding,
                       enum check_access access)
{
    checker_found_heap(call->thread, call->hart, finding, access, call->first, 0);
    return SBI_INVALID_PARAM;
}

static int64_t guest_allocate(const struct guest_call *call)
{
    const struct heap_request request = {
        .bytes = call->first, .alignment = call->second, .family = HEAP_MALLOC, .who = call->who};
    return sbi_error(heap_allocate(checker_heap_thread(call->thread), &request, call->value));
}

static int64_t guest_resize(const struct guest_call *call)
{
    const struct heap_request request = {
        .bytes = call->second, .family = HEAP_MALLOC, .who = call->who};
    struct heap_finding finding;
    int rc = heap_reallocate(checker_heap_thread(call->thread), call->first, &request, call->value,
                             &finding);
    return rc == -EINVAL ? refused(call, &finding, CHECK_ACCESS_REALLOCATE) : sbi_error(rc);
}

static int64_t guest_free(const struct guest_call *call)
{
    struct heap_finding finding;
    int rc =
        heap_free(checker_heap_thread(call->thread), call->first, HEAP_MALLOC, call->who, &finding);
    return rc == -EINVAL ? refused(call, &finding, CHECK_ACCESS_FREE) : sbi_error(rc);
}

static int64_t guest_tag(const struct guest_call *call)
{
    uint64_t gva = memory_pointer_gva(call->first), bytes = call->second ? call->second : 1;

    if (gva >= OBJECTS_GPA || !memory_ram_hva(call->firmware->memory, gva, bytes))
        return SBI_INVALID_ADDRESS;
    return sbi_error(tags_add(call->firmware->tags, gva, bytes, call->who, call->value));
}

// The plain address comes back in any case: what the program does with it then is what it would do
// on hardware.
static int64_t guest_untag(const struct guest_call *call)
{
    struct heap_finding finding;

    *call->value = memory_pointer_gva(call->first);
    if (call->first && tags_end(call->firmware->tags, call->first, call->who, &finding) < 0)
        refused(call, &finding, CHECK_ACCESS_FREE);
    return SBI_SUCCESS;
}

static int64_t guest_call(void *opaque, struct hart *hart, uint64_t function,
                          const uint64_t arguments[2], uint64_t *value)
{
    static int64_t (*const functions[])(const struct guest_call *call) = {
        [STRAKE_GUEST_ALLOCATE] = guest_allocate, [STRAKE_GUEST_RESIZE] = guest_resize,
        [STRAKE_GUEST_FREE] = guest_free,         [STRAKE_GUEST_TAG] = guest_tag,
        [STRAKE_GUEST_UNTAG] = guest_untag,
    };
    struct firmware *firmware = opaque;
    const struct guest_call call = {
        .firmware = firmware,
        .thread = firmware->threads[hart->id],
        .hart = hart,
        .first = arguments[0],
        .second = arguments[1],
        .value = value,
        .who = checker_who(firmware->threads[hart->id], hart, hart->pc),
    };
    return function < BASE_COUNT_OF(functions) ? functions[function](&call) : SBI_NOT_SUPPORTED;
}

// ---- The console --------------------------------------------------------------------------------

static void console_output(void *opaque, const void *bytes, size_t count)
{
    (void)opaque;
    (void)!fd_write_full(STDOUT_FILENO, bytes, count);  // somebody need not be there to read it
}

static void console_room(void *opaque)
{
    const struct firmware *firmware = opaque;

    if (firmware->input.room)
        loop_wake_signal(firmware->input.room);
}

// False: there is nothing now, or nothing more at all.
static bool input_read(struct input *input)
{
    ssize_t count = read(STDIN_FILENO, input->bytes, sizeof(input->bytes));

    if (count > 0) {
        input->count = (size_t)count;
    } else if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
        loop_watch_close(input->watch);
        input->watch = NULL;
        input->file = false;
    }
    return count > 0;
}

// Offers what has been read, and waits for what is next.
static void input_offer(void *opaque)
{
    struct firmware *firmware = opaque;
    struct input *input = &firmware->input;

    do {
        size_t taken = partition_console_input(firmware->partition, input->bytes, input->count);
        input->count -= taken;
        memmove(input->bytes, input->bytes + taken, input->count);
    } while (input->count == 0 && input->file && input_read(input));
    if (input->watch)
        loop_watch_set(input->watch, input->count ? 0 : LOOP_READABLE);
}

static void input_ready(void *opaque, unsigned events)
{
    struct firmware *firmware = opaque;
    (void)events;

    if (input_read(&firmware->input))
        input_offer(firmware);
}

// There need not be any.
static void input_open(void *opaque)
{
    struct firmware *firmware = opaque;
    struct loop *loop = partition_loop(firmware->partition);
    struct input *input = &firmware->input;

    if (loop_wake_create(loop, input_offer, firmware, &input->room) < 0)
        return;
    input->file = loop_watch_create(loop, STDIN_FILENO, LOOP_READABLE, input_ready, firmware,
                                    &input->watch) == -EPERM;
    input_offer(firmware);
}

// ---- Where the program's code is ----------------------------------------------------------------

// As the board's loader has placed it, which has also found the file to be in order. Code is where
// it is linked, or as a whole moved into RAM.
static uint64_t elf_bias(const Elf64_Ehdr *header, const Elf64_Phdr *segments)
{
    uint64_t lowest = UINT64_MAX;

    for (unsigned i = 0; i < header->e_phnum; i++)
        if (segments[i].p_type == PT_LOAD && segments[i].p_memsz && segments[i].p_paddr < lowest)
            lowest = segments[i].p_paddr;
    return header->e_type == ET_DYN && lowest < MACHINE_RAM_GPA ? MACHINE_RAM_GPA - lowest : 0;
}

static int map_segments(struct firmware *firmware, const Elf64_Ehdr *header, struct error *err)
{
    size_t bytes = header->e_phnum * sizeof(Elf64_Phdr);
    Elf64_Phdr *segments = malloc(bytes);
    int rc = segments ? 0 : -ENOMEM;

    if (rc == 0 && fd_pread_full(firmware->fd, segments, bytes, header->e_phoff) != (int64_t)bytes)
        rc = -EIO;
    for (unsigned i = 0; rc == 0 && i < header->e_phnum; i++) {
        const Elf64_Phdr *segment = &segments[i];
        if (segment->p_type == PT_LOAD && segment->p_filesz)
            checker_map(firmware->checker, segment->p_vaddr + elf_bias(header, segments),
                        segment->p_filesz, segment->p_flags & PF_X, firmware->fd, firmware->path,
                        firmware->path, segment->p_offset);
    }
    free(segments);
    return rc < 0 ? error_set_errno(err, rc, "cannot read \"%s\"", firmware->path) : 0;
}

static int map_program(struct firmware *firmware, struct error *err)
{
    Elf64_Ehdr header;
    int64_t count = fd_pread_full(firmware->fd, &header, sizeof(header), 0);

    if (count != sizeof(header) || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0)
        return error_set(err, -ENOEXEC, "\"%s\" is no ELF file: nothing is known of its functions",
                         firmware->path);
    return map_segments(firmware, &header, err);
}

// ---- The run ------------------------------------------------------------------------------------

// For signal handlers, which get no argument.
static struct partition *_Atomic signalled;
static volatile sig_atomic_t signal_taken;

static void on_signal(int signal)
{
    struct partition *partition = signalled;

    signal_taken = signal;
    if (partition)
        partition_stop(partition);
}

static void take_signals(struct partition *partition)
{
    static const int ends[] = {SIGINT, SIGTERM, SIGHUP};
    // A second one ends the process, whatever it waits for.
    const struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESETHAND};

    signalled = partition;
    for (size_t i = 0; i < BASE_COUNT_OF(ends); i++)
        sigaction(ends[i], &action, NULL);
}

static int open_program(struct firmware *firmware, struct error *err)
{
    const char *path = firmware->options->path;

    firmware->fd = open(path, O_RDONLY | O_CLOEXEC);
    firmware->path = firmware->fd < 0 ? NULL : realpath(path, NULL);
    return firmware->path ? 0 : error_set_errno(err, -errno, "cannot open \"%s\"", path);
}

static int create_board(struct firmware *firmware, struct error *err)
{
    const struct check_firmware_options *options = firmware->options;
    const struct partition_config config = {
        .name = "firmware",
        .machine =
            {
                .memory_bytes = options->memory_bytes,
                .cpus = options->cpus,
                .engine = options->engine,
                .version = STRAKE_VERSION,
                .ram_fd = -1,
                .initrd_fd = -1,
                .kernel_fd = options->supervisor ? firmware->fd : -1,
                .firmware_fd = options->supervisor ? -1 : firmware->fd,
                .kernel_name = options->path,
                .firmware_name = options->path,
                .guest = {.call = guest_call, .opaque = firmware},
            },
        .no_reboot = true,
        .console_output = console_output,
        .console_room = console_room,
        .opaque = firmware,
    };
    int rc = partition_create(&firmware->partition, &config, err);

    if (rc < 0)
        return rc;
    firmware->memory = machine_memory(partition_machine(firmware->partition));
    return memory_add_ram(firmware->memory, OBJECTS_GPA, OBJECTS_BYTES, -1, err);
}

static int create_checker(struct firmware *firmware, struct error *err)
{
    struct checker_options options = firmware->options->checker;
    const struct checker_target target = {
        .opaque = firmware,
        .objects = OBJECTS_GPA,
        .objects_bytes = OBJECTS_BYTES,
        .map = target_map,
        .unmap = target_unmap,
        .hva = target_hva,
        .attempt = target_attempt,
        .thread = target_thread,
        .fault = target_fault,
        .halt = target_halt,
        .roots = target_roots,
    };

    options.program = firmware->path;
    int rc = checker_create(&firmware->checker, &options, &target, err);
    if (rc < 0)
        return rc;
    firmware->core = checker_hart_check(firmware->checker);
    firmware->check = *firmware->core;
    firmware->check.access = hook_access;
    firmware->check.takes = hook_takes;
    firmware->check.taken = hook_taken;
    firmware->check.at_once = NULL;  // of the programs of Linux, whose memory is flat
    firmware->check.returns = hook_returns;
    firmware->check.opaque = firmware;
    look_at_null(firmware->core->identifiers);
    rc = tags_create(&firmware->tags, firmware->core->identifiers);
    return rc < 0 ? error_set_errno(err, rc, "cannot check \"%s\"", firmware->path) : 0;
}

static int check_harts(struct firmware *firmware, struct error *err)
{
    struct machine *machine = partition_machine(firmware->partition);
    int rc = 0;

    for (unsigned id = 0; id < machine_cpus(machine) && rc == 0; id++) {
        rc = checker_thread_create(&firmware->threads[id], firmware->checker, id);
        if (rc == 0)
            rc = hart_set_check(machine_hart(machine, id), &firmware->check);
    }
    return rc < 0 ? error_set_errno(err, rc, "cannot check \"%s\"", firmware->path) : 0;
}

static int wait_for_end(struct firmware *firmware, int *status, struct error *err)
{
    enum partition_end end;
    unsigned code;
    int rc = partition_wait(firmware->partition, &end, &code, err);

    if (rc < 0)
        return rc;
    int own = end == PARTITION_STOPPED && signal_taken ? 128 + signal_taken : 0;
    *status = checker_end(firmware->threads[0], own, true);
    if (*status == CHECKER_STATUS || (end != PARTITION_FAILED && end != PARTITION_BROKEN))
        return 0;
    return end == PARTITION_FAILED
               ? error_set(err, -EIO, "\"%s\" reported failure with code %u", firmware->path, code)
               : error_set(err, -EIO, "\"%s\" cannot go on", firmware->path);
}

static int run(struct firmware *firmware, int *status, struct error *err)
{
    int rc = open_program(firmware, err);

    if (rc == 0)
        rc = create_board(firmware, err);
    if (rc == 0)
        rc = create_checker(firmware, err);
    if (rc == 0)
        rc = check_harts(firmware, err);
    if (rc == 0)
        rc = partition_start(firmware->partition, true, err);
    if (rc == 0)
        rc = map_program(firmware, err);
    if (rc < 0)
        return rc;
    take_signals(firmware->partition);
    // Before harts run: they look at what it makes.
    loop_call(partition_loop(firmware->partition), input_open, firmware);
    partition_resume(firmware->partition);
    return wait_for_end(firmware, status, err);
}

int check_firmware_run(const struct check_firmware_options *options, int *status, struct error *err)
{
    struct firmware *firmware = calloc(1, sizeof(*firmware));

    if (!firmware)
        return error_set_errno(err, -ENOMEM, "cannot check \"%s\"", options->path);
    firmware->options = options;
    firmware->fd = -1;
    int rc = run(firmware, status, err);
    signalled = NULL;
    partition_destroy(firmware->partition);
    for (unsigned id = 0; id < HART_MAX; id++)
        checker_thread_destroy(firmware->threads[id]);
    tags_destroy(firmware->tags);
    checker_destroy(firmware->checker);
    free(firmware->path);
    if (firmware->fd >= 0)
        close(firmware->fd);
    free(firmware);
    return rc;
}
