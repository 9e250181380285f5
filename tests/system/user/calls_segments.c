// SPDX-License-Identifier: BSD-2-Clause
// System V's segments of memory: attached, protected, detached in part, shared with children.
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define PAGE 4096u
#define BYTES (3 * PAGE - 100)
#define FAILED ((void *)-1)

static unsigned long attached(int id)
{
    struct shmid_ds status = {.shm_nattch = 99};

    return shmctl(id, IPC_STAT, &status) == 0 ? status.shm_nattch : 99;
}

// Whether a child that touches the byte is ended by SIGSEGV.
static bool is_forbidden(volatile char *at, bool write)
{
    int status = 0;
    pid_t child = fork();

    if (child == 0) {
        char value = *at;
        if (write)
            *at = value;
        _exit(0);
    }
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
}

static void sharing(int id)
{
    char *one = shmat(id, NULL, 0), *two = shmat(id, NULL, SHM_RDONLY);
    struct shmid_ds status;
    int ended = 1;

    check(one != FAILED && two != FAILED && one != two && one[0] == 0 && one[BYTES] == 0,
          "a segment is attached twice");
    strcpy(one + PAGE, "here");
    check(strcmp(two + PAGE, "here") == 0, "it is the same memory");
    check(!is_forbidden(two, false) && is_forbidden(two, true) && !is_forbidden(one, true),
          "one that is only read is not written to");
    check(shmctl(id, IPC_STAT, &status) == 0 && status.shm_segsz == BYTES &&
              status.shm_nattch == 2 && status.shm_cpid == getpid() &&
              status.shm_perm.cuid == geteuid() && (status.shm_perm.mode & 0777) == 0600,
          "its state");
    status.shm_perm.mode = 0640;
    check(shmctl(id, IPC_SET, &status) == 0 && shmctl(id, IPC_STAT, &status) == 0 &&
              (status.shm_perm.mode & 0777) == 0640,
          "which can be set");
    pid_t child = fork();
    if (child == 0) {
        bool seen = strcmp(one + PAGE, "here") == 0 && attached(id) == 4;
        strcpy(one + PAGE, "from below");
        _exit(seen && shmdt(one) == 0 && attached(id) == 3 ? 0 : 1);
    }
    waitpid(child, &ended, 0);
    check(ended == 0 && strcmp(two + PAGE, "from below") == 0 && attached(id) == 2,
          "a child has it, too");
    check(shmdt(one) == 0 && is_forbidden(one, false) && attached(id) == 1, "one is detached");
    check(shmdt(one) == -1 && errno == EINVAL, "not twice");
    check(shmdt(two + PAGE) == -1 && errno == EINVAL && shmdt(two + 1) == -1 && errno == EINVAL,
          "nor by an address within it");
    check(shmdt(two) == 0 && attached(id) == 0, "the other one");
}

static void places(int id)
{
    char *room = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    munmap(room + 4 * PAGE, 4 * PAGE);
    check(shmat(id, room + 4 * PAGE, 0) == room + 4 * PAGE, "attached where it is asked for");
    check(shmat(id, room + 8 * PAGE, 0) == FAILED && errno == EINVAL, "not where something is");
    check(shmat(id, room + 6 * PAGE, SHM_REMAP) == room + 6 * PAGE && attached(id) == 2,
          "unless it is to take its place");
    check(shmat(id, room + 12 * PAGE + 5, SHM_REMAP) == FAILED && errno == EINVAL,
          "not within a page");
    check(shmat(id, room + 12 * PAGE + 5, SHM_REMAP | SHM_RND) == room + 12 * PAGE,
          "unless it may be rounded");
    check(shmat(id, NULL, SHM_REMAP) == FAILED && errno == EINVAL, "nothing is no place to take");
    // The first one has lost its last page to the second.
    check(shmdt(room + 4 * PAGE) == 0 && is_forbidden(room + 5 * PAGE, false) &&
              !is_forbidden(room + 6 * PAGE, true) && attached(id) == 2,
          "what is left of one is detached");
    munmap(room + 13 * PAGE, PAGE);
    mprotect(room + 14 * PAGE, PAGE, PROT_READ);
    room[12 * PAGE] = 1;
    check(attached(id) == 3 && is_forbidden(room + 14 * PAGE, true) && room[6 * PAGE] == 1,
          "and one in pieces is the same memory still");
    check(shmdt(room + 12 * PAGE) == 0 && is_forbidden(room + 12 * PAGE, false) &&
              is_forbidden(room + 14 * PAGE, false) && attached(id) == 1,
          "until all of them are detached");
    char *moved = mremap(room + 6 * PAGE, 3 * PAGE, 3 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room);
    check(moved == room && room[0] == 1 && attached(id) == 1 && shmdt(room) == 0 &&
              attached(id) == 0,
          "one that was moved, too");
    munmap(room, 16 * PAGE);
}

// Code in a segment is executed: instructions of either machine that return.
static void code(int id)
{
#ifdef __riscv
    const uint32_t code[] = {0x02a00513, 0x00008067};  // li a0, 42; ret
#else
    const uint8_t code[] = {0xb8, 42, 0, 0, 0, 0xc3};  // mov $42, %eax; ret
#endif
    struct shmid_ds status;

    shmctl(id, IPC_STAT, &status);
    status.shm_perm.mode = 0700;
    shmctl(id, IPC_SET, &status);
    char *at = shmat(id, NULL, SHM_EXEC);
    memcpy(at, code, sizeof(code));
    __builtin___clear_cache(at, at + sizeof(code));
    check(((int (*)(void))(void *)at)() == 42, "code in a segment");
    shmdt(at);
}

static void ends(int id)
{
    struct shminfo limits;
    struct shm_info use;
    char *at = shmat(id, NULL, 0);

    check(shmctl(id, IPC_INFO, (void *)&limits) >= 0 && limits.shmmax >= BYTES &&
              limits.shmmni > 0 && shmctl(id, SHM_INFO, (void *)&use) >= 0 && use.used_ids >= 1,
          "limits and use of all segments");
    check(shmctl(id, IPC_STAT, (void *)16) == -1 && errno == EFAULT &&
              shmctl(id, IPC_STAT, (void *)(uintptr_t)-8) == -1 && errno == EFAULT &&
              shmctl(id, 1234, NULL) == -1 && errno == EINVAL,
          "what cannot be told");
    check(shmctl(id, IPC_RMID, (void *)-8) == 0, "removed");
    at[0] = 7;
    check(at[0] == 7 && shmdt(at) == 0, "but here until it is detached");
    check(shmat(id, NULL, 0) == FAILED && (errno == EINVAL || errno == EIDRM) &&
              shmctl(id, IPC_STAT, (struct shmid_ds *)&limits) == -1,
          "and then it is gone");
    check(shmget(IPC_PRIVATE, 0, 0600) == -1 && errno == EINVAL, "an empty one");
}

int main(void)
{
    int id = shmget(IPC_PRIVATE, BYTES, IPC_CREAT | 0600);

    check(id >= 0, "a segment");
    sharing(id);
    places(id);
    code(id);
    ends(id);
    return check_done();
}
