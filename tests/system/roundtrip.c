// SPDX-License-Identifier: BSD-2-Clause
// Boots a guest, and moves it through its saved state into a new partition again and again, while
// it counts on its console. At last the power button is pressed, and the guest switches off.
// usage: roundtrip KERNEL INITRD CPUS ENGINE ROUNDS
//
// Checked: each new partition saves what it has loaded; the guest goes on counting each time, and
// leaves out no number; it notices a new VM generation id; the button switches it off.
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "jit/jit.h"
#include "partition/partition.h"

#define WAIT_SECONDS 300u
#define TEXT_BYTES (1u << 20)

// Quiet, so that no line of the kernel gets in between.
static const char guest_work[] =
    "console=ttyS0 quiet strake.run=\"i=0; while :; do i=$((i+1)); echo count $i.;"
    " head -c 100000 /dev/urandom | md5sum >/dev/null;"
    " dmesg | grep -q 'reseeded due to virtual machine fork' && echo forked; done\"";

struct console {
    pthread_mutex_t lock;
    char text[TEXT_BYTES];
    size_t used;
};

static void fail(const char *what, const struct error *err)
{
    fprintf(stderr, "roundtrip: %s%s%s\n", what, err ? ": " : "", err ? err->message : "");
    exit(1);
}

static void console_output(void *opaque, const void *bytes, size_t count)
{
    struct console *console = opaque;

    pthread_mutex_lock(&console->lock);
    size_t room = sizeof(console->text) - 1 - console->used;
    count = count < room ? count : room;
    memcpy(console->text + console->used, bytes, count);
    console->used += count;
    pthread_mutex_unlock(&console->lock);
}

static bool has_text(struct console *console, const char *text)
{
    pthread_mutex_lock(&console->lock);
    bool found = strstr(console->text, text);
    pthread_mutex_unlock(&console->lock);
    return found;
}

static void wait_for(struct console *console, const char *text)
{
    for (unsigned i = 0; i < WAIT_SECONDS * 100; i++) {
        if (has_text(console, text))
            return;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    fprintf(stderr, "%s\nroundtrip: waited in vain for '%s'\n", console->text, text);
    exit(1);
}

// The number that the guest has counted up to.
static unsigned count_now(struct console *console)
{
    unsigned count = 0;

    pthread_mutex_lock(&console->lock);
    for (const char *at = console->text; (at = strstr(at, "\ncount ")); at++)
        count = (unsigned)strtoul(at + 7, NULL, 10);
    pthread_mutex_unlock(&console->lock);
    return count;
}

static void wait_for_count(struct console *console, unsigned count)
{
    char text[32];

    snprintf(text, sizeof(text), "\ncount %u.", count);
    wait_for(console, text);
}

static void save(struct partition *partition, struct state_writer **writer, const void **bytes,
                 size_t *count)
{
    const int *fds;
    size_t fd_count;

    if (state_writer_create(writer, false) < 0)
        fail("no memory", NULL);
    partition_save(partition, *writer);
    if (state_writer_finish(*writer, bytes, count, &fds, &fd_count) < 0)
        fail("cannot save", NULL);
}

static struct partition *load(const struct partition_config *config, const void *bytes,
                              size_t count)
{
    struct state_reader *reader = NULL;
    struct state_writer *again = NULL;
    struct partition *partition;
    struct error err = {0};
    const void *bytes_again;
    const int *fds;
    size_t count_again, fd_count;

    if (partition_create(&partition, config, &err) < 0 || state_writer_create(&again, false) < 0 ||
        state_reader_create(&reader, bytes, count, NULL, 0, &err) < 0 ||
        partition_load(partition, reader, again, &err) < 0 || state_reader_finish(reader, &err) < 0)
        fail("cannot load", &err);
    if (state_writer_finish(again, &bytes_again, &count_again, &fds, &fd_count) < 0 ||
        state_compare(bytes, count, bytes_again, count_again, &err) < 0)
        fail("what was loaded is not what was saved", &err);
    state_reader_destroy(reader);
    state_writer_destroy(again);
    return partition;
}

// The partition is gone afterwards, another one has its RAM and state.
static struct partition *move(struct partition *old, struct partition_config *config,
                              const uint8_t *generation)
{
    struct state_writer *writer;
    const void *bytes;
    size_t count;

    partition_pause(old);
    save(old, &writer, &bytes, &count);
    config->machine.ram_fd =
        memory_find_ram(machine_memory(partition_machine(old)), MACHINE_RAM_GPA)->fd;
    struct partition *new = load(config, bytes, count);
    state_writer_destroy(writer);
    partition_destroy(old);
    if (generation)
        machine_set_generation(partition_machine(new), generation);
    partition_resume(new);
    return new;
}

// Every number is there, once.
static void check_counts(struct console *console, unsigned last)
{
    const char *at = console->text;

    for (unsigned i = 1; i <= last; i++) {
        char text[32];
        snprintf(text, sizeof(text), "\ncount %u.", i);
        at = strstr(at, text);
        if (!at)
            fail("the guest left out a number", NULL);
    }
}

static int open_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        fail(path, NULL);
    return fd;
}

int main(int argc, char **argv)
{
    static struct console console = {.lock = PTHREAD_MUTEX_INITIALIZER};
    static const uint8_t generation[MACHINE_GENERATION_BYTES] = "another machine";
    if (argc != 6)
        fail("usage: roundtrip KERNEL INITRD CPUS ENGINE ROUNDS", NULL);
    unsigned rounds = (unsigned)atoi(argv[5]);
    struct partition_config config = {
        .name = "roundtrip",
        .machine = {.memory_bytes = 256u << 20,
                    .cpus = (unsigned)atoi(argv[3]),
                    .engine = strcmp(argv[4], "jit") == 0 ? &hart_engine_jit : &hart_engine_interp,
                    .version = "0",
                    .kernel_fd = open_file(argv[1]),
                    .initrd_fd = open_file(argv[2]),
                    .firmware_fd = -1,
                    .ram_fd = -1,
                    .kernel_name = argv[1],
                    .initrd_name = argv[2],
                    .append = guest_work,
                    .rng = true,
                    .power_button = true},
        .console_output = console_output,
        .opaque = &console,
    };
    struct partition *partition;
    struct error err = {0};
    enum partition_end end;

    if (partition_create(&partition, &config, &err) < 0 ||
        partition_start(partition, false, &err) < 0)
        fail("cannot start", &err);
    wait_for_count(&console, 3);
    for (unsigned i = 0; i < rounds; i++) {
        partition = move(partition, &config, i == rounds / 2 ? generation : NULL);
        wait_for_count(&console, count_now(&console) + 2);
    }
    printf("the guest went on counting %u times in a new partition\n", rounds);
    wait_for(&console, "\nforked");
    printf("it noticed the new generation id\n");
    int rc = -1;
    for (unsigned i = 0; rc < 0 && i < WAIT_SECONDS; i++, sleep(rc < 0))
        rc = machine_press_power(partition_machine(partition));
    if (rc < 0 || partition_wait(partition, &end, NULL, &err) < 0 || end != PARTITION_POWEROFF)
        fail("the power button does not work", NULL);
    check_counts(&console, count_now(&console));
    if (!has_text(&console, "strake: the power button was pressed"))
        fail("the guest ended by itself", NULL);
    printf("it left out no number up to %u, and switched off when the button was pressed\n",
           count_now(&console));
    partition_destroy(partition);
    return 0;
}
