//! Where this kernel has the fields of its structures, read from its own type information (BTF).
//!
//! aya reads BTF too, but tells nothing of members. Layout: Documentation/bpf/btf.rst.

use std::fs;
use std::io;

/// Where the kernel shows its type information.
const KERNEL: &str = "/sys/kernel/btf/vmlinux";
/// First bytes of BTF of this machine's byte order.
const MAGIC: u16 = 0xeb9f;
/// Bytes of a type before what its kind adds.
const TYPE: usize = 12;
/// Bytes of a member of a structure.
const MEMBER: usize = 12;

/// `BTF_KIND_STRUCT` and `BTF_KIND_UNION`.
const STRUCT: u32 = 4;
const UNION: u32 = 5;
/// Structures within structures that are looked into.
const DEEPEST: u32 = 8;

/// The kernel's types.
pub(super) struct Types {
    bytes: Vec<u8>,
    strings: usize,
    /// Where each type begins; the type 0 is none.
    at: Vec<usize>,
}

impl Types {
    /// Those of the running kernel.
    pub(super) fn of_kernel() -> io::Result<Self> {
        Self::read(fs::read(KERNEL)?).ok_or_else(|| {
            let problem = format!("{KERNEL} holds types that cannot be read");
            io::Error::new(io::ErrorKind::InvalidData, problem)
        })
    }

    fn read(bytes: Vec<u8>) -> Option<Self> {
        if u16_at(&bytes, 0)? != MAGIC {
            return None;
        }
        let header = index(u32_at(&bytes, 4)?)?;
        let first = header.checked_add(index(u32_at(&bytes, 8)?)?)?;
        let end = first.checked_add(index(u32_at(&bytes, 12)?)?)?;
        let strings = header.checked_add(index(u32_at(&bytes, 16)?)?)?;
        let mut types = Self { bytes, strings, at: vec![0] };
        let mut next = first;
        while next < end {
            types.at.push(next);
            let more = extra(types.kind(next)?, types.members(next)?)?;
            next = next.checked_add(TYPE + more)?;
        }
        Some(types)
    }

    /// Offset in bytes of a member of a structure, wherever in it unnamed ones it stands.
    pub(super) fn offset(&self, structure: &str, member: &str) -> Option<u32> {
        self.bit(structure, member).map(|bit| bit / 8)
    }

    /// The same in bits, for a member that is one.
    pub(super) fn bit(&self, structure: &str, member: &str) -> Option<u32> {
        self.at.iter().skip(1).copied().find_map(|at| {
            if self.kind(at)? != STRUCT || self.name(at)? != structure.as_bytes() {
                return None;
            }
            // A declaration of the same name has no members.
            self.offset_in(at, member.as_bytes(), 0)
        })
    }

    fn offset_in(&self, at: usize, wanted: &[u8], depth: u32) -> Option<u32> {
        let bit_fields = self.info(at)? >> 31 == 1;
        (0..self.members(at)?).find_map(|number| {
            let member = at + TYPE + number * MEMBER;
            let of = u32_at(&self.bytes, member + 4)?;
            let bits = u32_at(&self.bytes, member + 8)?;
            let bits = if bit_fields { bits & 0x00ff_ffff } else { bits };
            let name = self.name(member)?;
            if name == wanted {
                return Some(bits);
            }
            if !name.is_empty() || depth >= DEEPEST {
                return None;
            }
            let inner = *self.at.get(index(of)?)?;
            matches!(self.kind(inner)?, STRUCT | UNION)
                .then(|| self.offset_in(inner, wanted, depth + 1))?
                .and_then(|within| within.checked_add(bits))
        })
    }

    fn info(&self, at: usize) -> Option<u32> {
        u32_at(&self.bytes, at + 4)
    }

    fn kind(&self, at: usize) -> Option<u32> {
        Some(self.info(at)? >> 24 & 0x1f)
    }

    fn members(&self, at: usize) -> Option<usize> {
        index(self.info(at)? & 0xffff)
    }

    fn name(&self, at: usize) -> Option<&[u8]> {
        let from = self.strings.checked_add(index(u32_at(&self.bytes, at)?)?)?;
        let rest = self.bytes.get(from..)?;
        rest.get(..rest.iter().position(|byte| *byte == 0)?)
    }
}

/// What follows a type's first bytes, by its kind; `None` for a kind that is not known: then nothing
/// behind it can be found.
const fn extra(kind: u32, members: usize) -> Option<usize> {
    match kind {
        // Pointer, forward, typedef, volatile, const, restrict, function, float, type tag.
        2 | 7..=12 | 16 | 18 => Some(0),
        // Integer, variable's linkage, tag of a declaration.
        1 | 14 | 17 => Some(4),
        // Array.
        3 => Some(12),
        STRUCT | UNION => Some(members * MEMBER),
        // Enumeration, parameters of a function.
        6 | 13 => Some(members * 8),
        // Section, enumeration of 64 bits.
        15 | 19 => Some(members * 12),
        _ => None,
    }
}

fn index(number: u32) -> Option<usize> {
    usize::try_from(number).ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(value: u32) -> [u8; 4] {
        value.to_ne_bytes()
    }

    /// An integer, `struct outer { int a; struct { int b; int c; }; }` and the unnamed structure in it.
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0outer\0a\0b\0c\0";
        let types: Vec<u32> = [
            &[1, 1 << 24, 4, 32][..],
            &[0, 4 << 24 | 2, 8, 13, 1, 0, 15, 1, 32],
            &[5, 4 << 24 | 2, 16, 11, 1, 0, 0, 2, 64],
        ]
        .concat();
        let length = u32::try_from(types.len() * 4).unwrap();
        let mut bytes = Vec::new();
        bytes.extend(MAGIC.to_ne_bytes());
        bytes.extend([1, 0]);
        for value in [24, 0, length, length, u32::try_from(strings.len()).unwrap()] {
            bytes.extend(word(value));
        }
        types.iter().for_each(|value| bytes.extend(word(*value)));
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn a_member_is_found_also_inside_an_unnamed_structure() {
        let types = Types::read(sample()).unwrap();
        assert_eq!(types.offset("outer", "a"), Some(0));
        assert_eq!(types.offset("outer", "c"), Some(12));
        assert_eq!(types.offset("outer", "d"), None);
        assert_eq!(types.offset("other", "a"), None);
    }

    #[test]
    fn types_that_are_cut_off_or_of_another_byte_order_are_refused() {
        let whole = sample();
        assert!(Types::read(whole.iter().copied().rev().collect()).is_none());
        for length in 0..whole.len() - 18 {
            let cut = whole.get(..length).map(<[u8]>::to_vec).unwrap_or_default();
            let found = Types::read(cut).and_then(|types| types.offset("outer", "c"));
            assert_eq!(found, None, "{length} bytes");
        }
    }
}
