// SPDX-License-Identifier: BSD-2-Clause
// What the programs of this suite share: two versions of one source, and values that the compiler
// can neither foresee nor leave out.
#ifndef CHECK_TWIN_H
#define CHECK_TWIN_H

// The bad program, and its corrected twin.
#ifdef FIXED
#define TWIN(bad, fixed) fixed
#else
#define TWIN(bad, fixed) bad
#endif

#ifdef __cplusplus
#define TWIN_AUTO auto
#else
#define TWIN_AUTO __auto_type
#endif

// A value (a scalar) that the compiler knows nothing about.
#define HIDE(value)                                                                                \
    ({                                                                                             \
        TWIN_AUTO hidden = (value);                                                                \
        __asm__ volatile("" : "+r"(hidden) : : "memory");                                          \
        hidden;                                                                                    \
    })

// A value (an integer or a pointer) that is made although nobody needs it.
#define USE(value) __asm__ volatile("" : : "r"(value) : "memory")

#endif
