//! Values as the files of vectors/ have them, written in CBOR: bytes are text in hexadecimal there and here.

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

use crate::{Error, Fields};

/// No file nests deeper; a case that does would only cost stack.
const MAX_DEPTH: u32 = 8;

/// What JSON has, but for negative numbers and fractions, of which the files have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Uint(u64),
    Text(String),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

impl Value {
    pub(crate) fn parse(data: &[u8]) -> Result<Self, Error> {
        let mut decoder = Decoder::new(data);
        let value = read(&mut decoder, MAX_DEPTH)?;
        match data.len() - decoder.position() {
            0 => Ok(value),
            more => Err(Error::case(format!("{more} bytes are left behind its CBOR"))),
        }
    }

    pub(crate) fn serialize(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        write(self, &mut encoder).expect("writing to memory does not fail");
        encoder.into_writer()
    }

    // -- fields -------------------------------------------------------------------------------------------------------

    /// `None`: it is not there, or is null.
    pub(crate) fn find(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Map(fields) => fields.iter().find(|(field, _)| field == name),
            _ => None,
        }
        .map(|(_, value)| value)
        .filter(|value| **value != Self::Null)
    }

    pub(crate) fn get(&self, name: &str) -> Result<&Self, Error> {
        self.find(name)
            .ok_or_else(|| Error::case(format!("'{name}' is missing")))
    }

    pub(crate) fn text(&self, name: &str) -> Result<&str, Error> {
        self.get(name)?.as_text().map_err(|error| error.at(name))
    }

    /// A number that fits `T`.
    pub(crate) fn number<T: TryFrom<u64>>(&self, name: &str) -> Result<T, Error> {
        self.get(name)?.as_number().map_err(|error| error.at(name))
    }

    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.find(name) == Some(&Self::Bool(true))
    }

    pub(crate) fn bytes(&self, name: &str) -> Result<Vec<u8>, Error> {
        self.get(name)?.as_bytes().map_err(|error| error.at(name))
    }

    pub(crate) fn fixed<const N: usize>(&self, name: &str) -> Result<[u8; N], Error> {
        self.get(name)?.as_fixed().map_err(|error| error.at(name))
    }

    pub(crate) fn list(&self, name: &str) -> Result<&[Self], Error> {
        self.get(name)?.as_list().map_err(|error| error.at(name))
    }

    /// A list of byte strings.
    pub(crate) fn all_bytes(&self, name: &str) -> Result<Vec<Vec<u8>>, Error> {
        let items = self.list(name)?.iter();
        items
            .map(|item| item.as_bytes().map_err(|error| error.at(name)))
            .collect()
    }

    // -- items --------------------------------------------------------------------------------------------------------

    fn as_text(&self) -> Result<&str, Error> {
        match self {
            Self::Text(text) => Ok(text),
            _ => Err(Error::case("no text")),
        }
    }

    pub(crate) fn as_number<T: TryFrom<u64>>(&self) -> Result<T, Error> {
        let Self::Uint(number) = self else {
            return Err(Error::case("no number"));
        };
        T::try_from(*number).map_err(|_| Error::case(format!("{number} is too large")))
    }

    pub(crate) fn as_list(&self) -> Result<&[Self], Error> {
        match self {
            Self::List(items) => Ok(items),
            _ => Err(Error::case("no list")),
        }
    }

    pub(crate) fn as_bytes(&self) -> Result<Vec<u8>, Error> {
        let text = self.as_text()?;
        let digit = |digit: u8| char::from(digit).to_digit(16);
        let byte = |pair: &[u8]| match *pair {
            [high, low] => Some((digit(high)? << 4 | digit(low)?) as u8),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        bytes.ok_or_else(|| Error::case("no bytes in hexadecimal"))
    }

    fn as_fixed<const N: usize>(&self) -> Result<[u8; N], Error> {
        let bytes = self.as_bytes()?;
        let length = bytes.len();
        bytes
            .try_into()
            .map_err(|_| Error::case(format!("{length} bytes, not {N}")))
    }
}

/// Bytes as the files write them.
pub(crate) fn hex(bytes: &[u8]) -> Value {
    Value::Text(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

pub(crate) fn map(fields: Fields) -> Value {
    let named = fields.into_iter().map(|(name, value)| (name.to_owned(), value));
    Value::Map(named.collect())
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u8> for Value {
    fn from(value: u8) -> Self {
        Self::Uint(value.into())
    }
}

impl From<u16> for Value {
    fn from(value: u16) -> Self {
        Self::Uint(value.into())
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Uint(value.into())
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Uint(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, T::into)
    }
}

impl FromIterator<Value> for Value {
    fn from_iter<I: IntoIterator<Item = Self>>(items: I) -> Self {
        Self::List(items.into_iter().collect())
    }
}

// -- CBOR -------------------------------------------------------------------------------------------------------------

fn read(decoder: &mut Decoder<'_>, depth: u32) -> Result<Value, Error> {
    let at = decoder.position();
    let broken = |error: minicbor::decode::Error| Error::case(format!("no CBOR at byte {at}: {error}"));
    let refused = |what: &str| Error::case(format!("{what} at byte {at}"));
    let kind = decoder.datatype().map_err(broken)?;
    Ok(match kind {
        Type::Null => {
            decoder.null().map_err(broken)?;
            Value::Null
        }
        Type::Bool => Value::Bool(decoder.bool().map_err(broken)?),
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => Value::Uint(decoder.u64().map_err(broken)?),
        Type::String => Value::Text(decoder.str().map_err(broken)?.to_owned()),
        Type::Array | Type::Map if depth == 0 => return Err(refused("too deep a nesting")),
        Type::Array => {
            let count = decoder.array().map_err(broken)?.unwrap_or_default();
            // No capacity from the claimed length: memory follows what is really there.
            let mut items = Vec::new();
            for _ in 0..count {
                items.push(read(decoder, depth - 1)?);
            }
            Value::List(items)
        }
        Type::Map => {
            let count = decoder.map().map_err(broken)?.unwrap_or_default();
            let mut fields: Vec<(String, Value)> = Vec::new();
            for _ in 0..count {
                let name = decoder.str().map_err(broken)?.to_owned();
                if fields.iter().any(|(field, _)| *field == name) {
                    return Err(refused(&format!("'{name}' twice in the map")));
                }
                fields.push((name, read(decoder, depth - 1)?));
            }
            Value::Map(fields)
        }
        other => return Err(refused(&format!("{other}, which no case has,"))),
    })
}

type Written = Result<(), minicbor::encode::Error<core::convert::Infallible>>;

fn write(value: &Value, encoder: &mut Encoder<Vec<u8>>) -> Written {
    match value {
        Value::Null => encoder.null()?,
        Value::Bool(value) => encoder.bool(*value)?,
        Value::Uint(value) => encoder.u64(*value)?,
        Value::Text(value) => encoder.str(value)?,
        Value::List(items) => {
            encoder.array(items.len() as u64)?;
            return items.iter().try_for_each(|item| write(item, encoder));
        }
        Value::Map(fields) => {
            encoder.map(fields.len() as u64)?;
            return fields.iter().try_for_each(|(name, value)| {
                encoder.str(name)?;
                write(value, encoder)
            });
        }
    };
    Ok(())
}
