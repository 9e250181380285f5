// SPDX-License-Identifier: BSD-2-Clause
// The table's entries of an object, and the byte that says where it ends within its last granule.
// That byte lies in the program's memory, behind the object. Nobody relies on it: what the inline
// comparison makes of it can be wrong only for a program that has written there without being
// checked, or has taken the page away.
#include <ucontext.h>

#include "heap/internal.h"

// Stores %sil at %rdi. 1; 0: it faulted, between the marks.
int heap_store_byte(uint8_t *hva, uint8_t value);
extern const char heap_store_begin[], heap_store_end[], heap_store_fault[];

__asm__(".text\n"
        ".type heap_store_byte, @function\n"
        "heap_store_byte:\n"
        "heap_store_begin:\n"
        "    mov %sil, (%rdi)\n"
        "heap_store_end:\n"
        "    mov $1, %eax\n"
        "    ret\n"
        "heap_store_fault:\n"
        "    xor %eax, %eax\n"
        "    ret\n"
        ".size heap_store_byte, . - heap_store_byte\n");

static bool on_fault(const void *hva, void *context)
{
    greg_t *pc = &((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];

    (void)hva;
    if (*pc < (greg_t)(uintptr_t)heap_store_begin || *pc >= (greg_t)(uintptr_t)heap_store_end)
        return false;
    *pc = (greg_t)(uintptr_t)heap_store_fault;
    return true;
}

int heap_entries_init(const struct heap *heap)
{
    return heap->space.hva ? fault_handler_add(on_fault) : 0;
}

void heap_entries_end(const struct heap *heap, const struct span *span, uint64_t gva,
                      uint64_t bytes, uint16_t identifier)
{
    uint64_t last =
        gva - atomic_load_explicit(&span->gva, memory_order_relaxed) + MEMORY_GRANULE_BYTES - 1;
    uint8_t *hva = atomic_load_explicit(&span->hva, memory_order_relaxed);
    bool stored = hva && last < span_bytes(span) && heap_store_byte(hva + last, (uint8_t)bytes);

    memory_identifiers_put(heap->identifiers, gva,
                           stored ? identifier | MEMORY_IDENTIFIER_PARTIAL
                                  : MEMORY_IDENTIFIER_LOOK);
}
