// SPDX-License-Identifier: BSD-2-Clause
// What a program is given when it starts: arguments, environment, auxiliary vector, stack.
#include <elf.h>
#include <stdint.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "check.h"

extern char **environ;

static void auxiliary(void)
{
    const Elf64_Phdr *headers = (const Elf64_Phdr *)getauxval(AT_PHDR);
    bool loads = false;
    for (unsigned long i = 0; i < getauxval(AT_PHNUM); i++)
        loads = loads || headers[i].p_type == PT_LOAD;
    check(loads && getauxval(AT_PHENT) == sizeof(*headers),
          "program headers are where AT_PHDR says");
    check(getauxval(AT_PAGESZ) == 4096 && getpagesize() == 4096, "pages have 4096 bytes");
    check(getauxval(AT_UID) == getuid() && getauxval(AT_EGID) == getegid(), "ids are the user's");
    check((getauxval(AT_HWCAP) & 0x112d) == 0x112d, "hardware has I, M, A, F, D, C");
    check(getauxval(AT_SYSINFO_EHDR) == 0, "there is no vDSO");
    const uint64_t *random = (const uint64_t *)getauxval(AT_RANDOM);
    check(random && (random[0] | random[1]) != 0, "random bytes are there");
    check(getauxval(AT_MINSIGSTKSZ) >= 1088, "a signal's frame has its size");
}

int main(int argc, char **argv)
{
    uintptr_t sp = (uintptr_t)__builtin_frame_address(0);

    for (int i = 0; i < argc; i++)
        printf("argv[%d]=%s\n", i, argv[i]);
    printf("GIVEN=%s\n", getenv("GIVEN") ? getenv("GIVEN") : "(none)");
    printf("execfn=%s\n", (const char *)getauxval(AT_EXECFN));
    check(sp % 16 == 0, "the stack is aligned");
    check(argv[argc] == NULL && environ == argv + argc + 1, "the vectors end");
    auxiliary();
    return check_done() ? 1 : 42;
}
