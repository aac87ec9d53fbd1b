//! Signed objects and strict CBOR: what a certificate's key vouches for beside certificates.
//!
//! Spec: trust.md TR-10; spec/README.md (deterministic encoding).

use minicbor::{Decoder, Encoder, data::Type};

use crate::block::sign_input;
use crate::validator::Certificate;

pub const CREDENTIAL_CONTEXT: &str = "sealcast/1 stream credential";
pub const POLICY_CONTEXT: &str = "sealcast/1 policy";

/// A structure that is not what the specification says, or not deterministically encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedObject;

impl From<minicbor::decode::Error> for MalformedObject {
    fn from(_: minicbor::decode::Error) -> Self {
        Self
    }
}

/// Writes deterministic CBOR into memory, where writing cannot fail.
#[derive(Debug)]
pub struct CborWriter(Encoder<Vec<u8>>);

impl Default for CborWriter {
    fn default() -> Self {
        Self(Encoder::new(Vec::new()))
    }
}

const IN_MEMORY: &str = "writing to memory does not fail";

impl CborWriter {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn array(mut self, len: usize) -> Self {
        self.0.array(len as u64).expect(IN_MEMORY);
        self
    }

    pub fn map(mut self, len: usize) -> Self {
        self.0.map(len as u64).expect(IN_MEMORY);
        self
    }

    pub fn uint(mut self, value: u64) -> Self {
        self.0.u64(value).expect(IN_MEMORY);
        self
    }

    pub fn bytes(mut self, value: &[u8]) -> Self {
        self.0.bytes(value).expect(IN_MEMORY);
        self
    }

    pub fn text(mut self, value: &str) -> Self {
        self.0.str(value).expect(IN_MEMORY);
        self
    }

    pub fn null(mut self) -> Self {
        self.0.null().expect(IN_MEMORY);
        self
    }

    pub fn optional_bytes(self, value: Option<&[u8]>) -> Self {
        match value {
            Some(value) => self.bytes(value),
            None => self.null(),
        }
    }

    pub fn finish(self) -> Vec<u8> {
        self.0.into_writer()
    }
}

/// Reads CBOR item by item, definite lengths only.
#[derive(Debug)]
pub struct CborReader<'a>(Decoder<'a>);

impl<'a> CborReader<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self(Decoder::new(data))
    }

    pub fn array(&mut self) -> Result<usize, MalformedObject> {
        usize::try_from(self.0.array()?.ok_or(MalformedObject)?).map_err(|_| MalformedObject)
    }

    pub fn array_of(&mut self, len: usize) -> Result<(), MalformedObject> {
        if self.array()? == len {
            Ok(())
        } else {
            Err(MalformedObject)
        }
    }

    pub fn map(&mut self) -> Result<usize, MalformedObject> {
        usize::try_from(self.0.map()?.ok_or(MalformedObject)?).map_err(|_| MalformedObject)
    }

    pub fn uint(&mut self) -> Result<u64, MalformedObject> {
        Ok(self.0.u64()?)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], MalformedObject> {
        Ok(self.0.bytes()?)
    }

    pub fn text(&mut self) -> Result<&'a str, MalformedObject> {
        Ok(self.0.str()?)
    }

    pub fn skip(&mut self) -> Result<(), MalformedObject> {
        Ok(self.0.skip()?)
    }

    /// `None` for null, else what `read` takes.
    pub fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, MalformedObject>,
    ) -> Result<Option<T>, MalformedObject> {
        if self.0.datatype()? == Type::Null {
            self.0.null()?;
            return Ok(None);
        }
        read(self).map(Some)
    }

    /// An array of at most `max` items.
    pub fn list<T>(
        &mut self,
        max: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, MalformedObject>,
    ) -> Result<Vec<T>, MalformedObject> {
        let len = self.array()?;
        if len > max {
            return Err(MalformedObject);
        }
        // No capacity from the claimed length: memory follows what is really there.
        let mut items = Vec::new();
        for _ in 0..len {
            items.push(read(self)?);
        }
        Ok(items)
    }

    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], MalformedObject> {
        self.bytes()?.try_into().map_err(|_| MalformedObject)
    }

    pub fn end(&self) -> Result<(), MalformedObject> {
        if self.0.position() == self.0.input().len() {
            Ok(())
        } else {
            Err(MalformedObject)
        }
    }
}

/// `[tbs, algorithm, signature]` of TR-10, not yet verified.
#[derive(Clone, Copy, Debug)]
pub struct SignedObject<'a> {
    pub tbs: &'a [u8],
    pub algorithm: u64,
    pub signature: &'a [u8],
}

impl<'a> SignedObject<'a> {
    pub fn parse(data: &'a [u8]) -> Result<Self, MalformedObject> {
        let mut reader = CborReader::new(data);
        reader.array_of(3)?;
        let object = Self {
            tbs: reader.bytes()?,
            algorithm: reader.uint()?,
            signature: reader.bytes()?,
        };
        reader.end()?;
        if object.encode() == data {
            Ok(object)
        } else {
            Err(MalformedObject)
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        CborWriter::new()
            .array(3)
            .bytes(self.tbs)
            .uint(self.algorithm)
            .bytes(self.signature)
            .finish()
    }

    /// The signed bytes, if `signer`'s key made the signature for this use.
    pub fn verify(&self, context: &str, signer: &Certificate) -> Option<&'a [u8]> {
        signer
            .verifies(self.algorithm, &sign_input(context, self.tbs), self.signature)
            .then_some(self.tbs)
    }
}
