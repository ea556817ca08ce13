#![no_main]

use modeloci_fuzz::targets::codec::decode_differential::run;

libfuzzer_sys::fuzz_target!(|data: &[u8]| run(data));
