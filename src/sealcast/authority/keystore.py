"""The keys of a channel as rows: read whole, written as differences, secrets sealed.

Every function runs inside the caller's transaction.
"""

import os
from dataclasses import replace
from types import MappingProxyType
from weakref import WeakValueDictionary

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from sealcast.authority.models import ChannelRow, GenerationRow, MemberRow, SlotRow
from sealcast.authority.vault import Vault
from sealcast.errors import StorageError
from sealcast.keys import ChannelKeys, Generation, Member, MemberRole, Membership, Secret, Slots
from sealcast.keys.secret import SECRET_BYTES
from sealcast.pki.policy import SlotClock


def draw_secret() -> Secret:
    """A fresh secret from the operating system."""
    return Secret(os.urandom(SECRET_BYTES))


def load_keys(session: Session, channel: ChannelRow, vault: Vault) -> ChannelKeys:
    """Read the keys of `channel`.

    Raises:
        StorageError: a row is missing, damaged, or sealed under another key.
    """
    held = _held.get(channel.keys_state)
    if held is None:
        held = _read_keys(session, channel, vault)
        if channel.keys_state:
            _held[channel.keys_state] = held
    clock = slot_clock(channel)
    if (held.clock, held.slots_ahead) == (clock, channel.slots_ahead):
        return held
    return replace(held, clock=clock, slots_ahead=channel.slots_ahead)


_held: WeakValueDictionary[bytes, ChannelKeys] = WeakValueDictionary()
"""By the state in which they are stored; a service holds those in force, with all members."""

_STATE_BYTES = 16


def _read_keys(session: Session, channel: ChannelRow, vault: Vault) -> ChannelKeys:
    generation = session.scalars(
        select(GenerationRow)
        .where(GenerationRow.channel == channel.name)
        .order_by(GenerationRow.number.desc())
        .limit(1)
    ).first()
    if generation is None or generation.sealed_secret is None:
        raise StorageError(
            f"channel {channel.name}", "its generation is missing", cure="restore the folder from a backup"
        )
    slots = session.scalars(
        select(SlotRow).where(SlotRow.channel == channel.name).order_by(SlotRow.number)
    ).all()
    members = session.scalars(select(MemberRow).where(MemberRow.channel == channel.name)).all()
    return ChannelKeys(
        channel_id=channel.channel_id,
        clock=slot_clock(channel),
        slots_ahead=channel.slots_ahead,
        slots=Slots(
            present=channel.present_slot,
            secrets=MappingProxyType(
                {row.number: vault.open(row.sealed_secret, _slot(channel, row.number)) for row in slots}
            ),
        ),
        generation=Generation(
            number=generation.number,
            step=generation.step,
            secret=vault.open(
                generation.sealed_secret, _generation(channel, generation.number, generation.step)
            ),
        ),
        membership=Membership.of(
            Member(
                device=row.device,
                role=MemberRole(row.role),
                generation=row.generation,
                step=row.step,
                joined=row.joined,
                left=row.left,
            )
            for row in members
        ),
    )


def store_keys(
    session: Session, channel: ChannelRow, vault: Vault, old: ChannelKeys | None, new: ChannelKeys, now: int
) -> None:
    """Write what differs between `old` (what `load_keys` gave, None for a new channel) and `new`."""
    channel.present_slot = new.slots.present
    _store_slots(session, channel, vault, old.slots if old else None, new.slots)
    if old is None or old.generation.position != new.generation.position:
        _store_generation(session, channel, vault, new.generation, now)
    _store_members(session, channel, old.membership if old else Membership(), new.membership)
    # Never used twice, also if this transaction is not made: what is held under it was stored with it.
    channel.keys_state = os.urandom(_STATE_BYTES)
    _held[channel.keys_state] = new


def slot_clock(channel: ChannelRow) -> SlotClock:
    """The slot clock of `channel`."""
    return SlotClock(
        origin_time=channel.origin_time, origin_number=channel.origin_number, length=channel.slot_length
    )


def _store_slots(session: Session, channel: ChannelRow, vault: Vault, old: Slots | None, new: Slots) -> None:
    held = old.secrets.keys() if old else set()
    for number in held - new.secrets.keys():
        session.execute(delete(SlotRow).where(SlotRow.channel == channel.name, SlotRow.number == number))
    session.add_all(
        SlotRow(
            channel=channel.name,
            number=number,
            sealed_secret=vault.seal(new.secrets[number], _slot(channel, number)),
        )
        for number in new.secrets.keys() - held
    )


def _store_generation(
    session: Session, channel: ChannelRow, vault: Vault, generation: Generation, now: int
) -> None:
    sealed = vault.seal(generation.secret, _generation(channel, generation.number, generation.step))
    row = session.get(GenerationRow, (channel.name, generation.number))
    if row is not None:
        row.step, row.sealed_secret = generation.step, sealed
        return
    session.execute(
        update(GenerationRow).where(GenerationRow.channel == channel.name).values(sealed_secret=None)
    )
    session.add(
        GenerationRow(
            channel=channel.name,
            number=generation.number,
            step=generation.step,
            started=now,
            sealed_secret=sealed,
        )
    )


def _store_members(session: Session, channel: ChannelRow, old: Membership, new: Membership) -> None:
    for device, role in old.members.keys() - new.members.keys():
        session.execute(
            delete(MemberRow).where(
                MemberRow.channel == channel.name, MemberRow.device == device, MemberRow.role == str(role)
            )
        )
    for key, member in new.members.items():
        known = old.members.get(key)
        if known is not member and known != member:
            session.merge(
                MemberRow(
                    channel=channel.name,
                    device=member.device,
                    role=str(member.role),
                    generation=member.generation,
                    step=member.step,
                    joined=member.joined,
                    left=member.left,
                )
            )


def _slot(channel: ChannelRow, number: int) -> str:
    return f"slot {channel.channel_id.hex()} {number}"


def _generation(channel: ChannelRow, number: int, step: int) -> str:
    return f"generation {channel.channel_id.hex()} {number} {step}"
