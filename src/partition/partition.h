// SPDX-License-Identifier: BSD-2-Clause
// partition: a partition's life: a machine and the threads that run it.
//
// Threads: one a hart, one for device I/O (the loop). The functions below are for one controlling
// thread, which is none of these, except partition_stop and the console functions.
#ifndef STRAKE_PARTITION_H
#define STRAKE_PARTITION_H

#include "machine/machine.h"
#include "state/state.h"

struct partition;

enum partition_end {
    PARTITION_POWEROFF,  // the guest switched itself off
    PARTITION_REBOOT,    // the guest asked for a reset and the configuration says not to do it
    PARTITION_FAILED,    // the guest reported failure through the test device
    PARTITION_BROKEN,    // an engine could not go on, and has logged why
    PARTITION_STOPPED,   // partition_stop was called
};

struct partition_config {
    const char *name;
    struct machine_config machine;
    bool no_reboot;
    // As in machine_host; called on hart threads or the I/O thread.
    void (*console_output)(void *opaque, const void *bytes, size_t count);
    void (*console_room)(void *opaque);
    // The partition is being stopped: output does not wait for its reader any more, from now on.
    // Any thread, and from a signal handler.
    void (*console_abandon)(void *opaque);
    void *opaque;
};

// Creates machine and threads; nothing runs yet. Descriptors are copied; the caller
// keeps its own.
BASE_NODISCARD int partition_create(struct partition **out, const struct partition_config *config,
                                    struct error *err);
// Stops what runs, joins every thread.
void partition_destroy(struct partition *partition);

// The I/O loop, for console end points and other host-side descriptors of this partition. Watches
// are created through loop_call once the partition has been started.
struct loop *partition_loop(struct partition *partition);
struct machine *partition_machine(struct partition *partition);

// CPU time of the host that the hart's thread has used so far.
uint64_t partition_hart_cpu_ns(const struct partition *partition, unsigned hart);

// Resets the machine (loading images) and, unless `paused`, starts all harts.
BASE_NODISCARD int partition_start(struct partition *partition, bool paused, struct error *err);
// Waits for the end. A reboot in between is done here, unless no_reboot. `code` (may be NULL) gets
// the guest's failure code. Fails only if a reboot could not load its images.
BASE_NODISCARD int partition_wait(struct partition *partition, enum partition_end *end,
                                  unsigned *code, struct error *err);
// Ends a partition_wait with PARTITION_STOPPED. From any thread, and from a signal handler.
void partition_stop(struct partition *partition);

// Stops all harts at an instruction boundary and drains device I/O; and goes on. Counted: as many
// resumes as pauses. Any thread but the partition's own.
void partition_pause(struct partition *partition);
void partition_resume(struct partition *partition);

// ---- State and handover (docs/handover.md)

// Told on the I/O loop's thread that a request of the disk in `slot` has ended: see
// partition_freeze and machine_freeze_devices.
typedef void partition_ended_fn(void *opaque, unsigned slot, uint16_t head, uint32_t written_bytes);

// Stops the partition as a pause does and saves its state, but leaves to the host what it has begun
// of disk I/O: it goes on in the guest's RAM, the state has it as outstanding, and `ended` is told
// of each request that ends from then on, instead of the guest. `in_flight` gets how many there
// are. On success the partition stays so until partition_thaw on the same thread, or for ever: who
// else pauses, resumes, steps, or waits for its end meanwhile is held up. Fails, and the guest goes
// on, when the partition has ended (-ESRCH). What `writer` could not take it keeps to itself, see
// state_write.
BASE_NODISCARD int partition_freeze(struct partition *partition, struct state_writer *writer,
                                    partition_ended_fn *ended, void *opaque, unsigned *in_flight,
                                    struct error *err);
// The guest goes on as if nothing had been. What has ended meanwhile is reported to it.
void partition_thaw(struct partition *partition);

// Saves the state of a paused partition.
void partition_save(struct partition *partition, struct state_writer *writer);
// Instead of partition_start, on a partition that was just created. It is then as the saved one was
// before it was frozen, but for one pause more; its loop's thread and its harts' run from the
// first partition_resume. Unless it fails `check` (may be NULL) gets the state saved anew,
// as state_writer_follow has it.
BASE_NODISCARD int partition_load(struct partition *partition, struct state_reader *reader,
                                  struct state_writer *check, struct error *err);

// When the hart's thread last began to execute the guest, and last ended (CLOCK_MONOTONIC; 0:
// never).
struct partition_span {
    uint64_t entered_ns, left_ns;
};
struct partition_span partition_hart_span(const struct partition *partition, unsigned hart);

// Debugging: called on the hart's thread when that hart hit a breakpoint or finished a step, after
// which the hart waits as if paused. Set before start.
void partition_set_debug(struct partition *partition,
                         void (*stopped)(void *opaque, unsigned hart, enum hart_exit why),
                         void *opaque);
// Harts that wait because of that, a bit each.
unsigned partition_held(struct partition *partition);
// While paused: runs exactly one instruction of one hart (on its own thread), returns when done.
void partition_step(struct partition *partition, unsigned hart);

// Console input and size, from the loop's thread.
size_t partition_console_input(struct partition *partition, const void *bytes, size_t count);

#endif
