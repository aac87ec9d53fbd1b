//! Answers on bodies of the side channel: what the engine reads, and what it writes. It does not do both with one kind.

use sealcast_core::messages::{self, JoinReply, KeysReply, RepairReply, StreamEntry, WantedReply};
use sealcast_core::retention::Datagram;
use sealcast_core::signed::MalformedObject;
use sealcast_core::wire::{ChannelId, StreamId};

use crate::value::{Value, hex, map};
use crate::{Answered, Error, Fields, invalid, valid};

pub(crate) fn body(case: &Value) -> Answered {
    let kind = case.text("kind")?;
    if let Some(written) = write(kind, case)? {
        return Ok(valid(vec![("body", hex(&written))]));
    }
    let body = case.bytes("body")?;
    let read = match kind {
        "join reply" => messages::parse_join_reply(&body).map(|join| join_fields(&join)),
        "keys reply" => messages::parse_keys_reply(&body).map(|keys| keys_fields(&keys)),
        "poll reply" => messages::parse_poll_reply(&body).map(|(beacon, _)| vec![("beacon", hex(beacon))]),
        "repair reply" => messages::parse_repair_reply(&body).map(|repair| repair_fields(&repair)),
        "wanted reply" => messages::parse_wanted_reply(&body).map(|wanted| wanted_fields(&wanted)),
        "loss reply" => {
            messages::parse_report_reply(&body).map(|interval| vec![("interval", interval.into())])
        }
        other => {
            return Err(Error::case(format!(
                "'kind': the engine neither reads nor writes a {other}"
            )));
        }
    };
    Ok(match read {
        Ok(fields) => valid(vec![("fields", map(fields))]),
        Err(MalformedObject) => invalid("malformed"),
    })
}

/// A body of a kind that the engine writes.
fn write(kind: &str, case: &Value) -> Result<Option<Vec<u8>>, Error> {
    if !matches!(
        kind,
        "join request"
            | "poll request"
            | "repair request"
            | "follow request"
            | "loss report"
            | "wanted request"
    ) {
        return Ok(None);
    }
    let fields = case.get("fields")?;
    let stream = || {
        let channel = ChannelId(fields.fixed("channel")?);
        Ok((channel, StreamId(fields.fixed("stream")?)))
    };
    Ok(Some(match kind {
        "join request" => messages::join_request(fields.text("role")?),
        "poll request" => messages::poll_request(fields.number("counter")?, None),
        "repair request" => {
            let (channel, stream) = stream()?;
            let ranges: Result<Vec<_>, _> = fields.list("ranges")?.iter().map(range).collect();
            messages::repair_request(&channel, &stream, &ranges?)
        }
        "follow request" => {
            let (channel, stream) = stream()?;
            messages::follow_request(&channel, &stream, fields.number("from")?)
        }
        "loss report" => {
            let (channel, stream) = stream()?;
            messages::loss_report(
                &channel,
                &stream,
                (fields.number("lost")?, fields.number("sent")?),
            )
        }
        _ => {
            let (channel, stream) = stream()?;
            let packets: Vec<Datagram> = fields
                .all_bytes("packets")?
                .into_iter()
                .map(Datagram::from)
                .collect();
            let head = fields.find("head").map(Value::as_bytes).transpose()?;
            let taken = match fields.find("taken") {
                Some(_) => fields.list("taken")?.iter().map(Value::as_number).collect(),
                None => Ok(Vec::new()),
            };
            let brought = (&packets[..], fields.number("oldest")?, head.as_deref());
            messages::wanted_request(&channel, &stream, fields.number("number")?, brought, &taken?)
        }
    }))
}

fn range(range: &Value) -> Result<(u64, u64), Error> {
    match range.as_list()? {
        [first, last] => Ok((first.as_number()?, last.as_number()?)),
        _ => Err(Error::case("a range has two ends")),
    }
}

fn pair(first: impl Into<Value>, second: impl Into<Value>) -> Value {
    Value::List(vec![first.into(), second.into()])
}

fn keys_fields(keys: &KeysReply<'_>) -> Fields {
    let slots = keys.slots.iter();
    let secret = keys.secret.as_ref().map(|secret| hex(secret.expose()));
    let mut fields = vec![
        ("beacon", hex(keys.beacon)),
        (
            "slots",
            slots
                .map(|(slot, secret)| pair(*slot, hex(secret.expose())))
                .collect(),
        ),
        (
            "generation",
            Value::List(vec![keys.generation.into(), keys.step.into(), secret.into()]),
        ),
        ("time", keys.time.into()),
    ];
    // A reply may leave the field out, which says the same.
    if !keys.earlier.is_empty() {
        let earlier = keys.earlier.iter().map(|(generation, secret, beacon)| {
            Value::List(vec![(*generation).into(), hex(secret.expose()), hex(beacon)])
        });
        fields.push(("earlier", earlier.collect()));
    }
    fields
}

fn join_fields(join: &JoinReply<'_>) -> Fields {
    let mut fields = keys_fields(&join.keys);
    fields.extend([
        ("policy", hex(join.policy)),
        ("crl", hex(join.crl)),
        ("key-server", hex(join.key_server)),
        (
            "streams",
            join.directory.streams.iter().map(stream_fields).collect(),
        ),
    ]);
    fields
}

fn stream_fields(entry: &StreamEntry<'_>) -> Value {
    map(vec![
        ("stream", hex(&entry.stream.0)),
        ("device", entry.device.into()),
        ("instance", entry.instance.into()),
        ("credential", hex(entry.bundle)),
        ("head", entry.head.map(hex).into()),
        (
            "endpoint",
            entry.endpoint.map(|(host, port)| pair(host, port)).into(),
        ),
    ])
}

fn repair_fields(repair: &RepairReply<'_>) -> Fields {
    vec![
        (
            "packets",
            repair.packets.iter().map(|packet| hex(packet)).collect(),
        ),
        ("oldest", repair.oldest.into()),
        ("head", repair.head.map(hex).into()),
    ]
}

fn wanted_fields(wanted: &WantedReply<'_>) -> Fields {
    let mut fields = vec![
        ("number", wanted.number.into()),
        (
            "ranges",
            wanted
                .ranges
                .iter()
                .map(|&(first, last)| pair(first, last))
                .collect(),
        ),
    ];
    if !wanted.reports.is_empty() {
        let reports = wanted
            .reports
            .iter()
            .map(|&(mark, device, report)| Value::List(vec![mark.into(), device.into(), hex(report)]));
        fields.push(("reports", reports.collect()));
    }
    fields
}
