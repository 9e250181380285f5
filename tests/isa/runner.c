// SPDX-License-Identifier: BSD-2-Clause
// isa-runner [--engine NAME] [--cpus N] [--timeout SECONDS] PROGRAM: runs a bare-metal program as
// the firmware of a partition, with what it prints on standard output. Exit status 0 when it says
// that it passed, through the test device; 1 when it failed, hung or could not be run.
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "jit/jit.h"
#include "partition/partition.h"
#include "verify/verify.h"

#define MEMORY_BYTES (64ull << 20)

struct runner {
    const struct hart_engine *engine;
    unsigned cpus;
    unsigned timeout_s;
    const char *program;
    struct partition *partition;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool ended;
};

static const struct hart_engine *const engines[] = {&hart_engine_interp, &hart_engine_jit,
                                                    &hart_engine_verify};

static void print_output(void *opaque, const void *bytes, size_t count)
{
    (void)opaque;
    fwrite(bytes, 1, count, stdout);
}

static void no_input(void *opaque)
{
    (void)opaque;
}

// Stops the partition when it has not ended in time.
static void *watch(void *opaque)
{
    struct runner *runner = opaque;
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += runner->timeout_s;
    pthread_mutex_lock(&runner->lock);
    while (!runner->ended)
        if (pthread_cond_timedwait(&runner->changed, &runner->lock, &until)) {
            partition_stop(runner->partition);
            break;
        }
    pthread_mutex_unlock(&runner->lock);
    return NULL;
}

static int judge(enum partition_end end, unsigned code, unsigned timeout_s)
{
    switch (end) {
    case PARTITION_POWEROFF:
        return 0;
    case PARTITION_FAILED:
        printf("isa-runner: the program failed with code %u\n", code);
        return 1;
    case PARTITION_REBOOT:
        printf("isa-runner: the program asked for a reset\n");
        return 1;
    case PARTITION_BROKEN:
        printf("isa-runner: the engine could not go on\n");
        return 1;
    case PARTITION_STOPPED:
        printf("isa-runner: the program did not end in %u seconds\n", timeout_s);
    }
    return 1;
}

// Runs what partition_create made; returns the exit status, or -1 with *err set.
static int run_partition(struct runner *runner, struct error *err)
{
    enum partition_end end;
    pthread_t watcher;
    unsigned code = 0;
    int rc;

    if (partition_start(runner->partition, false, err))
        return -1;
    rc = pthread_create(&watcher, NULL, watch, runner);
    if (rc) {
        error_set_errno(err, -rc, "cannot start a thread");
        return -1;
    }
    rc = partition_wait(runner->partition, &end, &code, err);
    pthread_mutex_lock(&runner->lock);
    runner->ended = true;
    pthread_cond_signal(&runner->changed);
    pthread_mutex_unlock(&runner->lock);
    pthread_join(watcher, NULL);
    return rc ? -1 : judge(end, code, runner->timeout_s);
}

static int run_program(struct runner *runner, struct error *err)
{
    int fd = open(runner->program, O_RDONLY | O_CLOEXEC), status;
    const struct partition_config config = {
        .name = "isa",
        .machine = {.memory_bytes = MEMORY_BYTES,
                    .mmu_levels = 5,
                    .cpus = runner->cpus,
                    .engine = runner->engine,
                    .version = STRAKE_VERSION,
                    .kernel_fd = -1,
                    .initrd_fd = -1,
                    .firmware_fd = fd,
                    .ram_fd = -1,
                    .firmware_name = runner->program},
        .no_reboot = true,
        .console_output = print_output,
        .console_room = no_input,
    };

    if (fd < 0) {
        error_set_errno(err, -errno, "cannot open '%s'", runner->program);
        return -1;
    }
    int rc = partition_create(&runner->partition, &config, err);
    close(fd);
    if (rc)
        return -1;
    status = run_partition(runner, err);
    partition_destroy(runner->partition);
    return status;
}

static const struct hart_engine *find_engine(const char *name)
{
    for (size_t i = 0; i < BASE_COUNT_OF(engines); i++)
        if (!strcmp(engines[i]->name, name))
            return engines[i];
    return NULL;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"engine", required_argument, NULL, 'e'},
                                            {"cpus", required_argument, NULL, 'c'},
                                            {"timeout", required_argument, NULL, 't'},
                                            {0}};
    struct runner runner = {.engine = &hart_engine_interp,
                            .cpus = 1,
                            .timeout_s = 600,
                            .lock = PTHREAD_MUTEX_INITIALIZER,
                            .changed = PTHREAD_COND_INITIALIZER};
    struct error err = {0};
    int option, status;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (option == 'e')
            runner.engine = find_engine(optarg);
        else if (option == 'c')
            runner.cpus = (unsigned)strtoul(optarg, NULL, 10);
        else if (option == 't')
            runner.timeout_s = (unsigned)strtoul(optarg, NULL, 10);
    if (optind + 1 != argc || !runner.engine) {
        fprintf(
            stderr,
            "usage: isa-runner [--engine interp|jit|verify] [--cpus N] [--timeout SECONDS] ELF\n");
        return 2;
    }
    runner.program = argv[optind];
    status = run_program(&runner, &err);
    if (status < 0)
        fprintf(stderr, "isa-runner: %s\n", err.message);
    return status ? 1 : 0;
}
