# SPDX-License-Identifier: BSD-2-Clause
"""The host's side of a guest agent's protocol (docs/appliances.md), small and blocking, for tests."""

import socket
import time
from urllib.parse import quote

PORT = 5355


class AgentError(Exception):
    """The agent answered `error`; the text is its."""


def connect(path, port=PORT, timeout=120):
    """A stream to a guest's vsock port, through the partition's socket at `path`. OSError if nobody listens."""
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(timeout)
    try:
        stream.connect(str(path))
        stream.sendall(f"CONNECT {port}\n".encode())
        answer = b""
        while not answer.endswith(b"\n"):
            byte = stream.recv(1)
            if not byte:
                raise ConnectionRefusedError(f"nobody listens on the guest's port {port}")
            answer += byte
    except OSError:
        stream.close()
        raise
    return stream


class Agent:
    """One connection; requests go one after the other."""

    def __init__(self, path, timeout=120):
        self.stream = connect(path, timeout=timeout)
        self.lines = self.stream.makefile("rb")

    def request(self, verb, payload=b"", **values):
        """The lines of an answer. Values: text, or a list of texts for a key that is there more than once;
        _ in a key stands for -."""
        words = [verb]
        for key, value in values.items():
            for text in value if isinstance(value, list) else [value]:
                words.append(f"{key.replace('_', '-')}={quote(str(text), safe=':/,.[]')}")
        if payload:
            payload = payload.encode() if isinstance(payload, str) else payload
            words.append(f"length={len(payload)}")
        self.stream.sendall(" ".join(words).encode() + b"\n" + payload)
        return self.answer()

    def answer(self):
        """The lines up to `ok`. AgentError if it is `error`, ConnectionError if the connection ends."""
        found = []
        for line in self.lines:
            text = line.decode(errors="replace").rstrip("\n")
            if text == "ok":
                return found
            if text.startswith("error "):
                raise AgentError(text[len("error "):])
            if not text.startswith("- "):
                raise ConnectionError(f"the agent answered {text!r}")
            found.append(text[2:])
        raise ConnectionError("the agent ended the connection")

    def close(self):
        """Ends the connection."""
        self.lines.close()
        self.stream.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def wait(path, seconds=600):
    """A connection to the agent of a guest that may still be starting."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return Agent(path)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
