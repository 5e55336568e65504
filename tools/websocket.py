"""The receiving half of a WebSocket (RFC 6455), enough to listen to ComfyUI's events."""

import base64
import hashlib
import os
import select
import socket
import struct

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, sec. 1.3
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class WebSocket:
    """A connection that yields whole messages: `str` for text, `bytes` for binary."""

    def __init__(self, host: str, port: int, path: str, timeout: float = 30.0):
        self._socket = socket.create_connection((host, port), timeout)
        self._buffer = bytearray()
        self._shake_hands(f"{host}:{port}", path)

    def _shake_hands(self, host: str, path: str) -> None:
        key = base64.b64encode(os.urandom(16))
        lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key.decode()}", "Sec-WebSocket-Version: 13", "", ""]
        self._socket.sendall("\r\n".join(lines).encode())
        status = self._line()
        headers = {}
        while line := self._line().strip():
            name, _, value = line.partition(b":")
            headers[name.strip().lower()] = value.strip()
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        if b" 101 " not in status or headers.get(b"sec-websocket-accept") != accept:
            raise ConnectionError(f"No WebSocket at {host}{path}: {status.decode(errors='replace').strip()}")

    def receive(self, timeout: float | None = None) -> str | bytes:
        """The next message. Raises TimeoutError when none begins in `timeout` seconds, ConnectionError at the end."""
        if not self._buffer and not select.select([self._socket], [], [], timeout)[0]:
            raise TimeoutError("No event arrived.")
        parts: list[bytes] = []
        kind = 0
        while True:
            final, opcode, payload = self._frame()
            if opcode == PING:
                self._send(PONG, payload)
            elif opcode == CLOSE:
                raise ConnectionError("The server closed the event stream.")
            elif opcode != PONG:
                kind = kind or opcode
                parts.append(payload)
                if final:
                    message = b"".join(parts)
                    return message.decode() if kind == TEXT else message

    def _frame(self) -> tuple[bool, int, bytes]:
        first, second = self._exactly(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", self._exactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._exactly(8))
        return bool(first & 0x80), first & 0x0F, self._exactly(length)

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._fill()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _line(self) -> bytes:
        while b"\n" not in self._buffer:
            self._fill()
        return self._exactly(self._buffer.index(b"\n") + 1)

    def _fill(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("The server went away.")
        self._buffer += data

    def _send(self, opcode: int, payload: bytes) -> None:
        """A control frame; clients must mask (RFC 6455, sec. 5.3)."""
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self._socket.sendall(bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + masked)

    def close(self) -> None:
        self._socket.close()
