"""A program: puts IPv4 packets on the wire that it writes itself, also with the source of another.

    python -m tests.e2e.raw_packets INTERFACE < JSON

Standard input: one JSON object, {"packets": [base64 of an IPv4 packet, …], "times": n, "pause": seconds}.
"""

import base64
import json
import socket
import struct
import sys
import time


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2))
    total = sum(words)
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def ipv4(source: str, destination: str, protocol: int, payload: bytes, options: bytes = b"") -> bytes:
    """A packet with a source of one's choice; the kernel fills in length and checksum."""
    words = 5 + len(options) // 4
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    return struct.pack("!BBHHHBBH8s", 0x40 | words, 0, 0, 0, 0, 1, protocol, 0, ends) + options + payload


def udp(source: tuple[str, int], destination: tuple[str, int], payload: bytes) -> bytes:
    """Without a checksum, which IPv4 allows."""
    header = struct.pack("!HHHH", source[1], destination[1], 8 + len(payload), 0)
    return ipv4(source[0], destination[0], socket.IPPROTO_UDP, header + payload)


def igmp(source: str, destination: str, kind: int, group: str, response: int = 0) -> bytes:
    """An IGMPv2 message (RFC 2236), with the router alert that it has to bear."""
    body = struct.pack("!BBH4s", kind, response, 0, socket.inet_aton(group))
    body = body[:2] + checksum(body).to_bytes(2) + body[4:]
    return ipv4(source, destination, socket.IPPROTO_IGMP, body, b"\x94\x04\x00\x00")


def main(interface: str) -> None:
    wanted = json.loads(sys.stdin.readline())
    packets = [base64.b64decode(packet) for packet in wanted["packets"]]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        number = socket.if_nametoindex(interface)
        route = struct.pack("=4s4si", bytes(4), bytes(4), number)
        wire.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, route)
        for _ in range(wanted["times"]):
            for packet in packets:
                wire.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))
            time.sleep(wanted["pause"])
    print("sent", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
