#![no_main]

use modeloci_fuzz::targets::codec::literal_roundtrip::run;

libfuzzer_sys::fuzz_target!(|data: &[u8]| run(data));
