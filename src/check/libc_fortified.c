// SPDX-License-Identifier: BSD-2-Clause
// Fortified functions of libc that are not done in its place. They are told where the compiler has
// seen their destination to end, and end the program, without a word about where, when they may go
// beyond. Where that is the end of an object they are told nothing: they do their work as those
// that are not fortified, and what goes beyond is found like any other access. What ends within an
// object, or is none, is left to them.
#include "check/libc.h"

static bool reaches_end(const struct takeover_call *call, uint64_t pointer)
{
    uint64_t gva = memory_pointer_gva(pointer);
    struct heap_object object;

    return memory_pointer_identifier(pointer) != MEMORY_IDENTIFIER_NONE &&
           heap_find(checker_heap(call->checker), gva, &object) &&
           object.identifier == memory_pointer_identifier(pointer) &&
           gva - object.gva <= object.bytes &&
           limit_of(call) >= (object.gva + object.bytes - gva) / call->function->unit_bytes;
}

static bool do_without_limit(struct takeover_call *call)
{
    const struct takeover_function *function = call->function;

    if (reaches_end(call, takeover_argument(call, 0)))
        call->hart->x[10 + function->argument + function->limit] = UINT64_MAX;
    return !takeover_original(call, call->hart->pc);
}

// The destination is argument `to`, and how many units there are from it on argument `room`, both
// from 0 on.
#define UNITS(unit, text, to, room)                                                                \
    {                                                                                              \
        .name = "__" text "_chk", .kind = TAKEOVER_LIBC, .perform = do_without_limit,              \
        .unit_bytes = unit, .argument = to, .limit = (room) - (to), .resumes = true,               \
        .at_once = true                                                                            \
    }
#define BYTES(text, to, room) UNITS(1, text, to, room)
#define WIDE(text, to, room) UNITS(4, text, to, room)

const struct takeover_function takeover_fortified[] = {
    BYTES("sprintf", 0, 2),        BYTES("vsprintf", 0, 2),       BYTES("snprintf", 0, 3),
    BYTES("vsnprintf", 0, 3),      WIDE("swprintf", 0, 3),        WIDE("vswprintf", 0, 3),

    BYTES("gets", 0, 1),           BYTES("fgets", 0, 1),          BYTES("fgets_unlocked", 0, 1),
    WIDE("fgetws", 0, 1),          WIDE("fgetws_unlocked", 0, 1), BYTES("fread", 0, 1),
    BYTES("fread_unlocked", 0, 1),

    BYTES("read", 1, 3),           BYTES("pread", 1, 4),          BYTES("pread64", 1, 4),
    BYTES("recv", 1, 3),           BYTES("recvfrom", 1, 3),       BYTES("readlink", 1, 3),
    BYTES("readlinkat", 2, 4),     BYTES("poll", 0, 3),           BYTES("ppoll", 0, 4),

    BYTES("getcwd", 0, 2),         BYTES("getwd", 0, 1),          BYTES("realpath", 1, 2),
    BYTES("confstr", 1, 3),        BYTES("getgroups", 1, 2),      BYTES("gethostname", 0, 2),
    BYTES("getdomainname", 0, 2),  BYTES("getlogin_r", 0, 2),     BYTES("ttyname_r", 1, 3),
    BYTES("ptsname_r", 1, 3),

    WIDE("mbstowcs", 0, 3),        WIDE("mbsrtowcs", 0, 4),       WIDE("mbsnrtowcs", 0, 5),
    BYTES("wcstombs", 0, 3),       BYTES("wcsrtombs", 0, 4),      BYTES("wcsnrtombs", 0, 5),
    BYTES("wctomb", 0, 2),         BYTES("wcrtomb", 0, 3),
};
const size_t takeover_fortified_count = BASE_COUNT_OF(takeover_fortified);
