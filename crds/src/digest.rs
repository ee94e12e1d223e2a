use std::{
    collections::BTreeMap,
    fmt,
    ops::{BitXor, BitXorAssign},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_128;

/// A 128-bit digest that identifies the state of one object or of a set of
/// objects. The digest of an object is a hash over its uid, generation and
/// labels. The digest of a set is the XOR of its members' digests, so the order
/// of the members does not matter. The text form of a digest has 32 hexadecimal
/// digits.
#[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Digest(u128);

impl Digest {
    /// Computes the digest of one object.
    ///
    /// The hash covers the length of each text and then the text itself. So a
    /// character that moves from one text to the next changes the hashed bytes.
    /// The digest is the same on every machine and in every version, because
    /// the controller compares its digests with the directors' digests.
    pub fn of(uid: &str, generation: i64, labels: &BTreeMap<String, String>) -> Self {
        let mut bytes = Vec::with_capacity(128);
        push(&mut bytes, uid);
        bytes.extend_from_slice(&generation.to_le_bytes());
        for (key, value) in labels {
            push(&mut bytes, key);
            push(&mut bytes, value);
        }
        Self(xxh3_128(&bytes))
    }
}

fn push(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

impl BitXor for Digest {
    type Output = Self;

    fn bitxor(self, other: Self) -> Self {
        Self(self.0 ^ other.0)
    }
}

impl BitXorAssign for Digest {
    fn bitxor_assign(&mut self, other: Self) {
        self.0 ^= other.0;
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The error for a text that is not a [`Digest`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("a digest has 32 hexadecimal digits, this is {0:?}")]
pub struct ParseDigestError(String);

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseDigestError(text.to_owned());
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| wrong())
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_digest_reads_back_from_its_text() {
        let digest = Digest::of("uid", 3, &labels(&[("app", "web")]));
        let text = digest.to_string();
        assert_eq!(text.len(), 32);
        assert_eq!(text.parse(), Ok(digest));
        assert_eq!(
            serde_json::from_str::<Digest>(&serde_json::to_string(&digest).unwrap()).unwrap(),
            digest
        );
    }

    #[test]
    fn other_texts_are_no_digests() {
        for text in [
            "",
            "12",
            "+1234567890123456789012345678901",
            &"g".repeat(32),
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text:?}");
        }
    }

    /// Directors and controllers of different versions compare digests, so the
    /// digest of an object must never change.
    #[test]
    fn a_digest_never_changes_its_meaning() {
        assert_eq!(
            Digest::of("0a1b", 7, &labels(&[("app", "web"), ("zone", "a")])).to_string(),
            "0f4d3a875f12e20225a210d5538a3f07"
        );
    }

    #[test]
    fn every_part_counts() {
        let base = Digest::of("u", 1, &labels(&[("a", "b")]));
        for other in [
            Digest::of("v", 1, &labels(&[("a", "b")])),
            Digest::of("u", 2, &labels(&[("a", "b")])),
            Digest::of("u", 1, &labels(&[("a", "c")])),
            Digest::of("u", 1, &labels(&[("ab", "")])),
            Digest::of("u", 1, &labels(&[])),
        ] {
            assert_ne!(base, other);
        }
    }
}
