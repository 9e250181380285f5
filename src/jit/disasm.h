// SPDX-License-Identifier: BSD-2-Clause
// Disassembly of host code, for people. Private to this room, the engines that check it and its
// tests.
#ifndef STRAKE_JIT_DISASM_H
#define STRAKE_JIT_DISASM_H

#include <stdio.h>

#include "base/base.h"

#define JIT_DISASM_TEXT_BYTES 96  // enough for any instruction

// Writes the text of the instruction at `code`, which is or was executed at `address`, to `text`
// (terminated, cut where it is longer). Bytes that are no instruction yield "(bad)", one at a time.
// Returns its length in bytes, 1 to `bytes`; 0 only if `bytes` is.
size_t jit_disasm_insn(const uint8_t *code, size_t bytes, uint64_t address, char *text,
                       size_t text_bytes);

// Writes a line an instruction: address, bytes, text in Intel's syntax.
void jit_disasm_host(FILE *out, const uint8_t *code, size_t bytes, uint64_t address);

#endif
