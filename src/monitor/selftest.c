// SPDX-License-Identifier: BSD-2-Clause
// The self-test: whether this program can run guests on this host at all, found out before any
// partition is entrusted to it.
//
// In the monitor's own sandbox, on each engine: a machine of one hart runs a loop that multiplies,
// divides, does atomic operations on RAM and writes what comes out to its UART, a letter a round;
// then it is saved, and another machine goes on from that state with the same RAM. A model of the
// loop here says which letter is next, in both.
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "monitor/internal.h"
#include "monitor/sandbox.h"

#define RAM_BYTES (16ull << 20)
#define HEAP_BYTES (1ull << 30)
#define FILES 256u
#define LETTERS 5000u  // of each machine: enough for the loop to be translated
#define PATIENCE_MS 30000u
#define FACTOR 6364136223846793005u
#define ADDEND 1442695040888963407u

static const struct hart_engine *const engines[] = {&hart_engine_interp, &hart_engine_jit,
                                                    &hart_engine_verify};

static const uint32_t code[] = {
    0x100002b7,  // lui t0, 0x10000          the UART
    0x00000317,  // auipc t1, 0
    0x00100417,  // auipc s0, 0x100          a place in RAM
    0x03c33483,  // ld s1, 60(t1)            FACTOR
    0x04433903,  // ld s2, 68(t1)            ADDEND
    0x01a00993,  // li s3, 26
    0x00100513,  // li a0, 1
    0x02950533,  // loop: mul a0, a0, s1
    0x01250533,  // add a0, a0, s2
    0x00a435af,  // amoadd.d a1, a0, (s0)
    0x00a5c5b3,  // xor a1, a1, a0
    0x0215d593,  // srli a1, a1, 33
    0x0335f5b3,  // remu a1, a1, s3
    0x06158593,  // addi a1, a1, 'a'
    0x00b28023,  // sb a1, 0(t0)
    0xfe1ff06f,  // j loop
    (uint32_t)FACTOR, (uint32_t)(FACTOR >> 32), (uint32_t)ADDEND, (uint32_t)(ADDEND >> 32),
};

// What the guest computes, as far as its letters were seen; by the thread that brings them.
struct model {
    uint64_t number, sum;
    atomic_uint letters;
    atomic_bool wrong;
};

static void on_output(void *opaque, const void *bytes, size_t count)
{
    struct model *model = opaque;
    const char *letters = bytes;
    for (size_t i = 0; i < count; i++) {
        model->number = model->number * FACTOR + ADDEND;
        uint64_t former = model->sum;
        model->sum += model->number;
        if (letters[i] != (char)('a' + ((former ^ model->number) >> 33) % 26))
            atomic_store(&model->wrong, true);
    }
    atomic_fetch_add(&model->letters, (unsigned)count);
}

static int await_letters(struct model *model, unsigned count, const char *engine, struct error *err)
{
    for (unsigned ms = 0; atomic_load(&model->letters) < count; ms++) {
        if (ms == PATIENCE_MS)
            return error_set(err, -ETIMEDOUT, "engine \"%s\" runs no guest", engine);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return atomic_load(&model->wrong)
               ? error_set(err, -EILSEQ, "engine \"%s\" computes something else", engine)
               : 0;
}

// ---- Two machines, of which one goes on where the other was -------------------------------------

struct pair {
    const struct hart_engine *engine;
    struct model model;
    struct partition *first, *second;
};

static int create_pair(struct pair *pair, int firmware_fd, struct error *err)
{
    struct partition_config config = {
        .name = "self-test",
        .machine = {.memory_bytes = RAM_BYTES,
                    .cpus = 1,
                    .engine = pair->engine,
                    .version = STRAKE_VERSION,
                    .kernel_fd = -1,
                    .initrd_fd = -1,
                    .firmware_fd = firmware_fd,
                    .firmware_name = "self-test",
                    .ram_fd = -1,
                    .append = ""},
        .console_output = on_output,
        .opaque = &pair->model,
    };
    pair->model.number = 1;
    int rc = partition_create(&pair->first, &config, err);
    if (rc < 0)
        return rc;
    config.machine.ram_fd =
        memory_find_ram(machine_memory(partition_machine(pair->first)), MACHINE_RAM_GPA)->fd;
    return partition_create(&pair->second, &config, err);
}

static int load(struct partition *partition, const void *bytes, size_t count, struct error *err)
{
    struct state_reader *reader = NULL;
    struct state_writer *again = NULL;
    const void *bytes_again;
    const int *fds;
    size_t count_again, fd_count;
    int rc = state_reader_create(&reader, bytes, count, NULL, 0, err);
    if (rc == 0 && state_writer_create(&again, false) < 0)
        rc = error_set_errno(err, -ENOMEM, "cannot save a state");
    if (rc == 0)
        rc = partition_load(partition, reader, again, err);
    if (rc == 0)
        rc = state_reader_finish(reader, err);
    if (rc == 0 && state_writer_finish(again, &bytes_again, &count_again, &fds, &fd_count) < 0)
        rc = error_set_errno(err, -ENOMEM, "cannot save a state");
    if (rc == 0)
        rc = state_compare(bytes, count, bytes_again, count_again, err);
    state_writer_destroy(again);
    state_reader_destroy(reader);
    return rc;
}

static int move(struct pair *pair, struct error *err)
{
    struct state_writer *writer;
    const void *bytes;
    const int *fds;
    size_t count, fd_count;
    if (state_writer_create(&writer, false) < 0)
        return error_set_errno(err, -ENOMEM, "cannot save a state");
    partition_save(pair->first, writer);
    int rc = state_writer_finish(writer, &bytes, &count, &fds, &fd_count);
    rc = rc < 0 ? error_set_errno(err, rc, "cannot save a state")
                : load(pair->second, bytes, count, err);
    state_writer_destroy(writer);
    return rc;
}

static int test_pair(struct pair *pair, struct error *err)
{
    const char *engine = pair->engine->name;
    int rc = partition_start(pair->first, false, err);
    if (rc == 0)
        rc = await_letters(&pair->model, LETTERS, engine, err);
    if (rc < 0)
        return rc;
    partition_pause(pair->first);
    rc = move(pair, err);
    if (rc < 0)
        return rc;
    unsigned before = atomic_load(&pair->model.letters);
    partition_resume(pair->second);
    rc = await_letters(&pair->model, before + LETTERS, engine, err);
    partition_pause(pair->second);
    return rc;
}

// ---- The role -----------------------------------------------------------------------------------

static int make_firmware(struct error *err)
{
    int fd = memfd_create("self-test", MFD_CLOEXEC);
    int64_t n = fd < 0 ? -errno : fd_write_full(fd, code, sizeof(code));
    if (n >= 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return error_set_errno(err, (int)n, "cannot make a guest");
}

static int test_engines(struct pair pairs[], int firmware_fd, struct error *err)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < BASE_COUNT_OF(engines); i++) {
        pairs[i].engine = engines[i];
        rc = create_pair(&pairs[i], firmware_fd, err);
    }
    if (rc == 0)
        rc = sandbox_lock(err);
    for (size_t i = 0; rc == 0 && i < BASE_COUNT_OF(engines); i++)
        rc = test_pair(&pairs[i], err);
    return rc;
}

int monitor_self_test(struct error *err)
{
    const struct sandbox_limits limits = {.files = FILES};
    struct pair pairs[BASE_COUNT_OF(engines)] = {0};
    int firmware_fd = make_firmware(err);
    int rc = firmware_fd < 0 ? firmware_fd : sandbox_leave_host(&limits, err);
    if (rc >= 0)
        rc = sandbox_limit_heap(HEAP_BYTES, err);
    if (rc == 0)
        rc = test_engines(pairs, firmware_fd, err);
    for (size_t i = 0; i < BASE_COUNT_OF(engines); i++) {
        partition_destroy(pairs[i].first);
        partition_destroy(pairs[i].second);
    }
    if (firmware_fd >= 0)
        close(firmware_fd);
    return rc;
}
