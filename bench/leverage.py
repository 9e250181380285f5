# SPDX-License-Identifier: BSD-2-Clause
"""leverage: what it costs to have a guest work on the host's data.

Network: packets and connections between a host outside and this one, through a guest that filters as a
bridge, against this host without one, and against the same guest image below QEMU, with the same
interfaces and the same rules of the host's packet filter. All of it in network namespaces.
Files: opens below a path that ClamAV in a guest looks at, against opens beside it (QEMU's guest has no vsock to be
asked by). Images: `strake mount` beside guestmount (bench/mount.py).

RUNS=n rounds (3), in which the contestants take turns; SCALE of the seconds that each measurement takes.
ROWS chooses of network, files and mount.
"""

import contextlib
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import appliance
import cpio
import mount
import namespaces
import opens
import run as bench
import supervised
import vm
from namespaces import run

PACKETS = bench.OUTPUT.parent / "bench" / "packets"
SECONDS = 3  # a measurement, at SCALE=1
HOST, OUTSIDE = "192.0.2.2", "192.0.2.1"  # TEST-NET-1, RFC 5737
OUTER, INNER = "fw0", "strake0"
MACS = {OUTER: "02:00:00:00:01:00", INNER: "02:00:00:00:01:01"}
MEMORY = "256M"
MARK = "0x53544b01"
BOOT_S = 300  # of the guest, on a busy machine
CONTESTANTS = ("host", "strake", "qemu")

# What the guest holds against what it sees: a little of everything that a firewall does.
RULES = """
table bridge filter {
    set closed { type inet_service; elements = { 23, 135, 139, 445 }; }
    chain forward {
        type filter hook forward priority filter; policy accept;
        ct state invalid drop
        ct state established,related accept
        tcp dport @closed drop
    }
}
"""

# (name, unit, whether more is better)
NETWORK = [("tcp", "Gbit/s", True), ("tcp from the host", "Gbit/s", True), ("pps64", "packets/s", True),
           ("latency_p50", "us", False), ("latency_p99", "us", False),
           ("latency_p50, sparse", "us", False), ("latency_p99, sparse", "us", False)]
SPARSE_US = 200  # from an answer to the next request: everybody has gone to sleep by then


# ---- Measuring

def iperf(outside, seconds, *options):
    """Gbit/s of one TCP connection from outside to this host."""
    with subprocess.Popen(["iperf3", "--server", "--one-off"], stdout=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + BOOT_S
            while f":{5201:04X} " not in Path("/proc/net/tcp6").read_text(encoding="ascii"):
                if time.monotonic() > deadline:
                    raise vm.Timeout("iperf3 does not listen")
                time.sleep(0.01)
            told = outside.run(["iperf3", "--client", HOST, "--time", str(max(1, round(seconds))), "--omit", "1",
                                "--json", *options])
        finally:
            server.kill()
    return json.loads(told)["end"]["sum_received"]["bits_per_second"] / 1e9


def packets(what, inner, seconds, **options):
    """What bench/packets.c tells, between the host outside and an interface of ours."""
    words = [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    return json.loads(run([PACKETS, what, "--seconds", str(max(1, round(seconds))), *words, "outside/eth0", inner]))


def mac_of(interface, outside=None):
    """The address of an interface."""
    command = f"ip -j link show {interface}"
    return json.loads(outside.run(command) if outside else run(command))[0]["address"]


def measure(outside, inner, seconds):
    """All rows, once."""
    ends = {"from_mac": mac_of("eth0", outside), "to_mac": mac_of("eth0"), "from_ip": OUTSIDE, "to_ip": HOST}
    packets("flood", inner, 1, **ends)  # for bridges and translated code to be warm
    flood = packets("flood", inner, seconds, **ends)
    ping = packets("ping", inner, seconds, **ends)
    sparse = packets("ping", inner, seconds, interval=SPARSE_US, **ends)
    return {"tcp": iperf(outside, seconds), "tcp from the host": iperf(outside, seconds, "--reverse"),
            "pps64": flood["pps"],
            "latency_p50": ping["p50_ns"] / 1e3, "latency_p99": ping["p99_ns"] / 1e3,
            "latency_p50, sparse": sparse["p50_ns"] / 1e3, "latency_p99, sparse": sparse["p99_ns"] / 1e3}


# ---- Contestants: what lies between

@contextlib.contextmanager
def host_alone(_folder, _image):
    """Nothing does; yields the interface where packets come out."""
    yield "eth0"


def intercept(supervisor, partition, definition):
    """Adds an interceptor, starts its guest, and waits until data goes through it."""
    supervisor.call("POST", "/v1/interceptors", {"name": "bench", "fail": "closed"} | definition)
    supervisor.call("POST", partition.path + "/start", {})
    deadline = time.monotonic() + BOOT_S
    while (told := supervisor.call("GET", "/v1/interceptors/bench"))["state"] != "active":
        if time.monotonic() > deadline or told["state"] == "failed":
            raise vm.Timeout(f"the interceptor does not become active: {told}")
        time.sleep(0.05)


@contextlib.contextmanager
def below_strake(folder, image):
    """The guest, put there by an interceptor."""
    rules = folder / "rules"
    rules.write_text(RULES, encoding="utf-8")
    supervisor = supervised.Supervisor(folder)
    try:
        nets = [f"tap={name},mac={MACS[name]}" for name in (OUTER, INNER)]
        machine = vm.Machine(kernel=image / "Image", initrd=image / "initrd", memory=MEMORY)
        partition = supervisor.partition("fw", machine, net=nets)
        intercept(supervisor, partition, {"kind": "net", "device": "eth0", "time-limit": "30s",
                                          "module": [f"fw,run=firewall,config={rules}"]})
        yield INNER
        supervisor.call("DELETE", "/v1/interceptors/bench")
    finally:
        supervisor.close()


def qemu_initrd(folder, image):
    """The appliance, told what the interceptor's agent would be told: QEMU has no vsock without a module
    of the host's kernel."""
    request = (f"configure run=firewall pair=0 mode=inline outer={MACS[OUTER]} inner={MACS[INNER]} "
               f"length={len(RULES)}\n{RULES}")
    tree = cpio.Tree()
    tree.folder("bench")
    tree.file("bench/request", request)
    tree.file("bench/init", """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs devtmpfs /dev
(
    until [ -e /run/strake ] && [ -e /sys/class/net/eth1 ]; do /bin/busybox sleep 0.1; done
    /bin/busybox sleep 1
    /usr/lib/strake/control </bench/request >/run/answer 2>/dev/console
    echo "bench: answered $(cat /run/answer)" >/dev/console
) &
exec /init
""", 0o755)
    return vm.with_overlay(tree, folder / "initrd-qemu", image / "initrd")


@contextlib.contextmanager
def below_qemu(folder, image):
    """The same guest, and the host set up as the interceptor does it."""
    machine = vm.Machine(kernel=image / "Image", initrd=qemu_initrd(folder, image), memory=MEMORY,
                         append="quiet rdinit=/bench/init")
    command = machine.qemu_command()
    for name, mac in MACS.items():
        command += ["-netdev", f"tap,id={name},ifname={name},script=no,downscript=no",
                    "-device", f"virtio-net-device,netdev={name},mac={mac}"]
    with vm.Running(command) as guest:
        guest.expect("bench: answered ok", BOOT_S)
        run(f"ip link set {INNER} address {mac_of('eth0')}")
        for name in MACS:
            run(f"ip link set {name} up")
        run("nft -f -", input=f"""table netdev bench {{
            chain arrive {{ type filter hook ingress device eth0 priority 0; fwd to {OUTER}; }}
            chain leave {{ type filter hook ingress device {OUTER} priority 0; meta mark set {MARK} fwd to eth0; }}
            chain bypass {{ type filter hook egress device eth0 priority 0; meta mark {MARK} accept; fwd to {INNER}; }}
        }}""")
        run(f"ip address del {HOST}/24 dev eth0")
        run(f"ip address add {HOST}/24 dev {INNER}")
        try:
            yield INNER
        finally:
            run("nft delete table netdev bench")
            run(f"ip address add {HOST}/24 dev eth0")


BETWEEN = {"host": host_alone, "strake": below_strake, "qemu": below_qemu}


# ---- Files

# One signature, so that clamd has a database; the work is done for each file all the same.
SIGNATURE = b"Bench.Never:0:*:" + b"00112233445566778899aabbccddeeff" * 2 + b"\n"

# (name, unit, what opens.measure calls it, and likewise for the host alone)
FILES = [("files_fresh", "files/s", "fresh", None), ("files_cached", "files/s", "cached", "beside"),
         ("files_latency_p50", "us", "latency_p50", None), ("files_latency_p99", "us", "latency_p99", None)]


def write_signatures(path):
    """What the scanner looks for, as its module's configuration has it."""
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("bench.ndb")
        entry.size = len(SIGNATURE)
        archive.addfile(entry, io.BytesIO(SIGNATURE))


def measure_files(folder, scale):
    """What opens.measure tells."""
    image = appliance.build("clamav")
    held, signatures = folder / "held", folder / "signatures.tar"
    held.mkdir()
    write_signatures(signatures)
    supervisor = supervised.Supervisor(folder)
    try:
        machine = vm.Machine(kernel=image / "Image", initrd=image / "initrd", memory=MEMORY)
        partition = supervisor.partition("scanner", machine)
        intercept(supervisor, partition, {"kind": "files", "path": str(held), "time-limit": "60s",
                                          "module": [f"scanner,config={signatures}"]})
        opens.measure(held, fresh=50, cached=100)  # for translated code to be warm
        return opens.measure(held, fresh=max(50, round(1000 * scale)), cached=max(1000, round(20000 * scale)))
    finally:
        with contextlib.suppress(supervised.Refused):
            supervisor.call("DELETE", "/v1/interceptors/bench")
        supervisor.close()


# ---- The table

def row(name, unit, more_is_better, samples):
    """Medians. The ratio is how many times better Strake is than QEMU; of latency, in what it adds."""
    median = {who: statistics.median(one[name] for one in found) for who, found in samples.items()}
    entry = {"name": name} | {who: round(median[who], 3) for who in CONTESTANTS if who in median}
    if {"strake", "qemu"} <= median.keys():
        if more_is_better:
            entry["ratio"] = round(median["strake"] / median["qemu"], 3)
        elif "host" in median:
            entry["ratio"] = round((median["qemu"] - median["host"]) / (median["strake"] - median["host"]), 3)
    return entry | {"unit": unit}


def print_table(rows):
    """As Markdown has it."""
    peers = [*CONTESTANTS, "guestmount"]
    lines = [["", *peers, "ratio", "unit"]]
    lines += [[entry["name"], *(f"{entry[peer]:.2f}" if entry.get(peer) is not None else "" for peer in peers),
               f"{entry['ratio']:.2f}" if "ratio" in entry else "", entry["unit"]] for entry in rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines.insert(1, ["-" * width for width in widths])
    for line in lines:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |")


def goals(rows):
    """(what, value, sign, bound)."""
    found = {entry["name"]: entry for entry in rows}
    added, sparse = (found[name]["strake"] - found[name]["host"] for name in ("latency_p50", "latency_p50, sparse"))
    return [("packets a second, times QEMU's", found["pps64"]["ratio"], ">=", 3),
            ("added latency, median, us", added, "<=", 150),
            ("added latency of sparse packets, median, us", sparse, "<=", 150),
            ("TCP to the host, Gbit/s", found["tcp"]["strake"], ">=", 1),
            ("TCP from the host, Gbit/s", found["tcp from the host"]["strake"], ">=", 1),
            ("fresh files a second", found["files_fresh"]["strake"], ">=", 50),
            ("cached files a second", found["files_cached"]["strake"], ">=", 1000),
            ("from strake mount to mounted, s", found["mount_time"]["strake"], "<=", 3)]


def network_contestants(options):
    """Those of CONTESTANTS that are chosen. Ends the program when one cannot run."""
    for who in options.contestants:
        bench.command_of(who)
    return ["host" if who == "native" else who for who in options.contestants]


def network_rows(options, samples):
    """Rows of packets and connections. Has to be the last: this process's network is another one then."""
    chosen = network_contestants(options)
    image = appliance.build("firewall") if chosen != ["host"] else None
    namespaces.enter_host()
    os.makedirs("/run/netns", exist_ok=True)
    namespaces.run("mount -t tmpfs none /run/netns")
    with contextlib.closing(namespaces.Outside()) as outside:
        run(f"ip netns attach outside {outside.holder.pid}")
        outside.run(f"ip address add {OUTSIDE}/24 dev eth0")
        run(f"ip address add {HOST}/24 dev eth0")
        for turn in range(options.runs):
            for who in chosen:
                with tempfile.TemporaryDirectory(prefix="leverage-") as folder, \
                     BETWEEN[who](Path(folder), image) as inner:
                    one = measure(outside, inner, SECONDS * options.scale)
                samples.setdefault("network", {}).setdefault(who, []).append(one)
                print(f"round {turn + 1}, {who}: " + ", ".join(
                    f"{name} {one[name]:.2f} {unit}" for name, unit, _ in NETWORK), flush=True)
    return [row(*what, samples["network"]) for what in NETWORK]


def files_rows(options, samples):
    """Rows of opens; latency is what they take longer than beside the path."""
    for turn in range(options.runs):
        with tempfile.TemporaryDirectory(prefix="files-", dir=bench.OUTPUT) as folder:
            one = measure_files(Path(folder), options.scale)
        samples.setdefault("files", []).append(one)
        print(f"round {turn + 1}, files: " + ", ".join(
            f"{name} {one[key]:.2f} {unit}" for name, unit, key, _ in FILES), flush=True)

    def median(key):
        return round(statistics.median(one[key] for one in samples["files"]), 3)

    return [{"name": name} | ({"host": median(host)} if host else {}) | {"strake": median(key), "unit": unit}
            for name, unit, key, host in FILES]


def mount_rows(options, _samples):
    """Rows of images."""
    appliance.build("mount")
    return mount.rows(options)


PARTS = {"files": files_rows, "mount": mount_rows, "network": network_rows}


def main(options, output):
    """See bench/run.py."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # by way of `finally`
    print(f"leverage: {vm.strake()} against {bench.qemu_version()}, {options.runs} round(s)", flush=True)
    output.mkdir(parents=True, exist_ok=True)
    rows, samples, chosen = [], {}, bench.choose("ROWS", list(PARTS))
    if "network" in chosen:
        network_contestants(options)  # before what takes long
    try:
        for name, part in PARTS.items():
            if name in chosen:
                rows += part(options, samples)
    except (vm.Timeout, OSError, ValueError, KeyError, supervised.Refused, namespaces.Unavailable,
            subprocess.SubprocessError) as error:
        sys.exit(f"bench: {type(error).__name__}: {error}")
    print_table(rows)
    if options.partial:
        return
    print("\nto reach")
    for what, value, sign, bound in goals(rows):
        reached = value >= bound if sign == ">=" else value <= bound
        print(f"  {what:44} {value:10.3f}  {sign} {bound:g}  {'reached' if reached else 'MISSED'}")
    path = output / "leverage.json"
    path.write_text(json.dumps({"bench": "leverage", "rows": rows, "samples": samples}, indent=1) + "\n",
                    encoding="utf-8")
    print(f"in {path.relative_to(path.parents[2])}")
