// SPDX-License-Identifier: BSD-2-Clause
// What there is to find.
#include "check/check.h"

static const struct {
    const char *name, *description;
} kinds[CHECK_KIND_COUNT] = {
    [CHECK_HEAP_BUFFER_OVERFLOW] = {"heap-buffer-overflow",
                                    "Access behind the end of an allocation."},
    [CHECK_HEAP_BUFFER_UNDERFLOW] = {"heap-buffer-underflow",
                                     "Access before the start of an allocation."},
    [CHECK_HEAP_USE_AFTER_FREE] = {"heap-use-after-free",
                                   "Access to an allocation that has been freed."},
    [CHECK_USE_AFTER_REALLOC] = {"use-after-realloc",
                                 "Access through the pointer that was given to realloc."},
    [CHECK_DOUBLE_FREE] = {"double-free", "An allocation is freed again."},
    [CHECK_INVALID_FREE] = {"invalid-free", "What is freed is no allocation."},
    [CHECK_INTERIOR_FREE] = {"interior-free",
                             "What is freed is a pointer into the middle of an allocation."},
    [CHECK_MISMATCHED_FREE] = {"mismatched-free",
                               "Memory is freed by another family of functions than allocated it."},
    [CHECK_OVERLAPPING_COPY] = {"overlapping-copy",
                                "Source and destination of a copy overlap that may not."},
    [CHECK_SYSCALL_BUFFER_OVERFLOW] = {"syscall-buffer-overflow",
                                       "A system call is given a buffer longer than its object."},
    [CHECK_DEAD_STACK_USE] = {"dead-stack-use",
                              "Access to the stack of a function that has returned."},
    [CHECK_RETURN_ADDRESS_OVERWRITTEN] = {"return-address-overwritten",
                                          "A function returns to where it was not called from."},
    [CHECK_NULL_DEREFERENCE] = {"null-dereference", "Access through a null pointer."},
    [CHECK_WILD_POINTER] = {"wild-pointer", "Access to where nothing is."},
    [CHECK_LEAK_DEFINITE] = {"leak-definite",
                             "An allocation that was never freed and that nothing points to."},
    [CHECK_LEAK_POSSIBLE] = {"leak-possible",
                             "An allocation that was never freed and that only pointers into its "
                             "middle, or from others that are lost, lead to."},
    [CHECK_STACK_BUFFER_OVERFLOW] = {"stack-buffer-overflow",
                                     "Access beyond a variable on the stack."},
    [CHECK_GLOBAL_BUFFER_OVERFLOW] = {"global-buffer-overflow", "Access beyond a global variable."},
};

static const char *const accesses[CHECK_ACCESS_COUNT] = {
    [CHECK_ACCESS_NONE] = "none",     [CHECK_ACCESS_READ] = "read",
    [CHECK_ACCESS_WRITE] = "write",   [CHECK_ACCESS_EXECUTE] = "execute",
    [CHECK_ACCESS_FREE] = "free",     [CHECK_ACCESS_REALLOCATE] = "reallocate",
    [CHECK_ACCESS_RETURN] = "return",
};

const char *check_kind_name(enum check_kind kind)
{
    return kinds[kind].name;
}

const char *check_kind_description(enum check_kind kind)
{
    return kinds[kind].description;
}

bool check_kind_is_leak(enum check_kind kind)
{
    return kind == CHECK_LEAK_DEFINITE || kind == CHECK_LEAK_POSSIBLE;
}

const char *check_access_name(enum check_access access)
{
    return accesses[access];
}
