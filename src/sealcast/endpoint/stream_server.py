"""What a publisher's engine answers those who connect: repairs, what comes next, reports of losses."""

from __future__ import annotations

from sealcast import _core
from sealcast.endpoint.session import Session
from sealcast.pki.names import channel_id
from sealcast.sidechannel.followers import FollowSource
from sealcast.sidechannel.loss_messages import LossReport
from sealcast.sidechannel.server import Admission, FilesHandler, PeerServer


def stream_server(
    engine: _core.SendEngine, session: Session, channel: str, files: FilesHandler
) -> PeerServer:
    """Make the server of one stream, that of `engine`; `files` takes the reports on files."""
    own_channel = channel_id(session.site.site_id, channel)

    def repair(
        _channel: bytes,
        stream: bytes,
        ranges: tuple[tuple[int, int], ...],
        _admission: Admission | None,
    ) -> tuple[list[bytes], int, bytes | None] | None:
        return engine.repair(ranges, session.now()) if stream == engine.stream_id else None

    def reach(_channel: bytes, stream: bytes) -> tuple[int, bool] | None:
        return engine.reach() if stream == engine.stream_id else None

    def take_losses(device: str, report: LossReport) -> int | None:
        if report.stream != engine.stream_id:
            return None
        return engine.take_report(device, report.lost, report.sent, session.now())

    def is_allowed(channel: bytes, device: str) -> bool | None:
        return engine.is_member(device) if channel == own_channel else None

    server = PeerServer(
        session.identity,
        site_id=session.site.site_id,
        repair=repair,
        losses=take_losses,
        follow=FollowSource(reach=reach, await_fresh=lambda _: engine.await_fresh()),
        files=files,
        is_allowed=is_allowed,
        crl=engine.crl,
        clock=session.date,
    )
    session.on_output = lambda: server.followers.take_fresh(engine)
    return server
