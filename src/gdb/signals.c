// SPDX-License-Identifier: BSD-2-Clause
// GDB's numbers of signals (include/gdb/signals.def), which are the same for all systems.
#include "base/base.h"
#include "gdb/internal.h"

#define UNKNOWN 143u
#define REALTIME_32 77u  // the one before 33, which is out of order, as 64 is
#define REALTIME_33 45u
#define REALTIME_64 78u

// By Linux' number; 16 (SIGSTKFLT) is not known to GDB.
static const uint8_t numbers[32] = {
    0, 1,  2,  3,  4,  5,  6,  10, 8,  9,  30, 11, 31, 13, 14, 15,
    0, 20, 19, 17, 18, 21, 22, 16, 24, 25, 26, 27, 28, 23, 32, 12,
};

unsigned gdb_signal_of_linux(unsigned signal)
{
    if (signal == 0)
        return 0;
    if (signal < BASE_COUNT_OF(numbers))
        return numbers[signal] ? numbers[signal] : UNKNOWN;
    return signal == 32   ? REALTIME_32
           : signal < 64  ? REALTIME_33 + signal - 33
           : signal == 64 ? REALTIME_64
                          : UNKNOWN;
}

unsigned gdb_signal_to_linux(unsigned number)
{
    for (unsigned signal = 1; number != UNKNOWN && signal <= 64; signal++)
        if (gdb_signal_of_linux(signal) == number)
            return signal;
    return 0;
}
