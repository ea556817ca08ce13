//! Tars built block by block, right and wrong, for tests.

use super::write::{END_OF_ARCHIVE, padding};

/// One header that a test can get wrong in any field.
#[derive(Clone)]
pub(crate) struct RawHeader {
    pub(crate) block: [u8; 512],
}

impl RawHeader {
    pub(crate) fn new(flag: u8, name: &[u8], size: u64) -> RawHeader {
        let mut block = [0; 512];
        block[..name.len()].copy_from_slice(name);
        block[100..108].copy_from_slice(b"0000644\0");
        block[136..148].copy_from_slice(b"00000000007\0");
        block[156] = flag;
        block[257..265].copy_from_slice(b"ustar\x0000");
        RawHeader { block }.field(124, format!("{size:011o}\0").as_bytes())
    }

    pub(crate) fn field(mut self, at: usize, bytes: &[u8]) -> RawHeader {
        self.block[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(crate) fn link(self, target: &str) -> RawHeader {
        self.field(157, target.as_bytes())
    }

    /// The block with its checksum.
    pub(crate) fn finish(mut self) -> [u8; 512] {
        self.block[148..156].fill(b' ');
        let sum: u32 = self.block.iter().map(|&b| u32::from(b)).sum();
        self.block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.block
    }
}

/// A tar that grows.
#[derive(Clone, Default)]
pub(crate) struct RawTar(pub(crate) Vec<u8>);

impl RawTar {
    pub(crate) fn new() -> RawTar {
        RawTar::default()
    }

    pub(crate) fn header(mut self, header: RawHeader) -> RawTar {
        self.0.extend(header.finish());
        self
    }

    /// Data and their padding.
    pub(crate) fn data(mut self, data: &[u8]) -> RawTar {
        self.0.extend(data);
        self.0.resize(self.0.len() + padding(data.len() as u64), 0);
        self
    }

    pub(crate) fn entry(self, flag: u8, name: &str, data: &[u8]) -> RawTar {
        self.header(RawHeader::new(flag, name.as_bytes(), data.len() as u64))
            .data(data)
    }

    pub(crate) fn file(self, name: &str, data: &[u8]) -> RawTar {
        self.entry(b'0', name, data)
    }

    pub(crate) fn link(self, flag: u8, name: &str, target: &str) -> RawTar {
        self.header(RawHeader::new(flag, name.as_bytes(), 0).link(target))
    }

    /// A pax header with these records.
    pub(crate) fn pax(self, flag: u8, records: &[(&str, &str)]) -> RawTar {
        let data: String = records.iter().map(|(k, v)| record(k, v)).collect();
        self.entry(flag, "././@PaxHeader", data.as_bytes())
    }

    /// The archive with its end.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.extend(END_OF_ARCHIVE);
        self.0
    }
}

/// One pax record.
pub(crate) fn record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let length = (rest..).find(|n| rest + n.to_string().len() == *n);
    format!("{} {key}={value}\n", length.unwrap_or_default())
}
