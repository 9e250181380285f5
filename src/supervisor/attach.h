// SPDX-License-Identifier: BSD-2-Clause
// Consoles for clients of the API. Private to this room; the loop's thread.
#ifndef STRAKE_SUPERVISOR_ATTACH_H
#define STRAKE_SUPERVISOR_ATTACH_H

#include "supervisor/http.h"

struct entry;

// Where to start: at `position` of run number `run`; or, when `run` is 0, `lines` lines before the
// end; UINT64_MAX: as early as possible.
struct attach_from {
    unsigned run;
    uint64_t position, lines;
    bool follow;  // go on with what comes; else end where the output ends now
};

// Replies with console output. The headers Strake-Run and Strake-Position tell where it starts;
// output that is not there any more is left out. The stream ends with the run.
void attach_output(struct entry *entry, struct http_request *request,
                   const struct attach_from *from);
// Gives the guest what was sent. Returns the number of bytes that its console takes now, or a
// negative errno with *err set.
BASE_NODISCARD int64_t attach_input(struct entry *entry, const void *bytes, size_t count,
                                    struct error *err);

// There is more output, or the run has ended or another begun.
void attach_wake(struct entry *entry);
// The entry goes: all streams end.
void attach_end(struct entry *entry);

#endif
