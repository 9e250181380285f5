// SPDX-License-Identifier: BSD-2-Clause
// escape: what a guest could do to the host if its monitor were in its hands. It makes system calls
// of the host through the SBI extension that monitors built for this test have
// (tests/system/meson.build), in S-mode, and prints what each returned: "escape: NAME RESULT".
#define EXTENSION 0x09535953ul  // "SYS", in the range for vendors
#define DBCN 0x4442434eul
#define SRST 0x53525354ul

typedef unsigned long word;

__asm__(".globl _start\n"
        "_start: la sp, stack_end\n"
        "j escape\n"
        ".bss\n"
        ".balign 16\n"
        ".skip 4096\n"
        "stack_end:\n"
        ".text\n");

_Noreturn void escape(void);

static long ecall(word extension, word function, const word args[6])
{
    register word a0 __asm__("a0") = args[0];
    register word a1 __asm__("a1") = args[1];
    register word a2 __asm__("a2") = args[2];
    register word a3 __asm__("a3") = args[3];
    register word a4 __asm__("a4") = args[4];
    register word a5 __asm__("a5") = args[5];
    register word a6 __asm__("a6") = function;
    register word a7 __asm__("a7") = extension;

    __asm__ volatile("ecall"
                     : "+r"(a0), "+r"(a1)
                     : "r"(a2), "r"(a3), "r"(a4), "r"(a5), "r"(a6), "r"(a7)
                     : "memory");
    return extension == EXTENSION && a0 == 0 ? (long)a1 : (long)a0;
}

static void print(const char *text)
{
    word bytes = 0;

    while (text[bytes])
        bytes++;
    ecall(DBCN, 0, (const word[6]){bytes, (word)text});
}

static void print_number(long value)
{
    char text[24], *at = text + sizeof(text);
    word left = value < 0 ? -(word)value : (word)value;

    *--at = 0;
    do
        *--at = (char)('0' + left % 10);
    while (left /= 10);
    if (value < 0)
        *--at = '-';
    print(at);
}

// Numbers of x86-64. Addresses are the guest's; the hook gives the host's for them. Should one get
// through, it is to do no harm: what is named does not exist, or cannot be done like this; but then
// it fails with another error than that of a confined monitor.
#define NO_PROCESS 0x3fffffff
static const char nothing[] = "/strake-escape/nothing", tmpfs[] = "tmpfs";
static const word no_strings[1];
static char bytes[256];

static const struct {
    const char *name;
    word number, args[6];
} calls[] = {
    {"getpid", 39, {0}},
    {"open", 2, {(word)nothing, 0}},
    {"openat", 257, {(word)-100, (word)nothing, 0}},
    {"openat2", 437, {(word)-100, (word)nothing, (word)bytes, 24}},
    {"creat", 85, {(word)nothing, 0600}},
    {"unlink", 87, {(word)nothing}},
    {"socket", 41, {2, 1, 0}},
    {"socket-unix", 41, {1, 1, 0}},
    {"socket-packet", 41, {17, 3, 0}},
    {"ptrace-attach", 101, {16, NO_PROCESS, 0, 0}},
    {"ptrace-traceme", 101, {0, 0, 0, 0}},
    {"execve", 59, {(word)nothing, (word)no_strings, (word)no_strings}},
    {"execveat", 322, {(word)-1, (word)nothing, (word)no_strings, (word)no_strings, 0}},
    {"clone", 56, {0x800 | 17, 0, 0, 0, 0}},
    {"mount", 165, {(word)tmpfs, (word)nothing, (word)tmpfs, 0, 0}},
    {"umount2", 166, {(word)nothing, 2}},
    {"chroot", 161, {(word)nothing}},
    {"pivot_root", 155, {(word)nothing, (word)nothing}},
    {"setns", 308, {(word)-1, 0}},
    {"unshare", 272, {0x10000000}},
    {"setuid", 105, {0}},
    {"kill", 62, {NO_PROCESS, 0}},
    {"io_uring_setup", 425, {1, (word)bytes}},
    {"bpf", 321, {0, (word)bytes, 48}},
    {"perf_event_open", 298, {(word)bytes, 0, (word)-1, (word)-1, 0}},
    {"init_module", 175, {(word)bytes, 1, (word)nothing}},
    {"process_vm_readv", 310, {NO_PROCESS, (word)bytes, 1, (word)bytes, 1, 0}},
    {"mmap-write-execute", 9, {0, 4096, 6, 0x22, (word)-1, 0}},
};

_Noreturn void escape(void)
{
    for (unsigned i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        print("escape: ");
        print(calls[i].name);
        print(" ");
        print_number(ecall(EXTENSION, calls[i].number, calls[i].args));
        print("\n");
    }
    print("escape: done\n");
    ecall(SRST, 0, (const word[6]){0, 0});
    for (;;)
        ;
}
