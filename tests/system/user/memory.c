// SPDX-License-Identifier: BSD-2-Clause
// The address space: mappings of all kinds, their protection, and what of it the system tells.
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define PAGE 4096

static sigjmp_buf back;
static volatile int code;
static void *volatile where;

static void on_fault(int signal, siginfo_t *info, void *context)
{
    (void)context;
    code = signal << 8 | info->si_code;
    where = info->si_addr;
    siglongjmp(back, 1);
}

static int fault_of_call(int (*function)(void))
{
    code = 0;
    if (sigsetjmp(back, 1) == 0)
        function();
    return code;
}

static int fault_of_read(volatile char *at)
{
    code = 0;
    if (sigsetjmp(back, 1) == 0)
        (void)*at;
    return code;
}

static int fault_of_write(volatile char *at)
{
    code = 0;
    if (sigsetjmp(back, 1) == 0)
        *at = 1;
    return code;
}

static char *map(size_t bytes, int protection)
{
    char *at = mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

enum {
    NOT_MAPPED = SIGSEGV << 8 | SEGV_MAPERR,
    NOT_ALLOWED = SIGSEGV << 8 | SEGV_ACCERR,
    NO_FILE = SIGBUS << 8 | BUS_ADRERR
};

static void anonymous(void)
{
    char *at = map(16 * PAGE, PROT_READ | PROT_WRITE);
    check(at && at[5 * PAGE] == 0, "anonymous memory is zero");
    memset(at, 1, 16 * PAGE);
    check(munmap(at + 4 * PAGE, 2 * PAGE) == 0 && fault_of_read(at + 4 * PAGE) == NOT_MAPPED &&
              where == at + 4 * PAGE,
          "what is unmapped faults where it is touched");
    check(at[3 * PAGE] == 1 && at[6 * PAGE] == 1, "what is beside it stays");
    check(mmap(at + 4 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
              at + 4 * PAGE,
          "a mapping goes where it is wanted");
    check(mmap(at, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) ==
                  MAP_FAILED &&
              errno == EEXIST,
          "but replaces nothing when asked not to");
    check(mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED &&
              errno == EINVAL,
          "an empty mapping is refused");
    check(mmap((void *)0x4000000000, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
               0) == MAP_FAILED &&
              errno == ENOMEM,
          "there is nothing behind the address space");
    check(fault_of_read(NULL) == NOT_MAPPED && fault_of_write((char *)0x3fffffffff) == NOT_MAPPED &&
              fault_of_read((char *)0x7fff00000000) == NOT_MAPPED &&
              fault_of_write((char *)0xffffffff80000000) == NOT_MAPPED,
          "nor before it, or beyond");
    madvise(at, PAGE, MADV_DONTNEED);
    check(at[0] == 0 && at[PAGE] == 1, "memory given back is zero again");
    munmap(at, 16 * PAGE);
}

static void protection(void)
{
    char *at = map(3 * PAGE, PROT_READ | PROT_WRITE);
    at[PAGE] = 7;
    check(mprotect(at + PAGE, PAGE, PROT_READ) == 0 && at[PAGE] == 7 &&
              fault_of_write(at + PAGE) == NOT_ALLOWED,
          "read-only memory cannot be written to");
    check(mprotect(at + PAGE, PAGE, PROT_NONE) == 0 && fault_of_read(at + PAGE) == NOT_ALLOWED,
          "forbidden memory cannot be read");
    check(mprotect(at, 3 * PAGE, PROT_READ | PROT_WRITE) == 0 && at[PAGE] == 7 &&
              fault_of_write(at + PAGE) == 0,
          "and comes back as it was");
    munmap(at + PAGE, PAGE);
    check(mprotect(at, 3 * PAGE, PROT_READ) < 0 && errno == ENOMEM,
          "what is not mapped has no protection");
    munmap(at, 3 * PAGE);
}

static void code_at(uint32_t *at, int value)
{
    at[0] = (uint32_t)value << 20 | 0x513;  // li a0, value
    at[1] = 0x8067;                         // ret
    __builtin___clear_cache((char *)at, (char *)(at + 2));
}

static void code_pages(void)
{
    uint32_t *at = (uint32_t *)map(PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    int (*function)(void) = (int (*)(void))at;
    bool right = true;
    for (int i = 0; i < 20; i++) {
        code_at(at, i);
        right = right && function() == i;
    }
    check(right, "code is executed as it was written last");
    mprotect(at, PAGE, PROT_READ | PROT_WRITE);
    check(fault_of_call(function) == NOT_ALLOWED && where == (void *)at,
          "what is not executable is not executed");
    code_at(at, 77);
    mprotect(at, PAGE, PROT_EXEC);
    check(function() == 77, "executable again, it is what was written meanwhile");
    munmap(at, PAGE);
    at = mmap(at, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
              -1, 0);
    code_at(at, 78);
    check(function() == 78, "another page in its place is itself");
    munmap(at, PAGE);
}

static __attribute__((noinline)) int call_on_stack(int value)
{
    uint32_t code[2];
    code_at(code, value);
    return ((int (*)(void))code)();
}

// As the C library does for a library that wants it.
static void stack_code(void)
{
    char *page = (char *)((uintptr_t)__builtin_frame_address(0) & ~4095ul);
    char *heap = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(mprotect(page, 4096, PROT_READ | PROT_WRITE | PROT_EXEC | PROT_GROWSDOWN) == 0,
          "the stack, and what is below, may be made executable");
    check(call_on_stack(8) == 8 && call_on_stack(9) == 9, "and is executed then");
    check(mprotect(heap, 4096, PROT_READ | PROT_GROWSDOWN) < 0 && errno == EINVAL,
          "other memory does not grow downwards");
}

static void moving(void)
{
    char *at = map(2 * PAGE, PROT_READ | PROT_WRITE), *to;
    at[0] = 1;
    at[2 * PAGE - 1] = 2;
    to = mremap(at, 2 * PAGE, 50 * PAGE, MREMAP_MAYMOVE);
    check(to != MAP_FAILED && to[0] == 1 && to[2 * PAGE - 1] == 2 && to[49 * PAGE] == 0,
          "memory grows");
    to[49 * PAGE] = 3;
    check(to == at || fault_of_read(at) == NOT_MAPPED, "and is no more where it was");
    char *blocked = map(2 * PAGE, PROT_READ | PROT_WRITE);
    check(mremap(blocked, PAGE, 2 * PAGE, 0) == MAP_FAILED && errno == ENOMEM,
          "it does not grow into what is there");
    char *fixed = map(50 * PAGE, PROT_NONE);
    check(mremap(to, 50 * PAGE, 50 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, fixed) == fixed &&
              fixed[0] == 1 && fixed[49 * PAGE] == 3 && fault_of_read(to) == NOT_MAPPED,
          "it moves where it is wanted");
    check(mremap(fixed, 50 * PAGE, PAGE, 0) == fixed && fixed[0] == 1 &&
              fault_of_read(fixed + PAGE) == NOT_MAPPED,
          "it shrinks");
}

static void files(void)
{
    char name[] = "user-memory-XXXXXX";
    int fd = mkstemp(name);
    unlink(name);
    (void)!write(fd, "0123456789", 10);
    char *shared = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *private = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    shared[1] = 'S';
    private[2] = 'P';
    char text[11] = {0};
    (void)!pread(fd, text, 10, 0);
    check(strcmp(text, "0S23456789") == 0,
          "a shared mapping writes to its file, a private does not");
    check(private[2] == 'P' && shared[2] == '2' && shared[10] == 0, "and each has its own");
    check(fault_of_read(shared + PAGE) == NO_FILE && where == shared + PAGE,
          "behind the file's end there is a bus error");
    (void)!ftruncate(fd, 0);
    check(fault_of_write(shared) == NO_FILE, "also where the file ended later");
    static void *volatile const wild[] = {(void *)0x10, (void *)0x7fff00000000,
                                          (void *)(0x4000000000 - 2), (void *)-1l};
    bool refused = true;
    for (int i = 0; i < 4; i++)
        refused = refused && write(fd, wild[i], 5) < 0 && errno == EFAULT;
    check(refused, "calls of the system refuse what is not the program's");
    check(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 7) == MAP_FAILED && errno == EINVAL,
          "pages of files begin at pages");
    close(fd);
}

static void heap(void)
{
    char *start = sbrk(0);
    check(sbrk(10 * PAGE) == start && start[10 * PAGE - 1] == 0, "the heap grows");
    memset(start, 1, 10 * PAGE);
    check(sbrk(-9 * PAGE) == start + 10 * PAGE && start[PAGE - 1] == 1 &&
              fault_of_read(start + 9 * PAGE) == NOT_MAPPED,
          "and shrinks");
    check(sbrk(9 * PAGE) == start + PAGE && start[5 * PAGE] == 0, "what it had is gone");
    check(sbrk(1l << 40) == (void *)-1, "it does not grow beyond the address space");
    char *blocks[64];
    for (int i = 0; i < 64; i++) {
        blocks[i] = malloc((size_t)i * 5000 + 1);
        memset(blocks[i], i, (size_t)i * 5000 + 1);
    }
    bool right = true;
    for (int i = 0; i < 64; i++) {
        blocks[i] = realloc(blocks[i], (size_t)i * 10000 + 1);
        right = right && blocks[i][0] == i && blocks[i][i * 5000] == i;
        free(blocks[i]);
    }
    check(right, "blocks keep what is in them");
}

static void shared_with_child(void)
{
    int *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int *private = (int *)map(PAGE, PROT_READ | PROT_WRITE);
    pid_t child = fork();
    if (child == 0) {
        *shared = *private = 5;
        _exit(0);
    }
    waitpid(child, NULL, 0);
    check(*shared == 5 && *private == 0, "a child shares what is shared, and nothing else");
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    anonymous();
    protection();
    code_pages();
    stack_code();
    moving();
    files();
    heap();
    shared_with_child();
    return check_done();
}
