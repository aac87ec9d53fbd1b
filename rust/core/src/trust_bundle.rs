//! A trust bundle as a device holds it: the roots that it believes in, and the site CAs that help to build paths.
//!
//! Whoever stores one has walked to it (TR-18, TR-19); here it is only read. Spec: trust.md TR-16, TR-21.

use crate::crypto::sha256;
use crate::signed::{CborReader, MalformedObject};
use crate::validator::{Certificate, Root, Validator};
use crate::wire::{SiteId, Time};

const FORMAT: u64 = 1;
const MAX_BYTES: usize = 1 << 20;
const MAX_ENTRIES: usize = 4096;
/// Of anchors: the first enrolment of a device, and nothing else (registry.md).
const MAKER: u64 = 2;
const PURPOSES: core::ops::RangeInclusive<u64> = 1..=3;

#[derive(Debug)]
struct Anchor {
    certificate: Vec<u8>,
    purpose: u64,
    since: Time,
    sites: Vec<SiteId>,
}

#[derive(Debug)]
struct Site {
    id: SiteId,
    authorities: Vec<Vec<u8>>,
}

/// What one version says.
#[derive(Debug)]
pub struct TrustBundle {
    /// SHA-256 of the signed object.
    pub hash: [u8; 32],
    pub version: u64,
    pub issued: Time,
    anchors: Vec<Anchor>,
    sites: Vec<Site>,
}

impl TrustBundle {
    /// Reads a signed bundle whose signatures were verified when it was stored.
    pub fn parse_stored(signed: &[u8]) -> Result<Self, MalformedObject> {
        if signed.len() > MAX_BYTES {
            return Err(MalformedObject);
        }
        let mut outer = CborReader::new(signed);
        outer.array_of(2)?;
        let tbs = outer.bytes()?;
        outer.skip()?;
        outer.end()?;
        let mut reader = CborReader::new(tbs);
        reader.array_of(7)?;
        if reader.uint()? != FORMAT {
            return Err(MalformedObject);
        }
        let version = reader.uint()?;
        reader.optional(CborReader::fixed::<32>)?;
        let issued = reader.uint()?;
        reader.uint()?;
        let anchors = reader.list(MAX_ENTRIES, read_anchor)?;
        let sites = reader.list(MAX_ENTRIES, read_site)?;
        reader.end()?;
        Ok(Self {
            hash: sha256(&[signed]),
            version,
            issued,
            anchors,
            sites,
        })
    }

    /// What peers are judged by at a time (TR-21). `None`: a certificate does not parse, or is no CA's.
    pub fn validator(&self, now: Time) -> Option<Validator> {
        let everywhere: Vec<SiteId> = self.sites.iter().map(|site| site.id).collect();
        let mut roots: Vec<Root<'_>> = self
            .vouching()
            .filter(|anchor| anchor.since <= now)
            .map(|anchor| Root {
                der: &anchor.certificate,
                sites: if anchor.sites.is_empty() {
                    &everywhere
                } else {
                    &anchor.sites
                },
            })
            .collect();
        for site in &self.sites {
            let itself = site.authorities.iter().filter(|der| {
                Certificate::parse(der).is_some_and(|certificate| certificate.is_self_signed())
            });
            roots.extend(itself.map(|der| Root {
                der,
                sites: core::slice::from_ref(&site.id),
            }));
        }
        let authorities: Vec<&[u8]> = self.authorities().collect();
        Validator::scoped(&roots, &authorities)
    }

    /// The roots that vouch for sites, DER.
    pub fn roots(&self) -> impl Iterator<Item = &[u8]> {
        self.vouching().map(|anchor| &anchor.certificate[..])
    }

    /// The site CA certificates of every site, DER.
    pub fn authorities(&self) -> impl Iterator<Item = &[u8]> {
        self.sites
            .iter()
            .flat_map(|site| site.authorities.iter().map(Vec::as_slice))
    }

    fn vouching(&self) -> impl Iterator<Item = &Anchor> {
        self.anchors.iter().filter(|anchor| anchor.purpose != MAKER)
    }
}

fn read_anchor(reader: &mut CborReader<'_>) -> Result<Anchor, MalformedObject> {
    reader.array_of(4)?;
    let anchor = Anchor {
        certificate: reader.bytes()?.to_vec(),
        purpose: reader.uint()?,
        since: reader.uint()?,
        sites: reader.list(MAX_ENTRIES, |reader| reader.fixed().map(SiteId))?,
    };
    if PURPOSES.contains(&anchor.purpose) {
        Ok(anchor)
    } else {
        Err(MalformedObject)
    }
}

fn read_site(reader: &mut CborReader<'_>) -> Result<Site, MalformedObject> {
    reader.array_of(4)?;
    let id = SiteId(reader.fixed()?);
    reader.text()?;
    reader.uint()?;
    Ok(Site {
        id,
        authorities: reader.list(MAX_ENTRIES, |reader| reader.bytes().map(<[u8]>::to_vec))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signed::CborWriter;

    fn signed(version: u64, purpose: u64) -> Vec<u8> {
        let tbs = CborWriter::new()
            .array(7)
            .uint(FORMAT)
            .uint(version)
            .null()
            .uint(5)
            .uint(1)
            .array(1)
            .array(4)
            .bytes(b"a certificate")
            .uint(purpose)
            .uint(0)
            .array(0)
            .array(1)
            .array(4)
            .bytes(&[7; 16])
            .text("Ward")
            .uint(0)
            .array(1)
            .bytes(b"a site CA")
            .finish();
        CborWriter::new().array(2).bytes(&tbs).array(0).finish()
    }

    #[test]
    fn a_stored_bundle_is_read() {
        let bundle = TrustBundle::parse_stored(&signed(3, 1)).unwrap();
        assert_eq!((bundle.version, bundle.issued), (3, 5));
        assert_eq!(bundle.roots().collect::<Vec<_>>(), [b"a certificate"]);
        assert_eq!(bundle.authorities().collect::<Vec<_>>(), [b"a site CA"]);
        assert!(bundle.validator(9).is_none(), "these are no certificates");
    }

    #[test]
    fn a_maker_vouches_for_no_site_and_what_is_damaged_for_nothing() {
        let makers = TrustBundle::parse_stored(&signed(1, MAKER)).unwrap();
        assert_eq!(makers.roots().count(), 0);
        assert!(TrustBundle::parse_stored(&signed(1, 9)).is_err());
        let whole = signed(1, 1);
        for length in 0..whole.len() {
            assert!(TrustBundle::parse_stored(&whole[..length]).is_err());
        }
    }
}
