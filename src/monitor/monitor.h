// SPDX-License-Identifier: BSD-2-Clause
// monitor: what a partition's process has around it: console end points and the GDB server.
#ifndef STRAKE_MONITOR_H
#define STRAKE_MONITOR_H

#include "partition/partition.h"

// ---- Console end points
// ---------------------------------------------------------------------------

enum console_kind { CONSOLE_STDIO, CONSOLE_PTY, CONSOLE_FILE, CONSOLE_UNIX };

struct console;

// Opens the end point. CONSOLE_STDIO: the terminal is put into raw mode when standard input is one,
// and restored by console_close on every way out (signals included: see console_restore_terminal);
// escape Ctrl-A, then: x ends the partition, h shows help, Ctrl-A sends one, others are shown in
// help. CONSOLE_PTY: the name of the terminal is printed. CONSOLE_FILE: output to `path` only.
// CONSOLE_UNIX: listens at `path`, one client at a time, output while none is connected is dropped.
// `quit` is called (loop thread) for the escape.
BASE_NODISCARD int console_open(struct console **out, enum console_kind kind, const char *path,
                                void (*quit)(void *opaque), void *opaque, struct error *err);
// Connects it with a partition created with the three functions below and opaque `console`.
void console_attach(struct console *console, struct partition *partition);
void console_output(void *console, const void *bytes, size_t count);
void console_room(void *console);
void console_abandon(void *console);
void console_close(struct console *console);  // NULL is ignored
// Async-signal-safe: puts the terminal back as it was.
void console_restore_terminal(void);

// ---- GDB server: GDB Remote Serial Protocol, one thread a hart
// ----------------------------------------

struct gdb_server;

// Listens at `address` ("ADDR:PORT" or ":PORT", loopback when ADDR is empty). The partition must be
// started paused; it goes on when the debugger says so or goes away.
BASE_NODISCARD int gdb_server_create(struct gdb_server **out, const char *address,
                                     struct partition *partition, struct error *err);
void gdb_server_destroy(struct gdb_server *server);  // NULL is ignored

#endif
