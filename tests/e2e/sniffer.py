"""A program: counts what leaves a host, by protocol, until its standard input ends.

    python -m tests.e2e.sniffer INTERFACE

standard output: a line when it listens, then one JSON object, protocol (`udp`, `igmp`, `icmp`, `tcp`, `arp`,
`ipv6`, `other`): frames.
"""

import json
import select
import socket
import sys
from collections import Counter

_ALL, _OUTGOING = 3, 4  # ETH_P_ALL, PACKET_OUTGOING
_KINDS = {0x0806: "arp", 0x86DD: "ipv6"}
_PROTOCOLS = {1: "icmp", 2: "igmp", 6: "tcp", 17: "udp"}


def main(interface: str) -> None:
    found: Counter[str] = Counter()
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL)) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        wire.bind((interface, _ALL))
        print("listening", flush=True)
        while True:
            readable, _, _ = select.select([wire, sys.stdin], [], [])
            if wire not in readable:
                break
            packet, (_, protocol, kind, *_) = wire.recvfrom(64)
            if kind == _OUTGOING:
                is_ip = protocol == 0x0800 and len(packet) > 9
                found[_PROTOCOLS.get(packet[9], "other") if is_ip else _KINDS.get(protocol, "other")] += 1
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
