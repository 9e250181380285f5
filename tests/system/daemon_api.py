#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The supervisor's API: it is as docs/api.yaml describes it, refuses what is wrong with words and the
right status, an id is one partition's for ever, and events and metrics tell what happens."""

import json
import re
import socket

import yaml

from lib.daemon import Supervisor, create, echo_guest, events_of
from lib.harness import PROJECT, check, main

BYTES = "application/octet-stream"
JSON = "application/json"
NOBODY = "1" + "0" * 16  # of the first life, never issued


def api(test):
    guest = echo_guest(test)
    supervisor = Supervisor(test)
    description(supervisor)
    routes_answer(supervisor, create(supervisor, "probe", guest, start=False))
    bad_calls(supervisor, guest)
    definitions(supervisor, guest)
    ids(supervisor, guest)
    broken_connections(supervisor)
    stream = supervisor.follow("/v1/events")
    lives = supervisor.call("GET", "/v1/partitions")
    create(supervisor, "web", guest)
    statistics(supervisor)
    events(supervisor, stream)
    after(supervisor, lives)


# ---- The description

def resolved(document, value):
    """Follows a reference."""
    while isinstance(value, dict) and "$ref" in value:
        for step in value["$ref"].split("/"):
            value = document if step == "#" else value[step]
    return value


def operations(document):
    """(method, path, operation, its parameters) of the description."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                parameters = item.get("parameters", []) + operation.get("parameters", [])
                yield method.upper(), path, operation, [resolved(document, one)
                                                        for one in parameters]


def description(supervisor):
    """docs/api.yaml and the routes agree."""
    document = yaml.safe_load((PROJECT / "docs/api.yaml").read_text(encoding="utf-8"))
    about = supervisor.call("GET", "/v1")
    check(about["pid"] == supervisor.process.pid, "GET /v1 tells whom one talks with")
    check(about["version"] == document["info"]["version"], "the description is of this version")
    routes = {(route["method"], route["path"]):
              (set((route["query"] or "").split()), route["body"]) for route in about["routes"]}
    described = {}
    for method, path, operation, parameters in operations(document):
        body = resolved(document, operation.get("requestBody")) or {"content": {None: None}}
        query = {one["name"] for one in parameters if one["in"] == "query"}
        described[method, path] = (query, *body["content"])
        check_responses(document, method, path, operation)
    for route in sorted(set(routes) | set(described)):
        check(routes.get(route) == described.get(route), f"{' '.join(route)} is as described")


def check_responses(document, method, path, operation):
    """Whoever may be refused is told so, with an object as described."""
    for status, response in operation["responses"].items():
        response = resolved(document, response)
        assert response["description"], (method, path, status)
        if int(status) >= 400:
            schema = resolved(document, response["content"][JSON]["schema"])
            assert schema["required"] == ["error", "code"], (method, path, status)
    if "{id}" in path:
        assert {"404", "410"} <= set(operation["responses"]), (method, path)


def routes_answer(supervisor, partition):
    """Each route is there, is nothing but what it is, and knows its partitions."""
    about = supervisor.call("GET", "/v1")
    for route in about["routes"]:
        path, method = route["path"], route["method"]
        where = f"{method} {path}"
        real = path.replace("{id}", partition["id"])
        if path != "/v1/events":
            status, answer = supervisor.api(method, real + "?nonsense=1")
            check(status == 400 and "nonsense" in answer["error"],
                  f"{where} refuses a query that it does not know")
        status, answer = supervisor.api("PATCH", real)
        check(status == 405 and answer["code"] == "method", f"{where} has no PATCH")
        if "{id}" in path:
            for what, status in ((NOBODY, 410), ("f" * 24, 404), ("xyz", 404), ("0", 404)):
                got, answer = supervisor.api(method, path.replace("{id}", what))
                check(got == status and answer["code"] == ("stale" if status == 410 else "unknown"),
                      f"{where} of {what[:20]} is {status}")
        if route["body"]:
            got, answer = supervisor.api(method, real, raw="x", headers={"Content-Type": "text/x"})
            check(got == 415, f"{where} takes {route['body']} only")


def bad_calls(supervisor, guest):
    """What is refused, and in what words."""
    start = supervisor.path("probe", "/start")
    console = supervisor.path("probe", "/console")
    table = [
        ("GET", "/", None, 404, "no such path"),
        ("GET", "/v2/partitions", None, 404, "no such path"),
        ("POST", "/v1/partitions", "{", 400, "not JSON"),
        ("POST", "/v1/partitions", "[]", 400, "not a JSON object"),
        ("POST", "/v1/partitions", "null", 400, "the body is not"),
        ("POST", "/v1/partitions", '{"name":"a","name":"b"}', 400, "duplicate"),
        ("POST", "/v1/partitions", b'{"name":"\xff\xfe"}', 400, "not JSON"),
        ("POST", "/v1/partitions", '{"name":"\\u0000"}', 400, "not JSON"),
        ("POST", "/v1/partitions", "[" * 60000, 400, "not JSON"),
        ("POST", "/v1/partitions", " " * 65537, 413, "64 KiB"),
        ("POST", start, '{"pause":true}', 400, '"pause" is not known'),
        ("POST", start, '{"paused":1}', 400, "neither true nor false"),
        ("POST", supervisor.path("probe", "/stop"), '{"timeout_ms":-1}', 400, "timeout_ms"),
        ("POST", supervisor.path("probe", "/stop"), '{"timeout_ms":"1"}', 400, "timeout_ms"),
        ("POST", supervisor.path("probe", "/stop"), '{"timeout_ms":1e300}', 400, "timeout_ms"),
        ("POST", supervisor.path("probe", "/stop"), "{}", 409, "is stopped"),
        ("POST", supervisor.path("probe", "/kill"), "{}", 409, "is stopped"),
        ("POST", supervisor.path("probe", "/kill"), '{"how":1}', 400, '"how" is not known'),
        ("POST", supervisor.path("probe", "/pause"), "{}", 409, "is stopped"),
        ("POST", supervisor.path("probe", "/resume"), "{}", 409, "is stopped"),
        ("POST", supervisor.path("probe", "/handover"), "{}", 409, "is stopped"),
        ("POST", supervisor.path("probe", "/handover"), '{"binary":"x"}', 400, "absolute path"),
        ("POST", supervisor.path("probe", "/handover"), '{"binary":"/no"}', 422, "/no"),
        ("GET", supervisor.path("probe", "/stats"), None, 409, "is stopped"),
        ("GET", console, None, 409, "no console yet"),
        ("GET", console + "?lines=x", None, 400, "not a number"),
        ("GET", console + "?lines=-1", None, 400, "not a number"),
        ("GET", console + "?position=99999999999999999999", None, 400, "not a number"),
        ("PUT", supervisor.path("probe", "/console/size"), '{"columns":70000}', 400, "columns"),
        ("GET", "/v1/events?after=x", None, 400, "not a number"),
    ]
    for method, path, body, status, words in table:
        got, answer = supervisor.api(method, path, raw=body,
                                     headers={"Content-Type": JSON} if body else None)
        shown = body if body and len(body) < 60 else "..." if body else ""
        check(got == status and words in answer["error"] and answer["code"],
              f"{method} {path.replace(supervisor.path('probe'), '...')} {shown!r}: {got}, "
              f"{answer['error']}")
    got, answer = supervisor.api("POST", console, raw="x", headers={"Content-Type": BYTES})
    check(got == 409, "nobody types into what does not run")
    create(supervisor, "empty", {**guest, "firmware": "/none/at/all"}, start=False)
    got, answer = supervisor.api("POST", supervisor.path("empty", "/start"))
    check(got == 422 and "/none/at/all" in answer["error"] and answer["code"] == "missing",
          f"a file that is not there: {answer['error']}")
    partition = supervisor.show("empty")
    check(partition["state"] == "failed" and "/none" in partition["last_end"]["why"],
          "that is what is told of the partition, too")
    supervisor.call("DELETE", supervisor.path("empty"))


def definitions(supervisor, guest):
    """Definitions that are refused, each for one reason; nothing is left of them."""
    table = [
        ({}, "no name"),
        ({"name": ""}, "name"),
        ({"name": "."}, "name"),
        ({"name": "../x"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": "-x"}, "name"),
        ({"name": "x" * 41}, "name"),
        ({"name": 7}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "good"}, "kernel"),
        ({"name": "good", **guest, "sped": 1}, "sped"),
        ({"name": "good", **guest, "memory": "1K"}, "memory"),
        ({"name": "good", **guest, "cpus": 0}, "cpus"),
        ({"name": "good", **guest, "cpus": 99}, "cpus"),
        ({"name": "good", **guest, "cpus": "x"}, "cpus"),
        ({"name": "good", **guest, "engine": "steam"}, "engine"),
        ({"name": "good", **guest, "restart": "perhaps"}, "restart"),
        ({"name": "good", **guest, "disk": ["relative"]}, "absolute"),
        ({"name": "good", "firmware": "relative"}, "absolute"),
        ({"name": "probe", **guest}, "already"),
    ]
    before = sorted(path.name for path in (supervisor.state / "partitions").iterdir())
    for definition, words in table:
        status, answer = supervisor.api("POST", "/v1/partitions", definition)
        wanted = 409 if words == "already" else 400
        check(status == wanted and words in answer["error"],
              f"definition {json.dumps(definition)[:70]}: {status}, {answer['error'][:120]}")
    check(sorted(path.name for path in (supervisor.state / "partitions").iterdir()) == before,
          "nothing of them is on the disk")


# ---- Ids

def ids(supervisor, guest):
    """An id is never another partition's."""
    first = create(supervisor, "again", guest, start=False)
    supervisor.call("DELETE", f"/v1/partitions/{first['id']}")
    second = create(supervisor, "again", guest, start=False)
    check(first["id"] != second["id"], "a partition of the same name has another id")
    status, answer = supervisor.api("GET", f"/v1/partitions/{first['id']}")
    check(status == 410 and answer["code"] == "stale", "the former id is gone for ever")
    gone = [first["id"]]
    for _ in range(300):  # more than a mapping table has slots
        one = create(supervisor, "many", guest, start=False)
        supervisor.call("DELETE", f"/v1/partitions/{one['id']}")
        gone.append(one["id"])
    check(len(set(gone)) == len(gone), "301 partitions had 301 ids")
    supervisor.restart()
    check(supervisor.show("again")["id"] == second["id"],
          "a new supervisor knows partitions by the ids they had")
    check(supervisor.call("GET", f"/v1/partitions/{second['id']}")["name"] == "again",
          "by which it finds them")
    third = create(supervisor, "third", guest, start=False)
    check(third["id"] not in gone, "it gives new ones")
    check(all(supervisor.api("GET", f"/v1/partitions/{one}")[0] == 410 for one in gone),
          "and those that were gone are")
    supervisor.call("DELETE", f"/v1/partitions/{third['id']}")
    supervisor.call("DELETE", f"/v1/partitions/{second['id']}")


def broken_connections(supervisor):
    """Clients that say nothing, half of something, or nonsense, and go away."""
    for data in (b"", b"GET", b"GET /v1 HTTP/1.1\r\nHost: x\r\n", b"\0" * 1000, b"\x16\x03\x01",
                 b"POST /v1/partitions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                 b"Content-Length: 1000\r\n\r\n{", b"GET /v1 HTTP/1.1\r\n" + b"A: b\r\n" * 20000):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(supervisor.socket))
            try:
                client.sendall(data)
            except OSError:  # it has had enough
                pass
    check(supervisor.api("GET", "/v1")[0] == 200, "what broken clients send harms nobody")


# ---- What is told

def statistics(supervisor):
    """Statistics and metrics."""
    stats = supervisor.call("GET", supervisor.path("web", "/stats"))
    check(len(stats["harts"]) == 1 and stats["harts"][0]["retired"] > 0,
          "stats: instructions of each hart")
    status, text = supervisor.api("GET", "/metrics")
    check(status == 200, "metrics are there")
    samples = {}
    typed = set()
    for line in text.decode().splitlines():
        head = re.fullmatch(r"# (HELP|TYPE) (\w+) (.+)", line)
        sample = re.fullmatch(r'(\w+)(\{(?:\w+="[^"\\]*",?)*\})? (\S+)', line)
        assert head or sample, line
        if head:
            typed |= {head.group(2)} if head.group(1) == "TYPE" else set()
            continue
        assert sample.group(1) in typed, line
        samples[sample.group(1) + (sample.group(2) or "")] = float(sample.group(3))
    check(len(samples) > 15, f"all {len(samples)} of them are Prometheus' text format")
    check(samples['strake_partitions{state="running"}'] == 1 and
          samples['strake_partitions{state="stopped"}'] == 1, "partitions by state")
    check(samples['strake_hart_instructions_total{partition="web",hart="0"}'] > 0 and
          samples['strake_hart_cpu_seconds_total{partition="web",hart="0"}'] > 0,
          "instructions and CPU time of harts")
    check(samples['strake_partition_runs_total{partition="web"}'] == 1 and
          samples['strake_handovers_total{partition="web"}'] == 0, "runs and handovers")
    check(samples['strake_api_requests_total{method="GET",path="/v1",status="2xx"}'] > 0 and
          samples['strake_api_requests_total{method="GET",path="/v1/partitions/{id}",'
                  'status="4xx"}'] > 0, "requests by route and what became of them")


def events(supervisor, stream):
    """The stream of events, from its start and from a number on."""
    supervisor.type("web", b"q")
    supervisor.wait_for("web", "stopped", "the guest switches itself off")
    supervisor.call("DELETE", supervisor.path("web"))
    seen, names = {}, []
    for number, event in events_of(stream):
        seen[number] = event
        names.append(event["event"])
        if event["event"] == "removed":
            break
    stream.connection.close()
    check(names == ["created", "started", "ended", "removed"], f"events: {', '.join(names)}")
    check(sorted(seen) == list(seen), "their numbers grow")
    check(all(event["name"] == "web" and event["id"] and re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"]) for event in seen.values()),
          "each tells of whom, and when")
    ended = next(event for event in seen.values() if event["event"] == "ended")
    check(ended["end"] == "poweroff" and ended["console"] == ["ready"],
          "the end is told with the last lines of the console")
    first = next(iter(seen))
    again = supervisor.follow(f"/v1/events?after={first}")
    rest = [event["event"] for _, (_, event) in zip(range(3), events_of(again))]
    again.connection.close()
    check(rest == names[1:], "a reader that comes back misses none")


def after(supervisor, lives):
    """Nothing is left of what came and went."""
    check([one["name"] for one in supervisor.call("GET", "/v1/partitions")] ==
          [one["name"] for one in lives], "partitions are what they were before")
    supervisor.call("DELETE", supervisor.path("probe"))
    check(supervisor.end() == 0, "SIGTERM ends the supervisor with status 0")
    check(not supervisor.socket.exists(), "its socket is gone")
    check(not list(supervisor.marked()), "and no process is left")


main(api)
