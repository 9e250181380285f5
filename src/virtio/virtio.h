// SPDX-License-Identifier: BSD-2-Clause
// virtio: the virtio-mmio transport, split virtqueues, and one file a device.
// Source: Virtual I/O Device (VIRTIO) Version 1.2 (OASIS); modern (VIRTIO_F_VERSION_1) only.
//
// Threads: registers are accessed on hart threads under the device's lock; queues are worked on the
// partition's I/O loop thread only, which also delivers completions. A reset by the guest takes
// effect on the loop thread before the hart's write returns (loop_call).
//
// Trust: rings, descriptors and requests belong to the guest. A rule broken there sets
// DEVICE_NEEDS_RESET on that device, tells the driver, logs (rate-limited), and the device touches
// the rings no more until it is reset. Nothing else happens to anybody.
#ifndef STRAKE_VIRTIO_H
#define STRAKE_VIRTIO_H

#include "base/base.h"
#include "memory/memory.h"
#include "state/state.h"

struct virtio_device;  // any of the devices below, with its transport

#define VIRTIO_MMIO_BYTES 0x1000u

// What every device is wired to. Copied.
struct virtio_wiring {
    struct memory *memory;  // where rings and buffers are
    struct loop *loop;      // where queues are worked
    struct irq_line irq;
};

// Registers of the device, for memory_add_device (the caller fills in gpa and name).
void virtio_device_registers(struct virtio_device *device, struct memory_device *registers);
// As after power-on. On the loop's thread, or while no thread runs it.
void virtio_device_reset(struct virtio_device *device);
// Stops and starts the work on queues without the guest noticing: after _pause returns, no request
// is in flight and guest memory is not touched. On the loop's thread, or while none runs it.
void virtio_device_pause(struct virtio_device *device);
void virtio_device_resume(struct virtio_device *device);
void virtio_device_destroy(struct virtio_device *device);  // NULL is ignored
// The kind, "blk", "net", ...; and whether the guest's driver has taken the device (DRIVER_OK): at
// exit the user is told of devices that no driver took.
const char *virtio_device_kind(const struct virtio_device *device);
bool virtio_device_driver_ok(const struct virtio_device *device);

// ---- State and handover ------------------------------------------------------------------------
//
// All on the loop's thread, or while no thread runs the loop.

// Writes the sections "virtio" and "virtio-KIND", instance `slot`. While paused or frozen.
void virtio_device_save(struct virtio_device *device, struct state_writer *writer, unsigned slot);
// Takes them into a device that is as after creation or reset: rings are in use again, the
// interrupt line is driven. The device is paused from here on, and touches no guest memory until
// virtio_device_resume: it may still be another monitor's. What a guest or a hostile state could
// get wrong is refused with section and field named; the device is then as after a reset.
BASE_NODISCARD int virtio_device_load(struct virtio_device *device, struct state_reader *reader,
                                      unsigned slot, struct error *err);

// A handover hands on requests that the host has begun. Their heads are "outstanding" in the state:
// the old monitor (O) sees them through, in the guest memory that it shares with the new one (N),
// and tells N, which returns them to the driver. In O:
//
//     virtio_device_freeze, virtio_device_save     (loop's thread, `ended` called from then on)
//     `ended` ...  until virtio_device_outstanding is 0: O may go
//  or virtio_device_thaw                           N failed: O returns them itself and goes on
//
// and in N:
//
//     virtio_device_load, virtio_device_set_former
//     virtio_device_ended ...                      as O tells; any time from load on
//     virtio_device_resume                         from here on N owns the guest
//     virtio_device_forsaken                       O is no more: N does what is left again

// As pause, but what the host has begun stays under way. What ends before the state is saved is
// returned to the driver, and is not in the state; what ends later has its status in guest memory
// and is reported to `ended`, once. `written` is what the used ring is to say. The loop has to
// run for that, or virtio_device_pause be called, which on a frozen device waits for everything.
// Returns what virtio_device_outstanding does.
unsigned virtio_device_freeze(struct virtio_device *device, unsigned slot,
                              void (*ended)(void *opaque, unsigned slot, uint16_t head,
                                            uint32_t written),
                              void *opaque);
// Undoes freeze and whatever was saved: returns to the driver what has ended, and resumes. Only
// while no other monitor owns the guest.
void virtio_device_thaw(struct virtio_device *device);
// Requests of which this monitor knows that they have not ended: when frozen, those it has under
// way; else those that the former monitor has.
unsigned virtio_device_outstanding(const struct virtio_device *device);

// Says that a former monitor has the outstanding requests under way. `settle` is called, on the
// loop's thread, where the device must wait for them (reset, pause, freeze): it asks O to see them
// through (machine_pause_devices there) and returns true once O has said that it did, or has ended
// as a process; false when neither came about in a bounded time. It may call virtio_device_ended
// and need not: what was not reported then is done again here. When it fails the device is broken,
// and a reset does not mend it as long as O may touch guest memory. NULL: nobody has them (the
// default): resume does them again.
void virtio_device_set_former(struct virtio_device *device, bool (*settle)(void *opaque),
                              void *opaque);
// O's report. A head that is not outstanding (any more: the guest has reset the device) is ignored.
void virtio_device_ended(struct virtio_device *device, uint16_t head, uint32_t written);
// O has ended as a process, so that nothing of it touches guest memory or disks any more. Whatever
// it has not reported is done again, from its descriptors (at resume, when that is to come).
void virtio_device_forsaken(struct virtio_device *device);

// ---- Devices -----------------------------------------------------------------------------------
//
// Each constructor: 0, or a negative errno with *err set. `wiring` is copied. On success
// descriptors in the configuration belong to the device (closed by virtio_device_destroy), on
// failure they stay the caller's.

// Entropy from getrandom(2). Section 5.4.
BASE_NODISCARD int virtio_rng_create(struct virtio_device **out, const struct virtio_wiring *wiring,
                                     struct error *err);

// A power button: an input device with one key. Section 5.8. A press is delivered once there is a
// driver with a buffer for it. Any thread.
BASE_NODISCARD int virtio_input_create(struct virtio_device **out,
                                       const struct virtio_wiring *wiring, struct error *err);
void virtio_input_press(struct virtio_device *device);

// Console, one port. Section 5.3. Output of the guest goes to `output` on the loop thread, which
// takes all bytes. Input is given with virtio_console_input, which returns how many bytes were
// taken (the rest must be offered again after `input_room` was called); loop thread only.
struct virtio_console_config {
    void (*output)(void *opaque, const void *bytes, size_t count);
    void (*input_room)(void *opaque);
    void *opaque;
};
BASE_NODISCARD int virtio_console_create(struct virtio_device **out,
                                         const struct virtio_wiring *wiring,
                                         const struct virtio_console_config *config,
                                         struct error *err);
size_t virtio_console_input(struct virtio_device *device, const void *bytes, size_t count);
// Terminal size for the guest, in characters (VIRTIO_CONSOLE_F_SIZE). Loop thread only.
void virtio_console_resize(struct virtio_device *device, unsigned columns, unsigned rows);

// Block device on a raw file or block device. Section 5.2. Flush reaches the disk (fdatasync);
// discard and write-zeroes punch holes where the file system can. A request in flight is
// asynchronous through io_uring where the host has it, else done at once on the loop thread.
enum virtio_blk_aio { VIRTIO_BLK_AIO_AUTO, VIRTIO_BLK_AIO_URING, VIRTIO_BLK_AIO_SYNC };
struct virtio_blk_config {
    int fd;
    bool read_only;
    enum virtio_blk_aio aio;
    char serial[20];  // VIRTIO_BLK_T_GET_ID, not terminated when all 20 are used
};
BASE_NODISCARD int virtio_blk_create(struct virtio_device **out, const struct virtio_wiring *wiring,
                                     const struct virtio_blk_config *config, struct error *err);

// Network device. Section 5.1. Frames go to and come from a descriptor: a tap with IFF_VNET_HDR, or
// one end of a pair of packet sockets. A packet there is the header below and an Ethernet frame.
// Who holds the other end of SOCK_SEQPACKET sockets does offloads: it takes TCP segments up to the
// largest that IP can describe, and packets whose checksum is to be completed, and marks what it
// sends and need not be checked as VIRTIO_NET_HEADER_F_DATA_VALID. SOCK_DGRAM: no offloads.
//
// What is shorter than a header is no packet, and whoever does not know it ignores it: the two ends
// may be of different versions. The device says so, with struct virtio_net_offloads, which large
// packets the driver accepts; whoever has not heard it sends none.
//
// With a tap there may be several pairs of queues (VIRTIO_NET_F_MQ), one for each of the tap's own
// (IFF_MULTI_QUEUE): the kernel spreads flows over them, and each has a descriptor.
#define VIRTIO_NET_PAIRS_MAX 8u
struct virtio_net_config {
    uint8_t mac[6];
    unsigned pairs;  // 1 to VIRTIO_NET_PAIRS_MAX
    int fds[VIRTIO_NET_PAIRS_MAX];
};
// Section 5.1.6; with VIRTIO_F_VERSION_1 num_buffers is always there.
enum { VIRTIO_NET_HEADER_F_NEEDS_CSUM = 1, VIRTIO_NET_HEADER_F_DATA_VALID = 2 };
enum { VIRTIO_NET_HEADER_GSO_TCPV4 = 1, VIRTIO_NET_HEADER_GSO_TCPV6 = 4 };
struct virtio_net_header {
    uint8_t flags, gso_type;
    uint16_t header_bytes, gso_bytes;
    uint16_t csum_start, csum_offset;
    uint16_t num_buffers;
};
#define VIRTIO_NET_F_GUEST_TSO4 (1ull << 7)
#define VIRTIO_NET_F_GUEST_TSO6 (1ull << 8)
struct virtio_net_offloads {
    uint64_t
        features;  // VIRTIO_NET_F_GUEST_TSO4, _TSO6: segments that the driver takes unsegmented
};
_Static_assert(sizeof(struct virtio_net_offloads) < sizeof(struct virtio_net_header),
               "no packet is as short");
// The largest segment that an IP header can describe, behind an Ethernet header with a VLAN tag.
#define VIRTIO_NET_FRAME_BYTES_MAX (65535u + 18u)
#define VIRTIO_NET_PACKET_BYTES_MAX (sizeof(struct virtio_net_header) + VIRTIO_NET_FRAME_BYTES_MAX)
BASE_NODISCARD int virtio_net_create(struct virtio_device **out, const struct virtio_wiring *wiring,
                                     const struct virtio_net_config *config, struct error *err);

// Sockets between guest and host. Section 5.10. Host side in the convention of Firecracker and
// Cloud Hypervisor: a guest's connect to CID 2, port P, goes to the Unix socket PATH_P; a host
// program connects to PATH, writes "CONNECT P\n", and is answered "OK HOSTPORT\n" once the guest
// accepted.
struct virtio_vsock_config {
    uint64_t guest_cid;  // 3 .. 2^32-2
    int listen_fd;       // a listening, non-blocking Unix stream socket bound to PATH
    const char *path;    // copied; for messages
    // The guest wants to connect to the host's port: the answer is virtio_vsock_connected with the
    // token, now or within 30 s. On the loop's thread. NULL: guests are refused.
    void (*connect)(void *opaque, uint32_t port, uint64_t token);
    void *opaque;
};
// `fd`: a connected, non-blocking stream socket, which becomes the device's; or a negative errno:
// the guest is refused. A token that is not waited for (any more) is ignored, and its socket
// closed. On the loop's thread.
void virtio_vsock_connected(struct virtio_device *device, uint64_t token, int fd);
BASE_NODISCARD int virtio_vsock_create(struct virtio_device **out,
                                       const struct virtio_wiring *wiring,
                                       const struct virtio_vsock_config *config, struct error *err);

#endif
