//! What each codec makes of the kinds of data that models consist of: sizes and speeds, compared
//! with zlib-rs, libdeflate and zstd in the same run.
//!
//! ```text
//! cargo bench --bench codec            # all kinds of data
//! cargo bench --bench codec -- bf16    # those whose name contains "bf16"
//! ```
//!
//! All data is made from fixed seeds. Times are medians of runs that take turns, on one thread;
//! machines are noisy, so read the ratios, not the megabytes.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::hint::black_box;
use std::io::{Read, Write as _};
use std::time::Instant;

use modeloci::codec::{ChunkKind, Decoder, Encoded, Encoder};
use modeloci::{Compression, limits};

const CHUNK: usize = limits::DEFAULT_CHUNK_BYTES as usize;
const CHUNKS: usize = 8;
const RUNS: usize = 9;

fn main() {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let wanted = |name: &str| filter.as_ref().is_none_or(|f| name.contains(f.as_str()));
    let kinds: Vec<(&str, Vec<u8>)> = KINDS
        .iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, make)| {
            (
                *name,
                make(&mut Random(0x9e37_79b9_7f4a_7c15), CHUNK * CHUNKS),
            )
        })
        .collect();

    println!("size relative to the input (chunks of 512 KiB)");
    println!(
        "{:<6} {:>6} {:<22} {:>7} {:>9} {:>12} {:>8} {:>7}",
        "data", "auto", "as", "gzip:6", "zlib-rs 6", "libdeflate 6", "zlib-rs1", "zstd 1"
    );
    for (name, data) in &kinds {
        let auto = Segments::new(Compression::Auto, data);
        let gzip = Segments::new(Compression::Gzip(6), data);
        let ratio = |size: usize| size as f64 / data.len() as f64;
        println!(
            "{name:<6} {:>6.3} {:<22} {:>7.3} {:>9.3} {:>12.3} {:>8.3} {:>7.3}",
            ratio(auto.size()),
            auto.kinds(),
            ratio(gzip.size()),
            ratio(zlib(data, 6).len()),
            ratio(libdeflate(data, 6).len()),
            ratio(zlib(data, 1).len()),
            ratio(zstd::bulk::compress(data, 1).unwrap().len()),
        );
    }

    println!("\nencoding, MB/s of input on one thread (how many times zlib-rs 6)");
    for (name, data) in &kinds {
        let mut auto = (Encoder::new(Compression::Auto), Vec::new());
        let mut gzip = (Encoder::new(Compression::Gzip(6)), Vec::new());
        report(
            name,
            data.len(),
            &mut [
                ("zlib-rs 6", &mut || drop(black_box(zlib(data, 6)))),
                ("auto", &mut || encode_all(&mut auto, data)),
                ("gzip:6", &mut || encode_all(&mut gzip, data)),
                ("zstd 1", &mut || {
                    drop(black_box(zstd::bulk::compress(data, 1)))
                }),
            ],
        );
    }

    println!("\ndecoding, MB/s of output on one thread (how many times zlib-rs)");
    for (name, data) in &kinds {
        let auto = Segments::new(Compression::Auto, data);
        let gzip = Segments::new(Compression::Gzip(6), data);
        let zstd_1 = Segments::new(Compression::Zstd(1), data);
        let stream = zlib(data, 6);
        let mut outs = vec![vec![0u8; CHUNK]; 4];
        let [a, b, c, d] = &mut outs[..] else { return };
        let mut decoders = [Decoder::default(), Decoder::default(), Decoder::default()];
        let [auto_decoder, gzip_decoder, zstd_decoder] = &mut decoders;
        let mut libdeflater = libdeflater::Decompressor::new();
        let complete = gzip.complete();
        let auto_name = format!("auto {}", auto.kinds());
        let gzip_name = format!("gzip:6 {}", gzip.kinds());
        let mut whole = vec![0u8; data.len()];
        report(
            name,
            data.len(),
            &mut [
                ("zlib-rs", &mut || {
                    let mut inflate = flate2::Decompress::new(false);
                    let done =
                        inflate.decompress(&stream, &mut whole, flate2::FlushDecompress::Finish);
                    assert_eq!(done.unwrap(), flate2::Status::StreamEnd);
                }),
                (&auto_name, &mut || auto.decode(auto_decoder, a)),
                (&gzip_name, &mut || gzip.decode(gzip_decoder, b)),
                ("libdeflate", &mut || {
                    for segment in &complete {
                        let size = libdeflater.deflate_decompress(segment, c);
                        assert_eq!(size, Ok(CHUNK));
                    }
                }),
                ("zstd 1", &mut || zstd_1.decode(zstd_decoder, d)),
            ],
        );
    }

    println!("\nreading gzip of others, MB/s of output on one thread (how many times zlib-rs)");
    for (name, data) in &kinds {
        for level in [1, 6] {
            let stream = gzip(data, level);
            report(
                &format!("{name} {level}"),
                data.len(),
                &mut [
                    ("zlib-rs", &mut || {
                        read_out(flate2::bufread::MultiGzDecoder::new(&stream[..]));
                    }),
                    ("as layers are", &mut || {
                        read_out(modeloci::codec::gunzip(&stream[..]));
                    }),
                ],
            );
        }
    }
}

fn read_out(mut stream: impl Read) {
    let mut buffer = vec![0; 64 << 10];
    while stream.read(&mut buffer).unwrap() > 0 {}
}

/// Runs what is to be compared in turns, and prints the medians.
fn report(name: &str, bytes: usize, contenders: &mut [(&str, &mut dyn FnMut())]) {
    let mut times = vec![Vec::new(); contenders.len()];
    for _ in 0..RUNS {
        for ((_, run), times) in contenders.iter_mut().zip(&mut times) {
            let start = Instant::now();
            run();
            times.push(start.elapsed().as_secs_f64());
        }
    }
    let medians: Vec<f64> = times
        .iter_mut()
        .map(|times| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        })
        .collect();
    print!("{name:<6}");
    for ((what, _), median) in contenders.iter().zip(&medians) {
        let rate = bytes as f64 / median / 1e6;
        print!("  {what} {rate:.0} ({:.2}x)", medians[0] / median);
    }
    println!();
    std::io::stdout().flush().unwrap();
}

fn encode_all((encoder, out): &mut (Encoder, Vec<u8>), data: &[u8]) {
    out.clear();
    for chunk in data.chunks(CHUNK) {
        black_box(encoder.encode(chunk, out));
    }
}

/// Data cut into chunks and encoded.
struct Segments(Vec<(Encoded, Vec<u8>)>);

impl Segments {
    fn new(compression: Compression, data: &[u8]) -> Segments {
        let mut encoder = Encoder::new(compression);
        let encode = |chunk: &[u8]| {
            let mut out = Vec::new();
            (encoder.encode(chunk, &mut out), out)
        };
        Segments(data.chunks(CHUNK).map(encode).collect())
    }

    fn size(&self) -> usize {
        self.0.iter().map(|(_, segment)| segment.len()).sum()
    }

    /// The kinds of the chunks, and how many there are of each.
    fn kinds(&self) -> String {
        let all = [
            ChunkKind::Stored,
            ChunkKind::Literal,
            ChunkKind::Deflate,
            ChunkKind::Zstd,
        ];
        let counted = all.iter().filter_map(|kind| {
            let n = self.0.iter().filter(|(e, _)| e.kind == *kind).count();
            (n > 0).then(|| match n == self.0.len() {
                true => format!("{kind:?}"),
                false => format!("{kind:?} {n}/{}", self.0.len()),
            })
        });
        counted.collect::<Vec<_>>().join(" ").to_lowercase()
    }

    fn decode(&self, decoder: &mut Decoder, out: &mut [u8]) {
        for (encoded, segment) in &self.0 {
            let done = decoder.decode(encoded.kind, &encoded.sub_offsets, segment, out);
            assert_eq!(done, Ok(()));
        }
    }

    /// The segments as complete deflate streams.
    fn complete(&self) -> Vec<Vec<u8>> {
        let complete = |(_, segment): &(Encoded, Vec<u8>)| [segment, &[3, 0][..]].concat();
        self.0.iter().map(complete).collect()
    }
}

fn zlib(data: &[u8], level: u32) -> Vec<u8> {
    let mut deflate =
        flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(level));
    deflate.write_all(data).unwrap();
    deflate.finish().unwrap()
}

fn gzip(data: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn libdeflate(data: &[u8], level: i32) -> Vec<u8> {
    let level = libdeflater::CompressionLvl::new(level).unwrap();
    let mut compressor = libdeflater::Compressor::new(level);
    let mut out = vec![0; compressor.deflate_compress_bound(data.len())];
    let size = compressor.deflate_compress(data, &mut out).unwrap();
    out.truncate(size);
    out
}

type Make = fn(&mut Random, usize) -> Vec<u8>;

const KINDS: [(&str, Make); 7] = [
    ("fp32", |random, len| {
        let weight = |_| (random.normal() * 0.02).to_le_bytes();
        (0..len / 4).flat_map(weight).collect()
    }),
    ("fp16", |random, len| {
        let weight = |_| half(random.normal() * 0.02).to_le_bytes();
        (0..len / 2).flat_map(weight).collect()
    }),
    ("bf16", |random, len| {
        let weight = |_| (((random.normal() * 0.02).to_bits() >> 16) as u16).to_le_bytes();
        (0..len / 2).flat_map(weight).collect()
    }),
    // Rows of 4096 weights, each scaled so that the largest becomes 127.
    ("int8", |random, len| {
        let row = |_| {
            let row: Vec<f32> = (0..4096).map(|_| random.normal()).collect();
            let largest = row.iter().fold(0f32, |max, w| max.max(w.abs()));
            row.into_iter()
                .map(move |w| (w / largest * 127.0).round() as i8 as u8)
                .collect::<Vec<u8>>()
        };
        (0..len / 4096).flat_map(row).collect()
    }),
    // llama.cpp's blocks: 32 weights, the scale as fp16, then 16 bytes with two weights each.
    ("q4_0", |random, len| {
        let mut out = Vec::with_capacity(len);
        while out.len() + 18 <= len {
            let block: [f32; 32] = std::array::from_fn(|_| random.normal() * 0.02);
            let extreme = block
                .iter()
                .fold(0f32, |a, b| if b.abs() > a.abs() { *b } else { a });
            let scale = extreme / -8.0;
            out.extend(half(scale).to_le_bytes());
            let quantised = block.map(|w| ((w / scale + 8.5) as u8).min(15));
            out.extend((0..16).map(|i| quantised[i] | quantised[i + 16] << 4));
        }
        out.resize(len, 0);
        out
    }),
    // A tokenizer: words made of syllables, in quotes, with ascending numbers.
    ("json", |random, len| {
        const SYLLABLES: [&str; 24] = [
            "an", "be", "con", "de", "er", "for", "ing", "la", "men", "na", "o", "per", "qu", "re",
            "sta", "ti", "tion", "un", "ver", "wa", "x", "ya", "zu", "\u{120}",
        ];
        let mut out = Vec::with_capacity(len + 100);
        let mut id = 0;
        while out.len() < len {
            let word: String = (0..1 + random.next() % 4)
                .map(|_| SYLLABLES[(random.next() % 24) as usize])
                .collect();
            out.extend(format!("      \"{word}\": {id},\n").bytes());
            id += 1;
        }
        out.truncate(len);
        out
    }),
    ("random", |random, len| {
        (0..len / 8)
            .flat_map(|_| random.next().to_le_bytes())
            .collect()
    }),
];

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Uniform in 0..1, and never 0.
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 1.0) / (1u64 << 53) as f64
    }

    /// Standard normal (Box and Muller).
    fn normal(&mut self) -> f32 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        (radius * (std::f64::consts::TAU * self.uniform()).cos()) as f32
    }
}

/// The nearest fp16, for numbers in its range; below its normal range towards zero.
fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
    let mantissa = bits & 0x7f_ffff;
    if exponent <= 0 {
        if exponent < -10 {
            return sign;
        }
        return sign | ((mantissa | 0x80_0000) >> (14 - exponent)) as u16;
    }
    let rounded = ((exponent as u32) << 23 | mantissa) + 0x0fff + (mantissa >> 13 & 1);
    sign | (rounded >> 13) as u16
}
