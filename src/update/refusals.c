// SPDX-License-Identifier: BSD-2-Clause
// Names of what the channel's tables enumerate.
#include "update/update.h"

const char *update_refusal_name(enum update_refusal refusal)
{
    switch (refusal) {
#define X(symbol, number, name, sentence)                                                          \
    case UPDATE_REFUSAL_##symbol:                                                                  \
        return name;
        UPDATE_REFUSALS(X)
#undef X
    default:
        return "?";
    }
}

const char *update_refusal_sentence(enum update_refusal refusal)
{
    switch (refusal) {
#define X(symbol, number, name, sentence)                                                          \
    case UPDATE_REFUSAL_##symbol:                                                                  \
        return sentence;
        UPDATE_REFUSALS(X)
#undef X
    default:
        return "?";
    }
}

const char *update_phase_name(enum update_phase phase)
{
    switch (phase) {
#define X(symbol, name)                                                                            \
    case UPDATE_PHASE_##symbol:                                                                    \
        return name;
        UPDATE_PHASES(X)
#undef X
    default:
        return "?";
    }
}
