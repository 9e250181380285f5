# SPDX-License-Identifier: BSD-2-Clause
import array, asyncio, os, select, selectors, socket, socketserver, ssl, struct, threading, urllib.error, urllib.request
import http.server

one, other = socket.socketpair()
one.sendall(b"through a pair")
print(other.recv(100), one.getpeername(), one.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE))
with open("passed", "w+b") as file:
    file.write(b"passed on")
    file.flush()
    socket.send_fds(one, [b"fd"], [file.fileno()])
message, descriptors, _, _ = socket.recv_fds(other, 10, 4)
print(message, os.pread(descriptors[0], 100, 0))
one.shutdown(socket.SHUT_WR)
print(other.recv(10))

listener = socket.create_server(("127.0.0.1", 0))
port = listener.getsockname()[1]
with socket.create_connection(("127.0.0.1", port)) as client:
    server, address = listener.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.settimeout(0.05)
    try:
        client.recv(1)
    except TimeoutError as error:
        print(error)
    client.settimeout(None)
    server.sendmsg([b"gathered ", b"from ", b"three"])
    print(client.recv(100), address == client.getsockname(), client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    client.setblocking(False)
    sent = 0
    try:
        while True:
            sent += client.send(bytes(65536))
    except BlockingIOError as error:
        print(error)
    client.close()
    received = 0
    while data := server.recv(1 << 20):
        received += len(data)
    print(received == sent)
    server.close()
try:
    listener.close()
    socket.create_connection(("127.0.0.1", port))
except ConnectionRefusedError as error:
    print(error)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b:
    a.bind(("127.0.0.1", 0))
    b.sendto(b"datagram", a.getsockname())
    data, address = a.recvfrom(100)
    a.connect(address)
    a.send(b"reply")
    print(data, b.recv(3, socket.MSG_PEEK), b.recv(100))
with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
    server.bind("a-socket")
    server.listen()
    client.connect("a-socket")
    pid, uid, gid = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    print(pid == os.getpid(), uid == os.getuid(), server.getsockname())

reading, writing = os.pipe()
poll = select.poll()
poll.register(reading, select.POLLIN)
print(poll.poll(0))
os.write(writing, b"!")
print([event for _, event in poll.poll()], len(select.select([reading], [writing], [], 0)[0]))
epoll = select.epoll()
epoll.register(reading, select.EPOLLIN | select.EPOLLET)
print([event for _, event in epoll.poll(1)], epoll.poll(0))
event = os.eventfd(3, os.EFD_SEMAPHORE)
print(os.eventfd_read(event), os.eventfd_read(event))
memory = os.memfd_create("memory")
os.write(memory, b"anonymous")
print(os.pread(memory, 4, 2))

class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line.upper())
with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for number in range(5):
        with socket.create_connection(server.server_address) as client:
            client.sendall(b"line %d\n" % number)
            print(client.makefile().readline(), end="")
    server.shutdown()

class Pages(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200 if self.path == "/here" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[::-1])
    def log_message(self, *words):
        pass
with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    print(urllib.request.urlopen(url + "/here", b"posted").read())
    try:
        urllib.request.urlopen(url + "/there", b"posted")
    except urllib.error.HTTPError as error:
        print(error, error.read())
    server.shutdown()

async def session():
    async def serve(reader, writer):
        while line := await reader.readline():
            await asyncio.sleep(0.001)
            writer.write(line[::-1].strip() + b"\n")
            await writer.drain()
        writer.close()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async def ask(number):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"question %d\n" % number)
        answer = await reader.readline()
        writer.close()
        return answer
    print(sorted(await asyncio.gather(*map(ask, range(20))))[:3])
    process = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    print(await process.communicate(b"to a child and back"), process.returncode)
    try:
        await asyncio.wait_for(asyncio.Event().wait(), 0.02)
    except asyncio.TimeoutError:
        print("nothing comes")
    server.close()
asyncio.run(session())
print(type(selectors.DefaultSelector()).__name__, ssl.create_default_context().verify_mode.name)
