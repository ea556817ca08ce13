//! Mutators: changes that look like the ones an attacker would try, drawn from a seed.
//!
//! Each takes any bytes, also such as it has made itself.

use super::Random;
use super::forge::{BLOCK, Layout, digest};
use serde_json::{Value, json};

/// Numbers at which bounds lie.
const INTERESTING: [u64; 16] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x1ff,
    0x7fff,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// Inputs do not grow beyond this.
const MOST_BYTES: usize = 2 << 20;

/// Applies a mutator as libFuzzer wants it: to the first `size` bytes of a buffer of `most`; returns
/// the new size.
pub fn in_place(
    mutate: fn(&mut Vec<u8>, &mut Random),
    buffer: &mut [u8],
    size: usize,
    most: usize,
    seed: u32,
) -> usize {
    let mut data = buffer[..size].to_vec();
    mutate(&mut data, &mut Random::new(u64::from(seed), 0));
    data.truncate(most);
    buffer[..data.len()].copy_from_slice(&data);
    data.len()
}

/// Any format: bits, bytes, numbers, pieces.
pub fn bytes(data: &mut Vec<u8>, random: &mut Random) {
    if data.is_empty() {
        data.push(random.next() as u8);
        return;
    }
    let at = place(data.len(), random);
    let end = (at + 1 + random.length(10)).min(data.len());
    match random.below(12) {
        0..=2 => data[at] ^= 1 << random.below(8),
        3 => data[at] = random.next() as u8,
        4 => data[at] = data[at].wrapping_add([1, 255, 16, 240][random.below(4)]),
        5 => {
            let number =
                INTERESTING[random.below(16)].wrapping_add([0, 1, u64::MAX][random.below(3)]);
            let width = 1 << random.below(4);
            let little = number.to_le_bytes();
            let big = number.to_be_bytes();
            let number = if random.below(2) == 0 {
                &little[..width]
            } else {
                &big[8 - width..]
            };
            let room = width.min(data.len() - at);
            data[at..at + room].copy_from_slice(&number[..room]);
        }
        6 => data.truncate(at),
        7 => drop(data.drain(at..end)),
        8 if data.len() < MOST_BYTES => {
            let piece = data[at..end].to_vec();
            let to = random.below(data.len() + 1);
            data.splice(to..to, piece);
        }
        9 => {
            let to = random.below(data.len() - (end - at) + 1);
            data.copy_within(at..end, to);
        }
        10 if data.len() < MOST_BYTES => {
            let piece = (at..end).map(|_| random.next() as u8).collect::<Vec<_>>();
            data.splice(at..at, piece);
        }
        _ => data[at..end].fill([0, 0xff, b'0', random.next() as u8][random.below(4)]),
    }
}

/// A place: often near the start, where headers are, or near the end, where trailers are.
fn place(len: usize, random: &mut Random) -> usize {
    match random.below(4) {
        0 => random.below(len.min(64)),
        1 => len - 1 - random.below(len.min(64)),
        _ => random.below(len),
    }
}

/// A tar: fields of headers, whole blocks; the checksums of most headers are right again afterwards.
pub fn tar(data: &mut Vec<u8>, random: &mut Random) {
    let blocks = data.len() / BLOCK;
    if blocks == 0 || random.below(4) == 0 {
        bytes(data, random);
    } else {
        let at = header(data, random).unwrap_or(random.below(blocks) * BLOCK);
        match random.below(8) {
            0 => drop(data.drain(at..at + BLOCK)),
            1 => {
                let other = random.below(blocks) * BLOCK;
                let block = data[other..other + BLOCK].to_vec();
                data.splice(at..at, block);
            }
            2 => {
                let other = random.below(blocks) * BLOCK;
                data.copy_within(other..other + BLOCK, at);
            }
            3 => data[at + 156] = b"0\0 1234567xgLKSNDVMIA"[random.below(21)],
            _ => field(&mut data[at..at + BLOCK], random),
        }
    }
    reseal(data, random);
}

/// A block of a tar that looks like a header.
fn header(data: &[u8], random: &mut Random) -> Option<usize> {
    let headers = || {
        let blocks = data.chunks_exact(BLOCK).enumerate();
        blocks
            .filter(|(_, block)| &block[257..262] == b"ustar")
            .map(|(number, _)| number * BLOCK)
    };
    let count = headers().count();
    headers().nth(random.below(count.max(1)))
}

/// Changes one field of a header.
fn field(block: &mut [u8], random: &mut Random) {
    const FIELDS: [(usize, usize); 12] = [
        (0, 100),
        (100, 8),
        (108, 8),
        (116, 8),
        (124, 12),
        (124, 12),
        (136, 12),
        (157, 100),
        (257, 8),
        (265, 32),
        (329, 16),
        (345, 155),
    ];
    let (start, len) = FIELDS[random.below(12)];
    let field = &mut block[start..start + len];
    match random.below(6) {
        0 => {
            let number = INTERESTING[random.below(16)];
            let text = format!("{number:0width$o}\0", width = len - 1);
            let text = &text.as_bytes()[text.len() - len.min(text.len())..];
            field[..text.len()].copy_from_slice(text);
        }
        1 => {
            field.fill([0, 0xff][random.below(2)]);
            field[0] = 0x80 | random.next() as u8;
            let number = INTERESTING[random.below(16)].to_be_bytes();
            if let Some(start) = len.checked_sub(8) {
                field[start..].copy_from_slice(&number);
            }
        }
        2 => field.fill(b" 0/.\0\xff"[random.below(6)]),
        3 => field.rotate_left(1),
        _ => field[random.below(len)] = b"01234567 /.\0-+x\x80"[random.below(16)],
    }
}

/// Makes most checksums right.
fn reseal(data: &mut [u8], random: &mut Random) {
    for block in data.chunks_exact_mut(BLOCK) {
        if &block[257..262] == b"ustar" && random.below(16) > 0 {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

/// The index of a layer behind a byte that says of which: most are whole again afterwards, as an
/// attacker who may write to the directory would have it.
pub fn index(data: &mut Vec<u8>, random: &mut Random) {
    use sha2::{Digest as _, Sha256};
    const TRAILER: usize = 32;
    bytes(data, random);
    if let Some(body) = data.len().checked_sub(TRAILER).filter(|body| *body > 0)
        && random.below(4) > 0
    {
        let digest = Sha256::digest(&data[1..body]);
        data[body..].copy_from_slice(&digest);
    }
}

/// A layer behind some bytes of options: as bytes, or, uncompressed, as a tar.
pub fn layer(data: &mut Vec<u8>, random: &mut Random) {
    let front = super::targets::layer::foreign_layer::OPTIONS.min(data.len());
    if random.below(2) == 0 {
        return bytes(data, random);
    }
    let mut blob = data.split_off(front);
    match repacked(&blob, random) {
        Some(changed) => blob = changed,
        None => tar(&mut blob, random),
    }
    data.append(&mut blob);
}

/// A compressed tar, changed inside and compressed again.
fn repacked(blob: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    use std::io::Read as _;
    let gzip = blob.starts_with(&[0x1f, 0x8b]);
    let mut inner = Vec::new();
    if gzip {
        let decoder = flate2::read::MultiGzDecoder::new(blob);
        decoder
            .take(MOST_BYTES as u64)
            .read_to_end(&mut inner)
            .ok()?;
    } else {
        let decoder = zstd::stream::read::Decoder::new(blob).ok()?;
        decoder
            .take(MOST_BYTES as u64)
            .read_to_end(&mut inner)
            .ok()?;
    }
    tar(&mut inner, random);
    let parts = 1 + random.below(3);
    let pieces = inner.chunks(inner.len() / parts + 1);
    Some(match gzip {
        true => pieces.flat_map(super::forge::gzip).collect(),
        false => pieces
            .flat_map(|piece| zstd::encode_all(piece, 1).unwrap_or_default())
            .collect(),
    })
}

/// A JSON document: values, keys and tokens.
pub fn json(data: &mut Vec<u8>, random: &mut Random) {
    if random.below(3) > 0
        && let Ok(mut value) = serde_json::from_slice(data)
    {
        for _ in 0..=random.below(2) {
            edit(&mut value, random);
        }
        *data = serde_json::to_vec(&value).unwrap_or_default();
        return;
    }
    const TOKENS: [&str; 20] = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "null",
        "true",
        "-1",
        "1e400",
        "0.5",
        "1.0",
        "\\u0000",
        "\\ud800",
        "18446744073709551616",
        "\"size\":1,",
        "\"digest\":\"sha256:\",",
        "\u{feff}",
        "/**/",
    ];
    if random.below(2) == 0 && !data.is_empty() {
        let at = random.below(data.len());
        data.splice(at..at, TOKENS[random.below(20)].bytes());
    } else {
        bytes(data, random);
    }
}

/// Changes one value somewhere in a document.
fn edit(value: &mut Value, random: &mut Random) {
    if random.below(4) > 0 {
        match value {
            Value::Array(items) if !items.is_empty() => {
                let at = random.below(items.len());
                return match random.below(6) {
                    0 => drop(items.remove(at)),
                    1 => items.push(items[at].clone()),
                    2 => items.swap(0, at),
                    _ => edit(&mut items[at], random),
                };
            }
            Value::Object(fields) if !fields.is_empty() => {
                let at = random.below(fields.len());
                let Some(key) = fields.keys().nth(at).cloned() else {
                    return;
                };
                match random.below(8) {
                    0 => drop(fields.remove(&key)),
                    1 => {
                        let name = ["urls", "data", "manifests", "layers", "subject", "platform"];
                        let copy = fields[&key].clone();
                        fields.insert(name[random.below(6)].into(), copy);
                    }
                    _ => edit(&mut fields[&key], random),
                }
                return;
            }
            _ => {}
        }
    }
    *value = match (&*value, random.below(5)) {
        (Value::String(text), 0..=2) => {
            let mut text = text.clone().into_bytes();
            bytes(&mut text, random);
            String::from_utf8_lossy(&text).into()
        }
        (Value::Number(n), 0..=2) => {
            let n = n.as_u64().unwrap_or_default();
            json!(n.wrapping_add(INTERESTING[random.below(16)]))
        }
        (_, 3) => json!(INTERESTING[random.below(16)]),
        _ => match random.below(7) {
            0 => Value::Null,
            1 => json!(-1),
            2 => json!(0.5),
            3 => json!([]),
            4 => json!({}),
            5 => json!("a/../b"),
            _ => json!(digest(b"")),
        },
    };
}

/// A whole archive: as bytes, as a tar, or one entry of it, with or without the digests that lead
/// there being made right.
pub fn archive(data: &mut Vec<u8>, random: &mut Random) {
    let layout = match random.below(3) {
        0 => None,
        _ => Layout::read(data),
    };
    match layout {
        Some(mut layout) if !layout.entries.is_empty() => {
            entry(&mut layout, random);
            *data = layout.to_bytes();
        }
        _ => tar(data, random),
    }
}

fn entry(layout: &mut Layout, random: &mut Random) {
    let number = random.below(layout.entries.len());
    let (name, content) = layout.entries[number].clone();
    let mut changed = content.clone();
    match random.below(10) {
        0 => drop(layout.entries.remove(number)),
        1 => layout.entries.swap(0, number),
        2 => layout.entries.push((name, content)),
        // Content that its name does not fit any more.
        3 | 4 => {
            kind(&content)(&mut changed, random);
            layout.entries[number].1 = changed;
        }
        // Content, and everything that leads to it.
        _ => {
            kind(&content)(&mut changed, random);
            layout.replace(&content, &changed);
        }
    }
}

/// The mutator for some content.
fn kind(content: &[u8]) -> fn(&mut Vec<u8>, &mut Random) {
    match content {
        [b'{', ..] => json,
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => |data, random| match random.below(2) {
            0 => bytes(data, random),
            _ => match repacked(data, random) {
                Some(changed) => *data = changed,
                None => bytes(data, random),
            },
        },
        _ if content.get(257..262) == Some(b"ustar") => tar,
        _ => bytes,
    }
}

/// What changes an archive, and keeps what refers to the change true.
trait Change: Sized {
    /// The entries of any bytes that are a tar; a hard link has the bytes of its target.
    fn read(archive: &[u8]) -> Option<Self>;

    /// Replaces some content wherever it stands, and its digest and size in what refers to it.
    fn replace(&mut self, old: &[u8], new: &[u8]);
}

impl Change for Layout {
    fn read(archive: &[u8]) -> Option<Layout> {
        use std::io::Read as _;
        let mut entries: Vec<(String, Vec<u8>)> = Vec::new();
        for entry in tar::Archive::new(archive).entries().ok()? {
            let mut entry = entry.ok()?;
            let name = String::from_utf8(entry.path_bytes().into_owned()).ok()?;
            let mut bytes = Vec::new();
            match entry.link_name_bytes() {
                Some(target) => {
                    let found = entries.iter().find(|(name, _)| name.as_bytes() == &*target);
                    bytes.clone_from(&found?.1);
                }
                None => drop(entry.read_to_end(&mut bytes).ok()?),
            }
            if !name.is_empty() {
                entries.push((name, bytes));
            }
        }
        Some(Layout { entries })
    }

    fn replace(&mut self, old: &[u8], new: &[u8]) {
        let (was, is) = (digest(old), digest(new));
        if was == is {
            return;
        }
        let path = |digest: &str| format!("blobs/{}", digest.replace(':', "/"));
        let mut refer = Vec::new();
        for (name, content) in &mut self.entries {
            if content == old {
                *content = new.to_vec();
            } else if content.starts_with(b"{") && contains(content, was.as_bytes()) {
                refer.push(content.clone());
            }
            if *name == path(&was) {
                *name = path(&is);
            }
        }
        for content in refer {
            let Ok(mut value) = serde_json::from_slice(&content) else {
                continue;
            };
            refer_to(&mut value, &was, &is, new.len());
            let changed = serde_json::to_vec(&value).unwrap_or_default();
            self.replace(&content, &changed);
        }
    }
}

fn contains(content: &[u8], what: &[u8]) -> bool {
    content.windows(what.len()).any(|window| window == what)
}

fn refer_to(value: &mut Value, was: &str, is: &str, size: usize) {
    match value {
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| refer_to(item, was, is, size)),
        Value::Object(fields) => {
            if fields.get("digest").is_some_and(|digest| digest == was) {
                fields.insert("digest".into(), json!(is));
                fields.insert("size".into(), json!(size));
            }
            fields
                .values_mut()
                .for_each(|value| refer_to(value, was, is, size));
        }
        Value::String(text) if text == was => *text = is.into(),
        _ => {}
    }
}
