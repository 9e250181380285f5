// SPDX-License-Identifier: BSD-2-Clause
// guest: what a bare-metal program tells `strake check --machine virt` about its memory. Copy this
// file into your tree: it needs a freestanding C compiler (GCC, clang) and nothing else.
//
// An allocator of your own (a pool, a ring of buffers) calls strake_tag for a block that it gives
// out, and strake_untag for one that it takes back. Then Strake reports accesses beyond the block,
// or after it was given back, and blocks that are given back twice. An allocator that has nothing
// of its own to be tested may leave all to Strake: strake_allocate, strake_resize, strake_free.
//
// Everywhere else, on hardware and on other emulators, nothing of this does anything: pointers come
// back as they are, and there is nothing to allocate. It is found out at run time, so that the
// image that is tested is the one that is shipped. In machine mode the CSR marchid tells. For a
// program in supervisor mode define STRAKE_GUEST_SUPERVISOR: its SBI is asked, once a source file.
// Not for user mode.
//
// docs/firmware.md has the numbers, and what is found and what is not.
#ifndef STRAKE_GUEST_H
#define STRAKE_GUEST_H

#include <stddef.h>
#include <stdint.h>

// The extension, in the vendors' range of the SBI, and its functions.
#define STRAKE_GUEST_EXTENSION 0x0953544b  // "STK"
#define STRAKE_GUEST_ALLOCATE 0            // bytes, alignment (0: 16); value: pointer
#define STRAKE_GUEST_RESIZE 1              // pointer, bytes; value: pointer
#define STRAKE_GUEST_FREE 2                // pointer
#define STRAKE_GUEST_TAG 3                 // address, bytes; value: pointer
#define STRAKE_GUEST_UNTAG 4               // pointer; value: address
// marchid where machine mode may call the extension: a number of the vendors' own kind, "Strake".
#define STRAKE_GUEST_MARCHID 0x8000537472616b65
#define STRAKE_GUEST_POINTER_BITS 48  // of a pointer: the address; above is the identifier

// Debuggers, and reports, show the caller instead of these.
#define STRAKE_GUEST_FUNCTION static inline __attribute__((always_inline, artificial, unused))

#if defined(__riscv) && __riscv_xlen == 64

STRAKE_GUEST_FUNCTION long strake_guest_ecall(unsigned long extension, unsigned long function,
                                              unsigned long first, unsigned long second,
                                              unsigned long *value)
{
    register unsigned long a0 __asm__("a0") = first;
    register unsigned long a1 __asm__("a1") = second;
    register unsigned long a6 __asm__("a6") = function;
    register unsigned long a7 __asm__("a7") = extension;

    __asm__ volatile("ecall" : "+r"(a0), "+r"(a1) : "r"(a6), "r"(a7) : "memory");
    *value = a1;
    return (long)a0;
}

#ifdef STRAKE_GUEST_SUPERVISOR
// SBI base extension, probe_extension.
STRAKE_GUEST_FUNCTION int strake_checked(void)
{
    static volatile signed char answer;  // 0: not asked yet
    unsigned long value;

    if (!answer)
        answer =
            strake_guest_ecall(0x10, 3, STRAKE_GUEST_EXTENSION, 0, &value) == 0 && value ? 1 : -1;
    return answer > 0;
}
#else
STRAKE_GUEST_FUNCTION int strake_checked(void)
{
    unsigned long marchid;

    __asm__("csrr %0, marchid" : "=r"(marchid));
    return marchid == STRAKE_GUEST_MARCHID;
}
#endif

#else

STRAKE_GUEST_FUNCTION int strake_checked(void)
{
    return 0;
}

STRAKE_GUEST_FUNCTION long strake_guest_ecall(unsigned long extension, unsigned long function,
                                              unsigned long first, unsigned long second,
                                              unsigned long *value)
{
    (void)extension, (void)function, (void)first, (void)second;
    *value = 0;
    return -2;  // SBI_ERR_NOT_SUPPORTED
}

#endif

// What a call gives, or `otherwise`: it was not made, or refused.
STRAKE_GUEST_FUNCTION void *strake_guest_call(unsigned long function, void *pointer,
                                              unsigned long second, void *otherwise)
{
    unsigned long value;

    if (!strake_checked() || strake_guest_ecall(STRAKE_GUEST_EXTENSION, function,
                                                (unsigned long)pointer, second, &value) != 0)
        return otherwise;
    return (void *)value;
}

// Gives [memory, memory + bytes) an identifier, and the pointer that carries it. From now on the
// memory is only reached through that pointer, and what is made of it. Blocks that were tagged
// before and overlap have ended. `memory` itself when it is not checked.
STRAKE_GUEST_FUNCTION void *strake_tag(void *memory, size_t bytes)
{
    return strake_guest_call(STRAKE_GUEST_TAG, memory, bytes, memory);
}

// Takes it back: `pointer` is what strake_tag gave, of which the plain address comes back; through
// that, and only that, the memory is the allocator's again. NULL stays NULL.
STRAKE_GUEST_FUNCTION void *strake_untag(void *pointer)
{
    return strake_guest_call(STRAKE_GUEST_UNTAG, pointer, 0, pointer);
}

// Memory of Strake's own, outside of the board's RAM, with any contents. NULL when it is not
// checked: then take yours.
STRAKE_GUEST_FUNCTION void *strake_allocate(size_t bytes, size_t alignment)
{
    return strake_guest_call(STRAKE_GUEST_ALLOCATE, (void *)(uintptr_t)bytes, alignment, NULL);
}

// As realloc: the old pointer ends. NULL when it cannot be had, or is not checked; then the old one
// stays.
STRAKE_GUEST_FUNCTION void *strake_resize(void *pointer, size_t bytes)
{
    return strake_guest_call(STRAKE_GUEST_RESIZE, pointer, bytes, NULL);
}

// Of a pointer that strake_allocate gave, or NULL.
STRAKE_GUEST_FUNCTION void strake_free(void *pointer)
{
    strake_guest_call(STRAKE_GUEST_FREE, pointer, 0, NULL);
}

// The address in a pointer, as a device is to be given it: devices know of no identifiers.
// `pointer` itself when it is not checked.
STRAKE_GUEST_FUNCTION void *strake_plain(const void *pointer)
{
    uintptr_t address = (uintptr_t)pointer;

    return (void *)(strake_checked() ? address & (((uint64_t)1 << STRAKE_GUEST_POINTER_BITS) - 1)
                                     : address);
}

#endif
