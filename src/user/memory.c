// SPDX-License-Identifier: BSD-2-Clause
// The program's memory, as system calls reach it. Any page of it may vanish, or turn out to have no
// file behind it, while it is looked at: what the monitor itself reads and writes goes through
// instructions of which a fault is expected.
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>

#include "user/internal.h"

// Copy %rdx bytes from %rsi to %rdi; 0, or the bytes that were left. Compare-and-swap of the word
// at %rdi, %esi for %edx: 0, or 1: another value was there, which goes to (%rcx), or 2: it faulted.
// What is between the marks may fault, and goes on behind them then.
uint64_t user_copy_bytes(void *to, const void *from, uint64_t bytes);
int user_swap_word(void *hva, uint32_t expected, uint32_t wanted, uint32_t *found);
extern const char user_copy_begin[], user_copy_end[], user_swap_begin[], user_swap_end[],
    user_swap_fault[];

__asm__(".text\n"
        ".type user_copy_bytes, @function\n"
        "user_copy_bytes:\n"
        "    mov %rdx, %rcx\n"
        "user_copy_begin:\n"
        "    rep movsb\n"
        "user_copy_end:\n"
        "    mov %rcx, %rax\n"
        "    ret\n"
        ".size user_copy_bytes, . - user_copy_bytes\n"
        ".type user_swap_word, @function\n"
        "user_swap_word:\n"
        "    mov %esi, %eax\n"
        "user_swap_begin:\n"
        "    lock cmpxchg %edx, (%rdi)\n"
        "user_swap_end:\n"
        "    mov %eax, (%rcx)\n"
        "    setne %al\n"
        "    movzbl %al, %eax\n"
        "    ret\n"
        "user_swap_fault:\n"
        "    mov $2, %eax\n"
        "    ret\n"
        ".size user_swap_word, . - user_swap_word\n");

// Calls work(argument) with the stack as it is to be kept in *frame: where it faults it returns 1
// here, with the registers that functions keep as they were.
int user_attempt_work(void (*work)(void *argument), void *argument, void **frame);
extern const char user_attempt_left[];

__asm__(".text\n"
        ".type user_attempt_work, @function\n"
        "user_attempt_work:\n"
        "    push %rbp\n"
        "    push %rbx\n"
        "    push %r12\n"
        "    push %r13\n"
        "    push %r14\n"
        "    push %r15\n"
        "    push %rdx\n"
        "    mov %rsp, (%rdx)\n"
        "    mov %rdi, %rax\n"
        "    mov %rsi, %rdi\n"
        "    call *%rax\n"
        "    xor %eax, %eax\n"
        "    jmp 1f\n"
        "user_attempt_left:\n"
        "    cld\n"
        "    mov $1, %eax\n"
        "1:  pop %rdx\n"
        "    movq $0, (%rdx)\n"
        "    pop %r15\n"
        "    pop %r14\n"
        "    pop %r13\n"
        "    pop %r12\n"
        "    pop %rbx\n"
        "    pop %rbp\n"
        "    ret\n"
        ".size user_attempt_work, . - user_attempt_work\n");

// Of the attempt that the thread is in.
static _Thread_local void *attempt_frame;

int user_attempt(void (*work)(void *argument), void *argument)
{
    return user_attempt_work(work, argument, &attempt_frame) ? -EFAULT : 0;
}

static bool is_in_space(const void *hva)
{
    const struct user_thread *thread = user_thread_current();
    return thread && (uintptr_t)hva - (uintptr_t)thread->process->space.hva < HART_FLAT_BYTES;
}

static bool is_between(uint64_t pc, const char *begin, const char *end)
{
    return pc >= (uintptr_t)begin && pc < (uintptr_t)end;
}

static bool on_fault(const void *hva, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs, *pc = &registers[REG_RIP];

    if (is_between((uint64_t)*pc, user_copy_begin, user_copy_end))
        *pc = (greg_t)(uintptr_t)user_copy_end;
    else if (is_between((uint64_t)*pc, user_swap_begin, user_swap_end))
        *pc = (greg_t)(uintptr_t)user_swap_fault;
    else if (attempt_frame && is_in_space(hva)) {
        registers[REG_RSP] = (greg_t)(uintptr_t)attempt_frame;
        *pc = (greg_t)(uintptr_t)user_attempt_left;
    } else
        return false;
    return true;
}

int user_memory_init(void)
{
    return fault_handler_add(on_fault);
}

int user_copy(void *to, const void *from, size_t bytes)
{
    return user_copy_bytes(to, from, bytes) ? -EFAULT : 0;
}

void *user_process_hva(struct user_process *process, uint64_t gva, uint64_t bytes)
{
    bool within = bytes <= HART_FLAT_BYTES && gva <= HART_FLAT_BYTES - bytes;
    return within ? process->space.hva + gva : NULL;
}

uint64_t user_gva(const struct user_process *process, uint64_t pointer)
{
    return process->watch ? memory_pointer_gva(pointer) : pointer;
}

// Whether the call that is made may use it. What is done without a call, signals' frames and what
// the end of a thread tells others, is the kernel's own business.
static bool is_allowed(struct user_thread *thread, uint64_t pointer, uint64_t bytes,
                       enum hart_access access)
{
    const struct user_watch *watch = thread->process->watch;
    return !watch || !thread->call || !bytes ||
           watch->buffer(watch->opaque, thread, pointer, bytes, access);
}

int user_buffer(struct user_thread *thread, uint64_t gva, uint64_t bytes, enum hart_access access,
                void **hva)
{
    *hva = user_process_hva(thread->process, user_gva(thread->process, gva), bytes);
    return *hva && is_allowed(thread, gva, bytes, access) ? 0 : -EFAULT;
}

int user_copy_in(struct user_thread *thread, void *to, uint64_t gva, size_t bytes)
{
    void *hva;
    int rc = user_buffer(thread, gva, bytes, HART_LOAD, &hva);
    return rc < 0 ? rc : user_copy(to, hva, bytes);
}

int user_copy_out(struct user_thread *thread, uint64_t gva, const void *from, size_t bytes)
{
    void *hva;
    int rc = user_buffer(thread, gva, bytes, HART_STORE, &hva);
    return rc < 0 ? rc : user_copy(hva, from, bytes);
}

int user_swap(struct user_thread *thread, uint64_t gva, uint32_t *expected, uint32_t wanted)
{
    void *hva;
    if (gva % sizeof(uint32_t) != 0 ||
        user_buffer(thread, gva, sizeof(uint32_t), HART_STORE, &hva) < 0)
        return -EFAULT;
    int result = user_swap_word(hva, *expected, wanted, expected);
    return result == 2 ? -EFAULT : result == 1 ? -EAGAIN : 0;
}

static int64_t copy_string(struct user_thread *thread, char *to, uint64_t gva, size_t bytes_max)
{
    for (size_t done = 0; done < bytes_max;) {
        // A page at a time: the string may end at the end of what is mapped.
        size_t bytes = USER_PAGE_BYTES - (gva + done) % USER_PAGE_BYTES;
        if (bytes > bytes_max - done)
            bytes = bytes_max - done;
        const void *hva = user_process_hva(thread->process, gva + done, bytes);
        if (!hva || user_copy(to + done, hva, bytes) < 0)
            return -EFAULT;
        const char *end = memchr(to + done, 0, bytes);
        if (end)
            return end - to;
        done += bytes;
    }
    return -ENAMETOOLONG;
}

int64_t user_copy_string(struct user_thread *thread, char *to, uint64_t gva, size_t bytes_max)
{
    int64_t length = copy_string(thread, to, user_gva(thread->process, gva), bytes_max);
    size_t bytes = length < 0 ? bytes_max : (size_t)length + 1;
    if (length != -EFAULT && !is_allowed(thread, gva, bytes, HART_LOAD))
        length = -EFAULT;
    return length;
}

char *user_string_buffer(struct user_thread *thread)
{
    return thread->strings[thread->next_string++ % USER_STRINGS];
}

int user_string(struct user_thread *thread, uint64_t gva, const char **text)
{
    char *copy = user_string_buffer(thread);
    int64_t length = user_copy_string(thread, copy, gva, PATH_MAX);
    *text = copy;
    return length < 0 ? (int)length : 0;
}
