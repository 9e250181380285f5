// SPDX-License-Identifier: BSD-2-Clause
// Running a program on both sides: each in a process of its own, so that whatever becomes of it is
// an outcome, with standard output in a memfd, which never makes it wait.
#include "differential.h"

#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define RAM_BYTES 0x400000u

// ---- Our side -----------------------------------------------------------------------------------

// What the system calls of the program need; Linux as far as it goes.
struct user {
    struct memory *memory;
    struct verdict *verdict;
    int exit_status;
};

// With an SBI in the hart's host, an ecall from S-mode comes here.
static void system_call(void *opaque, struct hart *hart)
{
    struct user *user = opaque;
    const void *bytes;

    switch (hart->x[17]) {
    case CALL_WRITE:
        bytes = memory_ram_hva(user->memory, hart->x[11], hart->x[12]);
        hart->x[10] =
            bytes ? (uint64_t)write(STDOUT_FILENO, bytes, hart->x[12]) : (uint64_t)-EFAULT;
        return;
    case CALL_EXIT:
        user->exit_status = (int)hart->x[10];
        break;
    case CALL_TRAPPED:
        user->verdict->trapped = true;
        user->verdict->cause = hart->scause;
        user->verdict->pc = hart->sepc;
        user->verdict->tval = hart->stval;
        user->exit_status = 2;
        break;
    default:
        user->exit_status = 2;
    }
    hart_stop(hart);
}

// Program behaviour does not depend on the time; a constant clock shows if it did.
static uint64_t stopped_clock(void *opaque)
{
    (void)opaque;
    return 0;
}

static int load_segments(struct memory *memory, int image_fd, uint64_t *entry)
{
    Elf64_Ehdr file;
    Elf64_Phdr segment;

    if (fd_pread_full(image_fd, &file, sizeof(file), 0) != sizeof(file))
        return -EIO;
    for (unsigned i = 0; i < file.e_phnum; i++) {
        const uint64_t offset = file.e_phoff + i * sizeof(segment);

        if (fd_pread_full(image_fd, &segment, sizeof(segment), offset) != sizeof(segment))
            return -EIO;
        void *bytes = memory_ram_hva(memory, segment.p_vaddr, segment.p_filesz);
        if (!bytes || fd_pread_full(image_fd, bytes, segment.p_filesz, segment.p_offset) !=
                          (int64_t)segment.p_filesz)
            return -EIO;
    }
    *entry = file.e_entry;
    return 0;
}

static int run_hart(int image_fd, const struct hart_engine *engine, uint64_t trap_gva,
                    struct verdict *verdict)
{
    struct user user = {.verdict = verdict};
    const struct hart_host host = {.clock_ns = stopped_clock, .sbi = system_call, .opaque = &user};
    struct error err;
    struct hart *hart;
    uint64_t entry;

    if (memory_create(&user.memory, &err) ||
        memory_add_ram(user.memory, CODE_GVA, RAM_BYTES, -1, &err) ||
        hart_create(&hart, 0, user.memory, &host, engine, &err)) {
        fprintf(stderr, "strake: %s\n", err.message);
        return 1;
    }
    if (load_segments(user.memory, image_fd, &entry)) {
        fprintf(stderr, "strake: cannot load the program\n");
        return 1;
    }
    hart_set_supervisor_only(hart);
    hart->mstatus |= HART_MSTATUS_FS;
    hart->stvec = trap_gva;
    hart_start(hart, entry, 0, 0);
    hart_run(hart);
    verdict->instructions = hart->instret;
    return user.exit_status;
}

// ---- Processes ----------------------------------------------------------------------------------

struct job {
    pid_t pid;
    int output_fd;
};

// The child's side of a job: output into `fd`, a bound on time that survives exec.
static void enter_job(int fd, unsigned seconds)
{
    dup2(fd, STDOUT_FILENO);
    alarm(seconds);
}

static int start_job(struct job *job)
{
    job->output_fd = memfd_create("isa-differential-output", MFD_CLOEXEC);
    if (job->output_fd < 0)
        return -errno;
    fflush(NULL);
    job->pid = fork();
    return job->pid < 0 ? -errno : 0;
}

static int finish_job(struct job *job, struct outcome *outcome)
{
    while (waitpid(job->pid, &outcome->status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    const off_t bytes = lseek(job->output_fd, 0, SEEK_END);
    outcome->bytes = (size_t)bytes;
    outcome->count = outcome->bytes / sizeof(struct snapshot);
    outcome->snapshots = malloc(outcome->bytes + 1);
    if (!outcome->snapshots)
        return -ENOMEM;
    const bool complete =
        fd_pread_full(job->output_fd, outcome->snapshots, outcome->bytes, 0) == bytes;
    close(job->output_fd);
    return complete ? 0 : -EIO;
}

static int start_ours(struct job *job, int image_fd, const struct hart_engine *engine,
                      uint64_t trap_gva, unsigned seconds, struct verdict *verdict)
{
    const int ret = start_job(job);

    if (ret || job->pid)
        return ret;
    enter_job(job->output_fd, seconds);
    _exit(run_hart(image_fd, engine, trap_gva, verdict));
}

static int start_qemu(struct job *job, int image_fd, unsigned seconds)
{
    char path[64];
    const int ret = start_job(job);

    if (ret || job->pid)
        return ret;
    enter_job(job->output_fd, seconds);
    // A new descriptor without close-on-exec, for qemu to open by its name.
    snprintf(path, sizeof(path), "/proc/self/fd/%d", dup(image_fd));
    execlp("qemu-riscv64", "qemu-riscv64", "-cpu",
           "rv64,zbc=on,zbkb=on,zbkx=on,zknd=on,zkne=on,zknh=on", path, (char *)NULL);
    fprintf(stderr, "isa-differential: cannot run qemu-riscv64 (package qemu-user): %m\n");
    _exit(127);
}

int run_both(const struct program *program, const struct hart_engine *engine, unsigned seconds,
             struct outcome *ours, struct outcome *qemu)
{
    struct job our_job = {0}, qemu_job = {0};
    struct verdict *verdict =
        mmap(NULL, sizeof(*verdict), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const int image_fd = program_image(program);
    int ret;

    *ours = *qemu = (struct outcome){0};
    if (verdict == MAP_FAILED || image_fd < 0)
        return -errno;
    ret = start_qemu(&qemu_job, image_fd, seconds);
    if (ret == 0) {
        ret = start_ours(&our_job, image_fd, engine, CODE_GVA + program->trap_at, seconds, verdict);
        if (ret == 0)
            ret = finish_job(&our_job, ours);
        const int qemu_ret = finish_job(&qemu_job, qemu);
        ret = ret ? ret : qemu_ret;
    }
    ours->verdict = *verdict;
    munmap(verdict, sizeof(*verdict));
    close(image_fd);
    return ret;
}

void outcome_free(struct outcome *outcome)
{
    free(outcome->snapshots);
    *outcome = (struct outcome){0};
}

bool outcome_well(const struct outcome *outcome)
{
    return WIFEXITED(outcome->status) && WEXITSTATUS(outcome->status) == 0;
}

bool outcome_same(const struct outcome *a, const struct outcome *b)
{
    return outcome_well(a) && outcome_well(b) && a->bytes == b->bytes &&
           memcmp(a->snapshots, b->snapshots, a->bytes) == 0;
}
