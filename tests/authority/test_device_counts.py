"""The numbers of devices that are kept say what the rows say, whatever was done to them."""

import random
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import create_engine, delete, insert, select, update
from sqlalchemy.orm import Session

from sealcast.authority import bundles
from sealcast.authority.models import DeviceRow
from sealcast.authority.storage import Storage, migrations

NOW = 1_000_000


def device(chance: random.Random, number: int) -> dict[str, object]:
    return {
        "name": f"device-{number}",
        "enrolled": 1,
        "revoked": chance.choice((None, None, 5)),
        "roles": [],
        "maker_key": None,
        "ends": NOW + chance.choice((-1, 0, 1, 2)),
        "bundle_version": chance.randrange(4),
    }


def check(session: Session) -> None:
    session.flush()
    rows = session.execute(
        select(DeviceRow.name, DeviceRow.revoked, DeviceRow.ends, DeviceRow.bundle_version)
    )
    enrolled = [row for row in rows if row.revoked is None]
    alive = [row for row in enrolled if row.ends > NOW]
    for version in range(6):
        has = [row for row in alive if row.bundle_version >= version]
        missing = sorted(row.name for row in alive if row.bundle_version < version)
        for most in (None, 0, 3):
            found = bundles.bundle_progress(session, version, NOW, most=most)
            assert (found.devices, found.reported) == (len(alive), len(has))
            assert list(found.missing) == missing[:most]
        told = sum(row.bundle_version >= version for row in enrolled)
        assert bundles.enrolled_devices(session, version) == told


@pytest.mark.parametrize("seed", range(3))
def test_every_change_of_a_device_is_counted(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    storage = Storage.create(tmp_path / "authority.db")
    with storage.transaction() as session:
        session.execute(insert(DeviceRow), [device(chance, number) for number in range(60)])
        check(session)
    for _ in range(20):
        with storage.transaction() as session:
            some = [f"device-{number}" for number in chance.sample(range(80), 10)]
            chosen = DeviceRow.name.in_(some)
            values = device(chance, 0)
            match chance.randrange(5):
                case 0:
                    session.execute(delete(DeviceRow).where(chosen))
                case 1:
                    session.execute(update(DeviceRow).where(chosen).values(revoked=values["revoked"]))
                case 2:
                    session.execute(
                        update(DeviceRow).where(chosen).values(bundle_version=values["bundle_version"])
                    )
                case 3:
                    session.execute(
                        update(DeviceRow)
                        .where(chosen)
                        .values({key: values[key] for key in ("revoked", "ends", "bundle_version")})
                    )
                case _:
                    for name in some:
                        session.merge(DeviceRow(**{**device(chance, 0), "name": name}))
            check(session)

    def fail() -> None:
        with storage.transaction() as session:
            session.execute(delete(DeviceRow))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with storage.snapshot() as session:
        check(session)


def test_the_devices_of_an_older_database_are_counted(tmp_path: Path) -> None:
    path, chance = tmp_path / "authority.db", random.Random(1)
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        command.upgrade(migrations(connection), "0011")
        connection.execute(insert(DeviceRow), [device(chance, number) for number in range(50)])
    engine.dispose()
    with Storage.open(path).transaction() as session:
        check(session)
        session.execute(update(DeviceRow).values(revoked=None))
        check(session)
