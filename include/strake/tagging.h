// SPDX-License-Identifier: BSD-2-Clause
// tagging: what programs call that clang 19 has compiled with tagging.cfg, so that `strake check`
// finds accesses beyond variables of the stack and static ones (docs/check.md). Each source file
// includes it by that file's command line. It is strake that does what these are for; elsewhere
// they do nothing.
#if !defined(STRAKE_TAGGING_H) && !defined(__ASSEMBLER__)
#define STRAKE_TAGGING_H

#ifdef __cplusplus
extern "C" {
#endif

#define STRAKE_TAGGING(scope)                                                                      \
    __attribute__((weak, noinline, used, no_sanitize("hwaddress"), visibility(scope)))

STRAKE_TAGGING("default") void __strake_add_variables(const void *descriptors, const void *end)
{
    __asm__ volatile("" : : "r"(descriptors), "r"(end) : "memory");
}

// Those of the file that is linked. The compiler has symbols of these names itself, which C would
// get others than.
STRAKE_TAGGING("hidden") void __hwasan_init(void)
{
    const void *descriptors, *end;

    __asm__("lla %0, __start_hwasan_globals" : "=r"(descriptors));
    __asm__("lla %0, __stop_hwasan_globals" : "=r"(end));
    __strake_add_variables(descriptors, end);
}

// 0: the variable is as any other memory.
STRAKE_TAGGING("default") unsigned char __hwasan_generate_tag(void)
{
    __asm__ volatile("");
    return 0;
}

STRAKE_TAGGING("default")
void __hwasan_tag_memory(void *address, unsigned char tag, unsigned long bytes)
{
    __asm__ volatile("" : : "r"(address), "r"(tag), "r"(bytes) : "memory");
}

STRAKE_TAGGING("default") void __hwasan_handle_longjmp(const void *stack)
{
    __asm__ volatile("" : : "r"(stack));
}

STRAKE_TAGGING("default") void __hwasan_handle_vfork(const void *stack)
{
    __asm__ volatile("" : : "r"(stack));
}

#undef STRAKE_TAGGING

#ifdef __cplusplus
}
#endif

#endif
